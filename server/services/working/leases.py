"""Who works on what, until when. Time on the server decides; nobody who left can block anybody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from server.models import Campaign, Conversation, Lease, Person

# A message that was taken in the lease's last instant has stored its renewal by then; requests are far shorter.
GRACE = timedelta(minutes=1)


def lock(db: Session, what: str) -> None:
    """Wait until nobody else's transaction holds the lock `what`; it is let go at the end of this one."""
    db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(what, 0))))


def hold(
    db: Session,
    person: Person,
    campaign: Campaign,
    conversation: Conversation,
    turn_id: int | None = None,
    *,
    mirrored: bool = False,
) -> Lease:
    """Take or renew a person's lease for the campaign's `lease_minutes` from now; renewing leaves `mirrored` as it was."""
    expires_at = datetime.now(UTC) + timedelta(minutes=campaign.lease_minutes)
    statement = (
        insert(Lease)
        .values(
            person_id=person.id,
            conversation_id=conversation.id,
            turn_id=turn_id,
            expires_at=expires_at,
            mirrored=mirrored,
        )
        .on_conflict_do_update(
            index_elements=["person_id", "conversation_id", "turn_id"],
            set_={"expires_at": expires_at, "released_at": None},
        )
        .returning(Lease)
    )
    return db.scalars(statement, execution_options={"populate_existing": True}).one()


def find(db: Session, person: Person, conversation: Conversation, turn_id: int | None = None) -> Lease | None:
    """The lease, live or not."""
    return db.scalar(
        select(Lease).where(
            Lease.person_id == person.id,
            Lease.conversation_id == conversation.id,
            Lease.turn_id == turn_id if turn_id is not None else Lease.turn_id.is_(None),
        ),
        execution_options={
            "populate_existing": True
        },  # as it stands now, not as it was read before a lock was waited for
    )


def live_on(turn_id: InstrumentedAttribute[int] | int) -> ColumnElement[bool]:
    """A lease that holds a place of a turn now, by the database's clock."""
    return and_(Lease.turn_id == turn_id, Lease.released_at.is_(None), Lease.expires_at > func.clock_timestamp())


def is_live(lease: Lease) -> bool:
    """Neither released nor expired."""
    return lease.released_at is None and lease.expires_at > datetime.now(UTC)


def release(db: Session, person: Person, conversation: Conversation, turn_id: int | None = None) -> None:
    """Let go of a lease, if there is one."""
    lease = find(db, person, conversation, turn_id)
    if lease is not None and lease.released_at is None:
        lease.released_at = datetime.now(UTC)


def give_up(db: Session, person: Person, campaign: Campaign) -> int:
    """Give everything that a person holds in a campaign to others at once, and close their chat; how many leases there were."""
    if campaign.way == "chat":  # not while a message of theirs is being stored
        lock(db, f"chat:{person.id}:{campaign.id}")
    of_campaign = select(Conversation.id).where(Conversation.campaign_id == campaign.id)
    freed = db.scalars(
        update(Lease)
        .where(Lease.person_id == person.id, Lease.released_at.is_(None), Lease.conversation_id.in_(of_campaign))
        .values(released_at=func.now())
        .returning(Lease.id)
        .execution_options(synchronize_session=False)
    ).all()
    db.execute(
        update(Conversation)
        .where(
            Conversation.person_id == person.id,
            Conversation.campaign_id == campaign.id,
            Conversation.source == "chat",
            Conversation.status == "open",
        )
        .values(status="finished", finished_at=func.now())
        .execution_options(synchronize_session="fetch")
    )
    return len(freed)


def abandon_expired(db: Session) -> int:
    """Close open chats whose lease has run out (the sweep calls this); returns how many."""
    expired = select(Lease.id).where(
        # Both keys, so that each open chat is looked up in the index of leases, which keeps all that ever were.
        Lease.person_id == Conversation.person_id,
        Lease.conversation_id == Conversation.id,
        Lease.turn_id.is_(None),
        Lease.expires_at < func.now() - GRACE,
    )
    closed = db.scalars(
        update(Conversation)
        .where(Conversation.status == "open", Conversation.source == "chat", expired.exists())
        .values(status="abandoned", finished_at=func.now())
        .returning(Conversation.id)
        .execution_options(synchronize_session=False)
    ).all()
    return len(closed)
