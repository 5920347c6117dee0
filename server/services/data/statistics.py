"""What has come in: counts, times and shares of comparisons, each one SQL aggregate over a `Selection`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Date, case, cast, func, select, text
from sqlalchemy.orm import Session, aliased

from server.models import (
    Campaign,
    Candidate,
    Comparison,
    Conversation,
    Demonstration,
    Edit,
    Job,
    Person,
    Ranking,
    Snapshot,
    Turn,
)
from server.services import days
from server.services.data.grades import grade
from server.services.data.selection import Selection
from server.services.intervals import Share

_MEDIAN = func.percentile_cont(0.5).within_group(Comparison.milliseconds_to_decide)


@dataclass(frozen=True)
class Totals:
    """The numbers above all tables."""

    comparisons: int
    conversations: int
    people: int
    today: int
    imported: int
    median_seconds: float | None


@dataclass(frozen=True)
class Group:
    """Comparisons that share a value: a day, a campaign, a mode, a strength, a person."""

    label: str
    count: int
    median_seconds: float | None
    id: int | None = None


@dataclass(frozen=True)
class SnapshotRecord:
    """How a policy snapshot fared: replies compared, its share of wins against others, and how often none was picked there.

    `wins` are of the picks alone; `ties` and `both_bad` are comparisons against other snapshots that pick neither.
    """

    id: int
    name: str
    replies: int
    wins: Share
    ties: int
    both_bad: int


def totals(db: Session, selection: Selection) -> Totals:
    """Counts over the whole selection; today is the UTC day."""
    midnight = days.midnight()
    row = db.execute(
        select(
            func.count(),
            func.count(func.distinct(Comparison.person_id)),
            func.count().filter(Comparison.created_at >= midnight),
            func.count().filter(Comparison.import_id.is_not(None)),
            _MEDIAN,
        ).where(*selection.conditions())
    ).one()
    conversations = db.scalar(
        select(func.count(func.distinct(Conversation.id)))
        .select_from(Comparison)
        .join(Turn, Turn.id == Comparison.turn_id)  # by the turn: a tie chooses no reply
        .join(Conversation)
        .where(*selection.conditions())
    )
    return Totals(row[0], conversations or 0, row[1], row[2], row[3], _seconds(row[4]))


def others(db: Session, selection: Selection) -> dict[str, int]:
    """What people gave in the selection that is no comparison, by its name; nothing that is not there."""
    tables: dict[str, type[Ranking | Demonstration | Edit]] = {
        "rankings": Ranking, "demonstrations": Demonstration, "edits": Edit,
    }  # fmt: skip
    counts = {
        name: db.scalar(select(func.count()).select_from(table).where(*selection.conditions(table))) or 0
        for name, table in tables.items()
    }
    return {name: count for name, count in counts.items() if count}


def by_day(db: Session, selection: Selection, days: int = 30) -> list[tuple[date, int]]:
    """Comparisons on each of the last `days` UTC days of the selection, days without any included."""
    last = selection.until or datetime.now(UTC).date()
    first = max(selection.since or date.min, last - timedelta(days=days - 1))
    day = cast(func.timezone("UTC", Comparison.created_at), Date)
    window = Selection(**{**selection.__dict__, "since": first, "until": last})
    rows = db.execute(select(day, func.count()).where(*window.conditions()).group_by(day))
    found: dict[date, int] = dict(rows.all())
    return [(at, found.get(at, 0)) for at in (first + timedelta(days=n) for n in range((last - first).days + 1))]


def by_campaign(db: Session, selection: Selection) -> list[Group]:
    """Each campaign's comparisons, most first."""
    rows = db.execute(
        select(Campaign.id, Campaign.name, func.count().label("n"), _MEDIAN)
        .join(Comparison, Comparison.campaign_id == Campaign.id)
        .where(*selection.conditions())
        .group_by(Campaign.id)
        .order_by(text("n DESC"), Campaign.id)
    )
    return [Group(name, count, _seconds(median), id_) for id_, name, count, median in rows]


def by_mode(db: Session, selection: Selection) -> list[Group]:
    """Helpful and red-team comparisons."""
    rows = db.execute(
        select(Comparison.mode, func.count(), _MEDIAN)
        .where(*selection.conditions())
        .group_by(Comparison.mode)
        .order_by(Comparison.mode)
    )
    return [Group(mode, count, _seconds(median)) for mode, count, median in rows]


