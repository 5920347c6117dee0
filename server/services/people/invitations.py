"""Invitations: the way in for people whom an admin wants here; there is no open registration."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound
from server.language import _
from server.models import Invitation, Person
from server.services.people import people

MAX_DAYS = 365
MAX_USES = 10_000


def make_invitation(
    db: Session,
    roles: list[str] | tuple[str, ...],
    *,
    by: Person | None = None,
    note: str = "",
    max_uses: int = 1,
    days: int = 14,
) -> tuple[Invitation, str]:
    """An invitation and its token; the link `/invitation/TOKEN` can be shown only now, since only its hash is kept."""
    if not 1 <= max_uses <= MAX_USES:
        raise BadInput(_("An invitation serves 1 to {most} people.", most=MAX_USES), field="max_uses")
    if not 1 <= days <= MAX_DAYS:
        raise BadInput(_("An invitation lasts 1 to {most} days.", most=MAX_DAYS), field="days")
    token = secrets.token_urlsafe(32)
    invitation = Invitation(
        token_hash=people.hash_token(token),
        roles=people.checked_roles(roles),
        note=note.strip()[:500],
        max_uses=max_uses,
        created_by_id=by.id if by else None,
        expires_at=datetime.now(UTC) + timedelta(days=days),
    )
    db.add(invitation)
    db.flush()
    return invitation, token


def live_invitations(db: Session) -> list[Invitation]:
    """Those that still let someone in, newest first."""
    return list(
        db.scalars(
            select(Invitation)
            .where(
                Invitation.revoked_at.is_(None),
                Invitation.expires_at > datetime.now(UTC),
                Invitation.uses < Invitation.max_uses,
            )
            .order_by(Invitation.id.desc())
        )
    )


def find_invitation(db: Session, token: str) -> Invitation:
    """The live invitation behind a token; NotFound when it is unknown, used up, revoked or expired."""
    found = db.scalar(select(Invitation).where(Invitation.token_hash == people.hash_token(token)))
    if found is None or found.revoked_at or found.expires_at <= datetime.now(UTC) or found.uses >= found.max_uses:
        raise NotFound(_("This invitation has been used, withdrawn or has expired. Please ask for a new one."))
    return found


def revoke_invitation(db: Session, invitation_id: int) -> Invitation:
    """Withdraw an invitation; accounts that came of it stay."""
    found = db.get(Invitation, invitation_id)
    if found is None:
        raise NotFound(_("There is no such invitation."))
    found.revoked_at = found.revoked_at or datetime.now(UTC)
    return found


def accept_invitation(db: Session, token: str, name: str, email: str, password: str) -> Person:
    """Make the account of someone invited."""
    find_invitation(db, token)  # before anything that was typed is judged
    if not email.strip():
        raise BadInput(_("Please give your e-mail address; you sign in with it."), field="email")
    return people.create_person(db, name, use(db, token).roles, email=email, password=password)


def use(db: Session, token: str) -> Invitation:
    """Count one use of an invitation, exactly, however many come at once; the caller makes the account."""
    invitation = find_invitation(db, token)
    counted = db.scalar(
        update(Invitation)
        .where(
            Invitation.id == invitation.id,
            Invitation.uses < Invitation.max_uses,
            Invitation.revoked_at.is_(None),
        )
        .values(uses=Invitation.uses + 1)
        .returning(Invitation.id)
    )
    if counted is None:
        raise NotFound(_("This invitation was used up a moment ago. Please ask for a new one."))
    return invitation
