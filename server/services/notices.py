"""Notices: a word to one person, or to all people of a campaign; how many are unread stands with the person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound
from server.language import _
from server.models import Campaign, Comparison, Membership, Notice, Person, WorkSession
from server.services import audit
from server.services.working.answers import checked_key

MAX_CHARS = 10_000
_BATCH = 1000


def people_of(db: Session, campaign: Campaign) -> list[int]:
    """Who worked or may work in a campaign, but for those who left it, were taken out or have no account any more."""
    worked = select(WorkSession.person_id).where(WorkSession.campaign_id == campaign.id)
    compared = select(Comparison.person_id).where(
        Comparison.campaign_id == campaign.id, Comparison.person_id.is_not(None)
    )
    member = select(Membership.person_id).where(Membership.campaign_id == campaign.id)
    gone = member.where(Membership.status != "active")
    everybody = worked.union(compared, member)
    return list(
        db.scalars(
            select(Person.id)
            .where(Person.id.in_(everybody), Person.id.not_in(gone), Person.disabled_at.is_(None))
            .order_by(Person.id)
        )
    )


def send(
    db: Session,
    sender: Person | None,
    to: Iterable[int],
    text: str,
    *,
    campaign: Campaign | None = None,
    idempotency_key: str | None = None,
) -> int:
    """Write to people; with the same key nobody gets it twice. Returns how many got it now."""
    text = _checked(text)
    wanted = sorted(set(to))
    got = 0
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        # In one order, so that two who write to the same people do not wait for each other.
        db.execute(select(Person.id).where(Person.id.in_(batch)).order_by(Person.id).with_for_update(key_share=True))
        rows = [
            {
                "person_id": person_id,
                "campaign_id": campaign and campaign.id,
                "sender_id": sender and sender.id,
                "text": text,
                "idempotency_key": idempotency_key,
            }
            for person_id in batch
        ]
        written = db.scalars(
            insert(Notice)
            .values(rows)
            .on_conflict_do_nothing(index_elements=["person_id", "idempotency_key"])
            .returning(Notice.person_id)
        ).all()
        _count(db, written, 1)
        got += len(written)
    return got


def send_and_audit(
    db: Session, admin: Person, to: list[int], text: str, *, campaign: Campaign | None, idempotency_key: str
) -> int:
    """What the form of the admins does: write, and note down that it was done."""
    checked_key(idempotency_key)
    if not to:
        raise BadInput(_("There is nobody to write to."), field="people")
    got = send(db, admin, to, text, campaign=campaign, idempotency_key=idempotency_key)
    if got:
        audit.record(db, admin, "notice.send", "campaign" if campaign else "person", campaign.id if campaign else to[0],
                     people=got)  # fmt: skip
    return got


@dataclass(frozen=True)
class Sent:
    """One notice as it was written, to however many."""

    at: datetime
    text: str
    sender: str
    campaign: str
    people: int
    read: int


def sent(db: Session, limit: int = 50) -> list[Sent]:
    """What admins wrote, the newest first; what the ledger tells each person is not among it."""
    rows = db.execute(
        select(
            func.min(Notice.created_at),
            Notice.text,
            func.coalesce(Person.name, ""),
            func.coalesce(Campaign.name, ""),
            func.count(),
            func.count(Notice.read_at),
        )
        .outerjoin(Person, Person.id == Notice.sender_id)
        .outerjoin(Campaign, Campaign.id == Notice.campaign_id)
        .where(Notice.idempotency_key.is_not(None))
        .group_by(Notice.idempotency_key, Notice.text, Person.name, Campaign.name)
        .order_by(func.max(Notice.id).desc())
        .limit(limit)
    )
    return [Sent(*row) for row in rows]


def mark_read(db: Session, person: Person, notice_id: int | None = None) -> int:
    """One of a person's notices, or all of them, are read; returns how many were not before."""
    unread = update(Notice).where(Notice.person_id == person.id, Notice.read_at.is_(None))
    if notice_id is not None:
        own = select(Notice.id).where(Notice.id == notice_id, Notice.person_id == person.id)
        if db.scalar(own) is None:
            raise NotFound(_("There is no such notice."))
        unread = unread.where(Notice.id == notice_id)
    read = db.scalars(
        unread.values(read_at=func.now()).returning(Notice.id).execution_options(synchronize_session=False)
    ).all()
    # By how many and not anew: one that comes in this moment must stay counted.
    db.execute(
        update(Person)
        .where(Person.id == person.id)
        .values(unread_notices=Person.unread_notices - len(read))
        .execution_options(synchronize_session=False)
    )
    db.expire(person, ["unread_notices"])
    return len(read)


def newest(db: Session, person: Person, limit: int = 50) -> list[Notice]:
    """A person's notices, the newest first."""
    return list(db.scalars(select(Notice).where(Notice.person_id == person.id).order_by(Notice.id.desc()).limit(limit)))


def _checked(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\0", "").strip()
    if not text:
        raise BadInput(_("The notice is empty. Type something first."), field="text")
    if len(text) > MAX_CHARS:
        raise BadInput(_("A notice has at most {most} characters.", most=MAX_CHARS), field="text")
    return text


def _count(db: Session, people: Iterable[int], more: int) -> None:
    db.execute(
        update(Person)
        .where(Person.id.in_(list(people)))
        .values(unread_notices=Person.unread_notices + more)
        .execution_options(synchronize_session="fetch")
    )
