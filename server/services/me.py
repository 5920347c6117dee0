"""A person's own record: what they did day by day, how fast, what it comes to, and how they did where they may know.

Days are UTC. The pace and the rate are of the last DAYS days, in active time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Date, Select, cast, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from server.errors import NotFound
from server.language import _
from server.models import (
    Campaign,
    CheckResult,
    Comparison,
    Demonstration,
    Edit,
    LedgerEntry,
    Person,
    Prompt,
    Ranking,
    Report,
    Skip,
    WorkSession,
)
from server.services.days import midnight
from server.services.intervals import Share
from server.services.working.work_time import in_coins, minutes_of, owed_for

DAYS = 30
KINDS = ("comparison", "ranking", "demonstration", "edit", "prompt", "skip")
PLACES = 20
_LEAST_SECONDS = 60  # a rate of less time says nothing

# By kind: the campaign, the person and the time of its rows.
_ROWS: dict[str, tuple[InstrumentedAttribute[Any], InstrumentedAttribute[Any], InstrumentedAttribute[datetime]]] = {
    "comparison": (Comparison.campaign_id, Comparison.person_id, Comparison.created_at),
    "ranking": (Ranking.campaign_id, Ranking.person_id, Ranking.created_at),
    "demonstration": (Demonstration.campaign_id, Demonstration.person_id, Demonstration.created_at),
    "edit": (Edit.campaign_id, Edit.person_id, Edit.created_at),
    "prompt": (Prompt.written_in_id, Prompt.author_id, Prompt.created_at),
    "skip": (Skip.campaign_id, Skip.person_id, Skip.created_at),
}


@dataclass(frozen=True)
class Day:
    """One day in one campaign: how many of each kind."""

    on: datetime  # its midnight
    campaign_id: int
    campaign: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Pace:
    """The last DAYS days in one campaign."""

    campaign: Campaign
    answers: int  # without skips
    seconds: float
    today_seconds: float
    under_way: Decimal  # of a session that has not ended: not in the ledger yet
    earned: Decimal  # with what is under way, and without what was rejected

    @property
    def answers_an_hour(self) -> float | None:
        """None while there is too little time."""
        return self.answers * 3600 / self.seconds if self.seconds >= _LEAST_SECONDS else None

    @property
    def pay_an_hour(self) -> Decimal | None:
        """What an hour came to, bonuses and all; None where nothing is paid or there is too little time."""
        if not self.earned or self.seconds < _LEAST_SECONDS:
            return None
        return in_coins(self.earned * 3600 / Decimal(str(self.seconds)), self.campaign.currency)


@dataclass(frozen=True)
class Checks:
    """How a person answered the checks of a campaign that shows it to them."""

    campaign: str
    gold: Share
    attention: Share


@dataclass(frozen=True)
class Place:
    """One line of a leaderboard; equal numbers share a place."""

    place: int
    name: str
    answers: int
    own: bool


def _since() -> datetime:
    return midnight() - timedelta(days=DAYS - 1)


def days(db: Session, person: Person) -> list[Day]:
    """What was done in the last DAYS days, the newest first."""
    parts: list[Select[Any]] = []
    for kind, (campaign, who, at) in _ROWS.items():
        day = cast(func.timezone("UTC", at), Date)
        parts.append(
            select(day.label("day"), campaign.label("of"), literal(kind).label("kind"), func.count().label("n"))
            .where(who == person.id, at >= _since())
            .group_by(day, campaign)
        )
    found = union_all(*parts).subquery()
    rows = db.execute(
        select(found.c.day, Campaign.id, Campaign.name, found.c.kind, found.c.n)
        .join(Campaign, Campaign.id == found.c.of)
        .order_by(found.c.day.desc(), Campaign.name, Campaign.id)
    )
    made: dict[tuple[date, int], Day] = {}
    for day, campaign_id, name, kind, n in rows:
        empty = Day(datetime.combine(day, time(), tzinfo=UTC), campaign_id, name, dict.fromkeys(KINDS, 0))
        made.setdefault((day, campaign_id), empty).counts[kind] = n
    return list(made.values())


def paces(db: Session, person: Person, done: list[Day]) -> list[Pace]:
    """Time, answers and pay by campaign, of `days` and of the sessions that began in them."""
    answers: dict[int, int] = {}
    for day in done:
        given = sum(n for kind, n in day.counts.items() if kind != "skip")
        answers[day.campaign_id] = answers.get(day.campaign_id, 0) + given
    active = WorkSession.active_seconds
    times = {
        campaign_id: (seconds, today, still_open)
        for campaign_id, seconds, today, still_open in db.execute(
            select(
                WorkSession.campaign_id,
                func.sum(active),
                func.coalesce(func.sum(active).filter(WorkSession.started_at >= midnight()), 0.0),
                func.coalesce(func.sum(active).filter(WorkSession.ended_at.is_(None)), 0.0),
            )
            .where(WorkSession.person_id == person.id, WorkSession.started_at >= _since())
            .group_by(WorkSession.campaign_id)
        )
    }
    in_ledger = (
        select(Campaign.id, func.sum(LedgerEntry.amount))
        .join(LedgerEntry, (Campaign.id == LedgerEntry.campaign_id) & (Campaign.currency == LedgerEntry.currency))
        .outerjoin(WorkSession, WorkSession.id == LedgerEntry.work_session_id)
        .where(
            LedgerEntry.person_id == person.id,
            LedgerEntry.status != "rejected",
            func.coalesce(WorkSession.started_at, LedgerEntry.created_at) >= _since(),
        )
        .group_by(Campaign.id)
    )
    entered: dict[int, Decimal] = dict(db.execute(in_ledger).all())
    named = db.scalars(
        select(Campaign).where(Campaign.id.in_({*answers, *times, *entered})).order_by(Campaign.name, Campaign.id)
    )
    return [_pace(each, answers, times, entered) for each in named]


def _pace(
    campaign: Campaign,
    answers: dict[int, int],
    times: dict[int, tuple[float, float, float]],
    entered: dict[int, Decimal],
) -> Pace:
    seconds, today, still_open = times.get(campaign.id, (0.0, 0.0, 0.0))
    under_way = owed_for(minutes_of(still_open), campaign)
    earned = entered.get(campaign.id, Decimal(0)) + under_way
    return Pace(campaign, answers.get(campaign.id, 0), seconds, today, under_way, earned)


def checks(db: Session, person: Person) -> list[Checks]:
    """Of every campaign that shows its people how they answered its checks."""
    passed = func.count().filter(CheckResult.passed)
    rows = db.execute(
        select(
            Campaign.name,
            passed.filter(CheckResult.kind == "gold"),
            func.count().filter(CheckResult.kind == "gold"),
            passed.filter(CheckResult.kind == "attention"),
            func.count().filter(CheckResult.kind == "attention"),
        )
        .join(Campaign, Campaign.id == CheckResult.campaign_id)
        .where(CheckResult.person_id == person.id, Campaign.shares_checks)
        .group_by(Campaign.id)
        .order_by(Campaign.name, Campaign.id)
    )
    return [Checks(name, Share(gold, golds), Share(held, attentions)) for name, gold, golds, held, attentions in rows]


def reports(db: Session, person: Person, limit: int = 20) -> list[tuple[Report, str]]:
    """A person's newest reports with the names of their campaigns."""
    rows = db.execute(
        select(Report, Campaign.name)
        .join(Campaign, Campaign.id == Report.campaign_id)
        .where(Report.person_id == person.id)
        .order_by(Report.id.desc())
        .limit(limit)
    )
    return [(report, name) for report, name in rows]