def by_source(db: Session, selection: Selection) -> list[Group]:
    """Comparisons compared here, and each import's."""
    rows = db.execute(
        select(Comparison.import_id, Job.settings["path"].astext, func.count(), _MEDIAN)
        .outerjoin(Job, Job.id == Comparison.import_id)
        .where(*selection.conditions())
        .group_by(Comparison.import_id, Job.id)
        .order_by(Comparison.import_id.nulls_first())
    )
    return [
        Group(
            f"import {id_}: {(path or '').rpartition('/')[2]}" if id_ else "compared here", count, _seconds(median), id_
        )
        for id_, path, count, median in rows
    ]


def by_strength(db: Session, selection: Selection) -> list[Group]:
    """Comparisons by strength, 1 weakest; then picks without one (a scale of one strength, some imports), and those that pick nothing."""
    strength = grade().label("graded")
    rows = db.execute(
        select(strength, Comparison.verdict, func.count(), _MEDIAN)
        .where(*selection.conditions())
        .group_by(strength, Comparison.verdict)
        .order_by(strength.nulls_last(), Comparison.verdict.desc())
    )
    words = {"picked": "none asked or given", "tie": "tie", "both_bad": "both are bad"}
    return [
        Group(words[verdict] if graded is None else str(graded), count, _seconds(median))
        for graded, verdict, count, median in rows
    ]


def by_person(db: Session, selection: Selection, limit: int = 50) -> list[Group]:
    """The `limit` people with most comparisons."""
    rows = db.execute(
        select(Person.id, Person.name, func.count().label("n"), _MEDIAN)
        .join(Comparison, Comparison.person_id == Person.id)
        .where(*selection.conditions())
        .group_by(Person.id)
        .order_by(text("n DESC"), Person.id)
        .limit(limit)
    )
    return [Group(name, count, _seconds(median), id_) for id_, name, count, median in rows]


def by_snapshot(db: Session, selection: Selection) -> list[SnapshotRecord]:
    """Each snapshot's compared replies and its wins over others; a comparison within one snapshot is no contest.

    A win is being `chosen`: in red-team campaigns that is the less harmful reply.
    """
    chosen, left, right = aliased(Candidate), aliased(Candidate), aliased(Candidate)
    # By the turn: a tie chooses no reply. A comparison is of the two replies of its turn.
    sides = (
        select(
            left.snapshot_id.label("one"),
            right.snapshot_id.label("other"),
            chosen.snapshot_id.label("won"),
            Comparison.verdict.label("verdict"),
        )
        .select_from(Comparison)
        .join(left, (left.turn_id == Comparison.turn_id) & (left.position == 0))
        .join(right, (right.turn_id == Comparison.turn_id) & (right.position == 1))
        .outerjoin(chosen, chosen.id == Comparison.chosen_id)
        .where(*selection.conditions(), left.snapshot_id.is_not(None), right.snapshot_id.is_not(None))
        .subquery()
    )
    contest = sides.c.one != sides.c.other
    picked = contest & (sides.c.verdict == "picked")
    rows = db.execute(
        select(
            Snapshot.id,
            Snapshot.name,
            func.sum(case((contest, 1), else_=2)),
            func.count().filter(picked, sides.c.won == Snapshot.id),
            func.count().filter(picked),
            func.count().filter(contest, sides.c.verdict == "tie"),
            func.count().filter(contest, sides.c.verdict == "both_bad"),
        )
        .join(sides, (sides.c.one == Snapshot.id) | (sides.c.other == Snapshot.id))
        .group_by(Snapshot.id)
        .order_by(Snapshot.id)
    )
    return [
        SnapshotRecord(id_, name, int(n), Share(won, met), ties, both_bad)
        for id_, name, n, won, met, ties, both_bad in rows
    ]


def picked_left(db: Session, selection: Selection) -> Share:
    """How often the reply shown left was picked; far from a half means that place decides, not content."""
    row = db.execute(
        select(func.count().filter((Candidate.position == 0) != Comparison.mirrored), func.count())
        .select_from(Comparison)
        .join(Candidate, Candidate.id == Comparison.picked_id)
        .where(*selection.conditions(), Comparison.import_id.is_(None))
    ).one()
    return Share(row[0], row[1])


def chosen_longer(db: Session, selection: Selection) -> Share:
    """How often the longer reply (in characters) was the chosen one, equal lengths left out."""
    chosen, rejected = aliased(Candidate), aliased(Candidate)
    longer, shorter = func.length(chosen.text), func.length(rejected.text)
    row = db.execute(
        select(func.count().filter(longer > shorter), func.count().filter(longer != shorter))
        .select_from(Comparison)
        .join(chosen, chosen.id == Comparison.chosen_id)
        .join(rejected, rejected.id == Comparison.rejected_id)
        .where(*selection.conditions())
    ).one()
    return Share(row[0], row[1])


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000
