"""What is known of how one person answers, campaign by campaign, beside all people there: evidence to look at, never a verdict.

Shares come with their counts, since few answers show little. "Everybody" are all people of the campaign, this one among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, case, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from server.models import (
    Campaign,
    CheckResult,
    Comparison,
    Demonstration,
    Edit,
    Person,
    Prompt,
    Ranking,
    Report,
    Skip,
    Undone,
)
from server.services.intervals import Share

# By kind: the campaign, the person, the active time and the signals of its rows.
_TIMED: dict[str, tuple[InstrumentedAttribute[Any], ...]] = {
    "comparison": (
        Comparison.campaign_id, Comparison.person_id, Comparison.milliseconds_to_decide, Comparison.signals,
    ),
    "ranking": (Ranking.campaign_id, Ranking.person_id, Ranking.milliseconds_to_decide, Ranking.signals),
    "demonstration": (
        Demonstration.campaign_id, Demonstration.person_id, Demonstration.milliseconds, Demonstration.signals,
    ),
    "edit": (Edit.campaign_id, Edit.person_id, Edit.milliseconds, Edit.signals),
    "prompt": (Prompt.written_in_id, Prompt.author_id, Prompt.milliseconds, Prompt.signals),
}  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """Answers of one kind in one campaign: how long they took, and what the browser noticed."""

    campaign: str
    kind: str
    answers: int
    median_seconds: float
    everybody_seconds: float
    too_fast: Share
    pasted: Share


@dataclass(frozen=True)
class Choices:
    """Comparisons in one campaign: which side, how often neither, and how far others chose the same."""

    campaign: str
    left: Share  # of the picks
    neither: Share  # ties and "both are bad", of all
    everybody_neither: Share
    agreement: Share  # pairs of this person and another on one turn
    everybody_agreement: Share


@dataclass(frozen=True)
class Tested:
    """The checks of one campaign."""

    campaign: str
    gold: Share
    attention: Share


@dataclass(frozen=True)
class Remarked:
    """How often something was passed by, reported or taken back in one campaign."""

    campaign: str
    skips: int
    reports: int
    undone: int


@dataclass(frozen=True)
class Evidence:
    """All of it."""

    paces: list[Pace]
    choices: list[Choices]
    checks: list[Tested]
    remarks: list[Remarked]


def of(db: Session, person: Person) -> Evidence:
    """What there is about this person's answers."""
    return Evidence(_paces(db, person), _choices(db, person), _checks(db, person), _remarks(db, person))


def _paces(db: Session, person: Person) -> list[Pace]:
    found = []
    for kind, (campaign_id, who, time, signals) in _TIMED.items():
        own = who == person.id
        here = select(campaign_id).where(own)
        pasted = func.coalesce(signals["pasted_chars"].astext.cast(Integer), 0) > 0
        rows = db.execute(
            select(
                Campaign.name,
                func.count().filter(own),
                func.percentile_cont(0.5).within_group(time).filter(own),
                func.percentile_cont(0.5).within_group(time),
                func.count().filter(own, signals.has_key("too_fast")),
                func.count().filter(own, pasted),
            )
            .join(Campaign, Campaign.id == campaign_id)
            .where(campaign_id.in_(here), who.is_not(None), time.is_not(None))  # what was imported has no time
            .group_by(Campaign.id)
        )
        for name, n, median, everybody, fast, pastes in rows:
            found.append(Pace(name, kind, n, median / 1000, everybody / 1000, Share(fast, n), Share(pastes, n)))
    return sorted(found, key=lambda each: (each.campaign, each.kind))


def _choices(db: Session, person: Person) -> list[Choices]:
    own, picked = Comparison.person_id == person.id, Comparison.verdict == "picked"
    here = select(Comparison.campaign_id).where(own)
    counts = (
        select(
            Campaign.id,
            Campaign.name,
            func.count().filter(own, Comparison.scale_position <= Campaign.grades),
            func.count().filter(own, picked),
            func.count().filter(own, ~picked),
            func.count().filter(own),
            func.count().filter(~picked),
            func.count(),
        )
        .join(Campaign, Campaign.id == Comparison.campaign_id)
        .where(Comparison.campaign_id.in_(here), Comparison.person_id.is_not(None))
        .group_by(Campaign.id)
        .order_by(Campaign.name, Campaign.id)
    )
    agreed = _agreements(db, person, here)
    found = []
    for campaign_id, name, left, picks, neither, answers, all_neither, everything in db.execute(counts):
        ours, everybodys = agreed.get(campaign_id, (Share(0, 0), Share(0, 0)))
        shares = (Share(left, picks), Share(neither, answers), Share(all_neither, everything), ours, everybodys)
        found.append(Choices(name, *shares))
    return found


def _agreements(db: Session, person: Person, here: Select[Any]) -> dict[int, tuple[Share, Share]]:
    """By campaign, how often two people on one turn answered the same: pairs with this person, and all pairs."""
    one, other = aliased(Comparison), aliased(Comparison)
    same = and_(one.verdict == other.verdict, one.picked_id.is_not_distinct_from(other.picked_id))
    involved: ColumnElement[bool] = (one.person_id == person.id) | (other.person_id == person.id)
    rows = db.execute(
        select(
            one.campaign_id,
            func.count().filter(involved, same),
            func.count().filter(involved),
            func.count().filter(same),
            func.count(),
        )
        .join(other, (one.turn_id == other.turn_id) & (one.person_id < other.person_id))
        .where(one.campaign_id.in_(here))
        .group_by(one.campaign_id)
    )
    return {campaign_id: (Share(*counts[:2]), Share(*counts[2:])) for campaign_id, *counts in rows}


def _checks(db: Session, person: Person) -> list[Tested]:
    def counted(kind: str) -> list[ColumnElement[int]]:
        of_kind = CheckResult.kind == kind
        return [func.count().filter(of_kind, CheckResult.passed), func.count().filter(of_kind)]

    rows = db.execute(
        select(Campaign.name, *counted("gold"), *counted("attention"))
        .join(Campaign, Campaign.id == CheckResult.campaign_id)
        .where(CheckResult.person_id == person.id)
        .group_by(Campaign.id)
        .order_by(Campaign.name, Campaign.id)
    )
    return [Tested(name, Share(*counts[:2]), Share(*counts[2:])) for name, *counts in rows]


def _remarks(db: Session, person: Person) -> list[Remarked]:
    tables: dict[str, type[Any]] = {"skip": Skip, "report": Report, "undone": Undone}
    every = union_all(
        *(
            select(table.campaign_id.label("of"), literal(kind).label("kind")).where(table.person_id == person.id)
            for kind, table in tables.items()
        )
    ).subquery()
    rows = db.execute(
        select(Campaign.name, *(func.sum(case((every.c.kind == kind, 1), else_=0)) for kind in tables))
        .join(every, every.c.of == Campaign.id)
        .group_by(Campaign.id)
        .order_by(Campaign.name, Campaign.id)
    )
    return [Remarked(name, *counts) for name, *counts in rows]