def leaderboard(db: Session, person: Person, slug: str) -> tuple[Campaign, list[Place]]:
    """The first PLACES people of a campaign by their answers of the last DAYS days, and this person's own place.

    NotFound where the campaign has no leaderboard, and for who has no place on it: names are shown to each other alone.
    """
    campaign = db.scalar(select(Campaign).where(Campaign.slug == slug, Campaign.leaderboard))
    if campaign is None:
        raise NotFound(_("There is no such leaderboard."))
    parts: list[Select[Any]] = [
        select(who.label("who"), func.count().label("n"))
        .where(of == campaign.id, who.is_not(None), at >= _since())
        .group_by(who)
        for kind, (of, who, at) in _ROWS.items()
        if kind != "skip"
    ]
    found = union_all(*parts).subquery()
    total = func.sum(found.c.n)
    rows = db.execute(
        select(Person.id, Person.name, total)
        .join(found, found.c.who == Person.id)
        .where(Person.disabled_at.is_(None), ~Person.simulated)
        .group_by(Person.id)
        .order_by(total.desc(), Person.name, Person.id)
    ).all()
    totals = [int(n) for _id, _name, n in rows]
    places = [
        Place(1 + totals.index(n), name, n, id_ == person.id) for (id_, name, _n), n in zip(rows, totals, strict=True)
    ]
    if not any(each.own for each in places):
        raise NotFound(_("There is no such leaderboard."))
    return campaign, [each for number, each in enumerate(places) if number < PLACES or each.own]
