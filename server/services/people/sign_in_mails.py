"""Links that sign in by e-mail: asked for on a page, sent by a worker.

The page does the same for every address: it stores the wish and asks for the task. Whether the address is anybody's is
looked up by the worker, after the answer has gone, so neither what the page says nor how long it takes tells. The row is
the truth: a wish whose message was lost, or whose mail server was away, is taken again while the link would still be worth
something.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from server.language import _, current, speaking
from server.models import SignInLink, SignInRequest
from server.services.people import people
from server.transaction import ask_for

MINUTES = 15
ATTEMPTS = 4
LOST = timedelta(seconds=20)  # without being taken: its message was lost
AGAIN = timedelta(seconds=60)  # after it was taken: its mail could not be handed over


@dataclass(frozen=True)
class Letter:
    """A mail to one person, in their language."""

    to: str
    subject: str
    text: str


def ask(db: Session, email: str) -> None:
    """Store that somebody wants a link for this address, and ask for it to be sent; the same whether it is anybody's."""
    wish = SignInRequest(email=people.checked_email(email), language=current())
    db.add(wish)
    db.flush()
    ask_for(db, "send_sign_in_link", request_id=wish.id)


def claim(db: Session, request_id: int) -> int | None:
    """Take a wish, once in a while however often its message comes; None when there is nothing to do."""
    return db.scalar(
        update(SignInRequest)
        .where(SignInRequest.id == request_id, *_fresh(), _free())
        .values(attempts=SignInRequest.attempts + 1, claimed_at=func.now())
        .returning(SignInRequest.id)
    )


def letter(db: Session, request_id: int, public_url: str) -> Letter | None:
    """Make the link of a wish and the mail that brings it; None where the address is nobody's."""
    wish = db.get(SignInRequest, request_id)
    person = people.person_by_email(db, wish.email) if wish is not None else None
    if wish is None or person is None or person.email is None or person.disabled_at is not None:
        return None
    token = secrets.token_urlsafe(32)
    db.add(
        SignInLink(
            token_hash=people.hash_token(token),
            person_id=person.id,
            kind="email",
            expires_at=func.now() + timedelta(minutes=MINUTES),
        )
    )
    link = f"{public_url}/sign-in/{token}"
    with speaking(person.language or wish.language):
        text = _(
            "Hello {name},\n\nthis link signs you in to Whetstone. It works once, within {minutes} minutes:\n\n{link}\n\n"
            "If you did not ask for it, you need not do anything: without the link nobody can sign in.\n",
            name=person.name,
            minutes=MINUTES,
            link=link,
        )
        # The address as it is stored, not as it was typed: a look-alike in other letters gets nothing.
        return Letter(person.email, _("Your link to sign in"), text)


def done(db: Session, request_id: int) -> None:
    """The mail is handed over, or there is nobody to send it to: nothing about the wish is kept."""
    db.execute(delete(SignInRequest).where(SignInRequest.id == request_id))


def _fresh() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return SignInRequest.created_at > func.now() - timedelta(minutes=MINUTES), SignInRequest.attempts < ATTEMPTS


def _free() -> ColumnElement[bool]:
    return or_(SignInRequest.claimed_at.is_(None), SignInRequest.claimed_at < func.now() - AGAIN)


def ask_again(db: Session) -> list[int]:
    """Ask for the wishes that nobody took, or whose mail could not be handed over (the sweep calls this)."""
    waiting = select(SignInRequest.id).where(*_fresh(), _free(), SignInRequest.created_at < func.now() - LOST)
    found = sorted(db.scalars(waiting))
    for request_id in found:
        ask_for(db, "send_sign_in_link", request_id=request_id)
    return found


def clear(db: Session) -> int:
    """Remove wishes that have grown old unmet; how many."""
    old = SignInRequest.created_at < func.now() - timedelta(minutes=MINUTES)
    return len(db.scalars(delete(SignInRequest).where(old).returning(SignInRequest.id)).all())
