"""Paid time: how long a person was at work in a campaign, by the database's clock, and what is owed for it.

Each sign of work (a page opened, a draft kept, a message, an answer, the page's own beat while somebody is active at it) adds
the time since the last sign, at most LONGEST_GAP of it: who reads for longer without a sign is paid that much of the gap.
No second is paid twice, though two campaigns be open side by side: the time since the last sign goes to the next one's.
A session that had no sign for IDLE is ended by the sweep, and is paid like any other.

`seen` and `still_here` lock the session's row. A request calls them after all that it may have to wait for, else two
requests of a person could wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal

from babel.numbers import get_currency_precision
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Double,
    ScalarSelect,
    and_,
    bindparam,
    cast,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session

from server.db import Base
from server.language import _, money
from server.models import Campaign, LedgerEntry, Membership, Panel, PanelSubmission, Person, WorkSession
from server.services import days

LONGEST_GAP = timedelta(seconds=120)
IDLE = timedelta(minutes=30)
ENDINGS = ("finished", "returned", "timed_out", "idle")
_BATCH = 500


_ROWS = Base.metadata.tables["work_sessions"]


def _grown(who: int | BindParameter[int]) -> ColumnElement[float]:
    """A session's time with that since the last sign, of whichever of the person's sessions: each second goes to one."""
    others = _ROWS.alias()
    last = select(func.max(others.c.seen_at)).where(others.c.person_id == who, others.c.ended_at.is_(None))
    gap = cast(func.extract("epoch", func.now() - func.greatest(_ROWS.c.seen_at, last.scalar_subquery())), Double)
    return _ROWS.c.active_seconds + func.greatest(0, func.least(gap, LONGEST_GAP.total_seconds()))


# Who left or was shown the door is at work no longer; what shut it, a last answer say, still counts.
_GONE = exists().where(
    Membership.person_id == bindparam("who"),
    Membership.campaign_id == bindparam("place"),
    Membership.status != "active",
    Membership.changed_at < func.now(),
)
# Made once: the beat of every open page runs it, and putting it together costs more than that.
_STILL_HERE = (
    update(_ROWS)
    .where(
        _ROWS.c.person_id == bindparam("who"),
        _ROWS.c.campaign_id == bindparam("place"),
        _ROWS.c.ended_at.is_(None),
        ~_GONE,
    )
    .values(active_seconds=_grown(bindparam("who")), seen_at=func.greatest(_ROWS.c.seen_at, func.now()))
)


# As text, since every answer runs it: building it anew costs more than running it. The places are filled by `sign_values`.
SIGN = """
INSERT INTO work_sessions AS w (person_id, campaign_id, answers)
SELECT %(person_id)s, %(campaign_id)s, %(sign_answers)s {where}
ON CONFLICT (person_id, campaign_id) WHERE ended_at IS NULL DO UPDATE SET
  active_seconds = w.active_seconds + greatest(0, least(%(longest_gap)s, extract(epoch FROM now() - greatest(w.seen_at,
    (SELECT max(o.seen_at) FROM work_sessions o WHERE o.person_id = %(person_id)s AND o.ended_at IS NULL)))::float8)),
  seen_at = greatest(w.seen_at, now()),  -- two requests may end in another order than they began in
  answers = w.answers + excluded.answers
"""


_STILL_IN = """
WHERE NOT EXISTS (SELECT FROM memberships m WHERE m.person_id = %(person_id)s AND m.campaign_id = %(campaign_id)s
                  AND m.status <> 'active' AND m.changed_at < now())
"""


def sign_values(answers: int) -> dict[str, float]:
    """What a statement with `SIGN` in it needs beside the person and the campaign."""
    return {"sign_answers": answers, "longest_gap": LONGEST_GAP.total_seconds()}


def seen(db: Session, person: Person, campaign: Campaign, *, answers: int = 0) -> None:
    """A sign of work: the person's session in the campaign grows, or begins. `answers` is how many it stored."""
    db.flush()  # what the session holds back must be there before a statement that it does not know
    values = {"person_id": person.id, "campaign_id": campaign.id, **sign_values(answers)}
    db.connection().exec_driver_sql(SIGN.format(where=_STILL_IN), values)


def still_here(db: Session, person: Person, campaign: Campaign) -> None:
    """The page's beat: prolongs a session that work has begun, where the campaign is open. It begins none."""
    if campaign.status == "open":
        db.execute(_STILL_HERE, {"who": person.id, "place": campaign.id})


def _theirs(person: Person, campaign: Campaign) -> ColumnElement[bool]:
    return and_(WorkSession.person_id == person.id, WorkSession.campaign_id == campaign.id)


def end(db: Session, person: Person, campaign: Campaign, ended_as: str) -> WorkSession | None:
    """End the person's open session here and enter what is owed for it, once; None when there is none open.

    `finished` is itself a sign of work, and the time since the last one counts.
    """
    assert ended_as in ENDINGS
    more = {"active_seconds": _grown(person.id)} if ended_as == "finished" else {}
    ended = _end(db, _theirs(person, campaign), ended_as, **more)
    return ended[0] if ended else None


def end_all(db: Session, campaign: Campaign) -> int:
    """End every open session of a campaign, as before its pay changes: what was done is paid as it was promised."""
    return len(_end(db, WorkSession.campaign_id == campaign.id, "idle"))


def end_idle(db: Session) -> int:
    """End the sessions that had no sign of work for IDLE (the sweep calls this); returns how many."""
    left = (
        select(WorkSession.id)
        .where(WorkSession.ended_at.is_(None), WorkSession.seen_at < func.now() - IDLE)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    return len(_end(db, WorkSession.id.in_(left), "idle"))


def _came_with() -> ScalarSelect[int]:
    """The newest visit by way of a panel for which a session's person can have worked in it; none for most people."""
    return (
        select(PanelSubmission.id)
        .join(Panel, Panel.id == PanelSubmission.panel_id)
        .where(
            PanelSubmission.person_id == WorkSession.person_id,
            Panel.campaign_id == WorkSession.campaign_id,
            PanelSubmission.started_at <= WorkSession.seen_at,
        )
        .order_by(PanelSubmission.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def _end(db: Session, which: ColumnElement[bool], ended_as: str, **more: ColumnElement[float]) -> list[WorkSession]:
    """End sessions and enter each in the ledger. Who comes second finds `ended_at` set and changes nothing."""
    ended = db.scalars(
        update(WorkSession)
        .where(which, WorkSession.ended_at.is_(None))
        .values(ended_at=func.now(), ended_as=ended_as, submission_id=_came_with(), **more)
        .returning(WorkSession)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
    for session in ended:
        _enter(db, session)
    db.flush()
    return list(ended)


def _enter(db: Session, session: WorkSession) -> None:
    """One line of the ledger for a session; none where nothing is owed, or nobody is there to be paid."""
    if db.get_one(Person, session.person_id).simulated:
        return
    campaign = db.get_one(Campaign, session.campaign_id)
    minutes = minutes_of(session.active_seconds)
    amount = owed_for(minutes, campaign)
    if amount:
        db.add(
            LedgerEntry(
                person_id=session.person_id,
                campaign_id=campaign.id,
                work_session_id=session.id,
                kind="time",
                minutes=minutes,
                rate_per_hour=campaign.pay_per_hour,
                amount=amount,
                currency=campaign.currency,
            )
        )


def minutes_of(seconds: float) -> Decimal:
    """Minutes as the ledger has them: to a hundredth."""
    return (Decimal(str(seconds)) / 60).quantize(Decimal("0.01"), ROUND_HALF_UP)


def owed_for(minutes: Decimal, campaign: Campaign) -> Decimal:
    """Minutes times the campaign's pay, as anybody can reckon it from the line: half a cent is a cent."""
    return in_coins(minutes * (campaign.pay_per_hour or 0) / 60, campaign.currency)


def in_coins(amount: Decimal, currency: str) -> Decimal:
    """Rounded, half up, to what can be paid in the currency: yen have no cents."""
    places = min(2, get_currency_precision(currency))
    return amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP).quantize(Decimal("0.01"))


@dataclass(frozen=True)
class Today:
    """One person's day in one campaign so far."""

    seconds: float
    owed: Decimal


_TODAY = (
    select(
        func.coalesce(func.sum(WorkSession.active_seconds), 0.0),
        func.coalesce(func.sum(WorkSession.active_seconds).filter(WorkSession.ended_at.is_(None)), 0.0),
        func.coalesce(func.sum(LedgerEntry.amount).filter(LedgerEntry.status != "rejected"), 0),
    )
    .outerjoin(LedgerEntry, and_(LedgerEntry.work_session_id == WorkSession.id, LedgerEntry.kind == "time"))
    .where(
        WorkSession.person_id == bindparam("who"),
        WorkSession.campaign_id == bindparam("place"),
        WorkSession.started_at >= bindparam("midnight"),
    )
)


def today(db: Session, person: Person, campaign: Campaign) -> Today:
    """Of the sessions that began since midnight UTC: the active time, and what it comes to with the one that is open."""
    midnight = days.midnight()
    given = {"who": person.id, "place": campaign.id, "midnight": midnight}
    seconds, still_open, entries = db.execute(_TODAY, given).one()
    return Today(seconds, entries + owed_for(minutes_of(still_open), campaign))


def line(db: Session, person: Person, campaign: Campaign) -> str:
    """What the page of work says of today's time and pay; nothing where the campaign does not pay."""
    if not campaign.pay_per_hour:
        return ""
    so_far = today(db, person, campaign)
    return _(
        "Today: {minutes} min of paid time, {amount} at {rate} an hour.",
        minutes=int(so_far.seconds // 60),
        amount=money(so_far.owed, campaign.currency),
        rate=money(campaign.pay_per_hour, campaign.currency),
    )
