"""Reading conversations: a list page by page, and one of them whole, with all that is known of every reply."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, selectinload

from server.errors import NotFound
from server.models import (
    Campaign,
    Candidate,
    Comparison,
    Conversation,
    Demonstration,
    Edit,
    Instructions,
    Job,
    Person,
    Ranking,
    RankingPlace,
    Round,
    Snapshot,
    Turn,
)
from server.models.campaigns import MODES
from server.services.data.selection import SOURCES

ANSWERED: tuple[type[Any], ...] = (Comparison, Ranking, Demonstration)  # of turns, by people or imports
STATUSES = ("open", "finished", "abandoned")
PAGE = 30


@dataclass(frozen=True)
class Filter:
    """Which conversations to list; None lets everything through."""

    campaign_id: int | None = None
    mode: str | None = None
    source: str | None = None
    status: str | None = None
    person_id: int | None = None
    answered: bool = False  # only those with at least one answer


@dataclass(frozen=True)
class Line:
    """One conversation in the list."""

    id: int
    campaign: str
    mode: str
    person: str | None
    source: str
    status: str
    opening: str
    turns: int
    answers: int  # comparisons, rankings and demonstrations
    started_at: datetime


@dataclass(frozen=True)
class ComparisonRecord:
    """A comparison as shown beside its turn."""

    person: str | None
    verdict: str
    picked_id: int | None
    chosen_id: int | None
    strength: int | None
    mirrored: bool
    signals: dict[str, Any]
    seconds: float | None
    justification: str | None
    instructions_version: int | None
    round: int | None
    at: datetime


@dataclass(frozen=True)
class RankingRecord:
    """A ranking as shown beside its turn: the candidates of each place, the best first."""

    person: str
    order: list[list[RankingPlace]]
    seconds: float
    justification: str | None
    signals: dict[str, Any]


@dataclass(frozen=True)
class WritingRecord:
    """What a person wrote at a turn: a reply of their own, or an improvement of the reply `original_id`."""

    person: str
    text: str
    seconds: float
    original_id: int | None
    signals: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """A candidate with the snapshot that wrote it."""

    candidate: Candidate
    snapshot: str | None


@dataclass(frozen=True)
class TurnRecord:
    """A turn with its replies in the order shown and every comparison of it."""

    turn: Turn
    replies: list[Reply]
    comparisons: list[ComparisonRecord]
    rankings: list[RankingRecord]
    writings: list[WritingRecord]


@dataclass(frozen=True)
class ConversationRecord:
    """A whole conversation."""

    conversation: Conversation
    campaign: Campaign
    person: Person | None
    import_file: str | None
    turns: list[TurnRecord]


def list_conversations(db: Session, wanted: Filter, before: int | None = None) -> tuple[list[Line], int | None]:
    """The newest PAGE conversations with an id below `before`, and where the next page begins (None at the end)."""
    opening = (
        select(func.left(Turn.message, 160))
        .where(Turn.conversation_id == Conversation.id)
        .order_by(Turn.position)
        .limit(1)
        .scalar_subquery()
    )
    turns = select(func.count()).where(Turn.conversation_id == Conversation.id).scalar_subquery()
    counts = [
        select(func.count())
        .select_from(table)
        .join(Turn, Turn.id == table.turn_id)
        .where(Turn.conversation_id == Conversation.id)
        .correlate(Conversation)
        .scalar_subquery()
        for table in ANSWERED
    ]
    answers: ColumnElement[int] = functools.reduce(operator.add, counts)
    query = (
        select(
            Conversation.id, Campaign.name, Campaign.mode, Person.name, Conversation.source, Conversation.status,
            func.coalesce(opening, ""), turns, answers, Conversation.started_at,
        )
        .join(Campaign, Campaign.id == Conversation.campaign_id)
        .outerjoin(Person, Person.id == Conversation.person_id)
        .order_by(Conversation.id.desc())
        .limit(PAGE + 1)
    )  # fmt: skip
    query = query.where(Conversation.source != "prepared")  # nobody's yet
    if before is not None:
        query = query.where(Conversation.id < before)
    if wanted.campaign_id is not None:
        query = query.where(Conversation.campaign_id == wanted.campaign_id)
    if wanted.mode in MODES:
        query = query.where(Campaign.mode == wanted.mode)
    if wanted.source in SOURCES:
        query = query.where(Conversation.source == wanted.source)
    if wanted.status in STATUSES:
        query = query.where(Conversation.status == wanted.status)
    if wanted.person_id is not None:
        query = query.where(Conversation.person_id == wanted.person_id)
    if wanted.answered:
        query = query.where(answers > 0)
    lines = [Line(*row) for row in db.execute(query)]
    return lines[:PAGE], (lines[PAGE - 1].id if len(lines) > PAGE else None)


def read_conversation(db: Session, conversation_id: int) -> ConversationRecord:
    """The conversation with every turn, reply and comparison; NotFound when there is none."""
    found = db.scalar(
        select(Conversation)
        .where(Conversation.id == conversation_id)
        .options(selectinload(Conversation.turns).selectinload(Turn.candidates))
    )
    if found is None:
        raise NotFound(f"There is no conversation {conversation_id}.")
    names = _snapshot_names(db, found)
    comparisons = _comparisons(db, conversation_id)
    rankings, writings = _rankings(db, conversation_id), _writings(db, conversation_id)
    turns = [
        TurnRecord(
            turn,
            [Reply(candidate, names.get(candidate.snapshot_id or 0)) for candidate in turn.candidates],
            comparisons.get(turn.id, []),
            rankings.get(turn.id, []),
            writings.get(turn.id, []),
        )
        for turn in found.turns
    ]
    job = db.get(Job, found.import_id) if found.import_id else None
    return ConversationRecord(
        conversation=found,
        campaign=db.get_one(Campaign, found.campaign_id),
        person=db.get(Person, found.person_id) if found.person_id else None,
        import_file=_file_name(job) if job else None,
        turns=turns,
    )


def _file_name(job: Job) -> str:
    return str(job.settings["path"]).rpartition("/")[2]


def _snapshot_names(db: Session, conversation: Conversation) -> dict[int, str]:
    ids = {candidate.snapshot_id for turn in conversation.turns for candidate in turn.candidates}
    rows = db.execute(select(Snapshot.id, Snapshot.name).where(Snapshot.id.in_(ids - {None})))
    return dict(rows.all())


def _comparisons(db: Session, conversation_id: int) -> dict[int, list[ComparisonRecord]]:
    rows: Any = db.execute(
        select(Comparison, Person.name, Instructions.version, Round.number)
        .join(Turn, Turn.id == Comparison.turn_id)
        .outerjoin(Person, Person.id == Comparison.person_id)
        .outerjoin(Instructions, Instructions.id == Comparison.instructions_id)
        .outerjoin(Round, Round.id == Comparison.round_id)
        .where(Turn.conversation_id == conversation_id)
        .order_by(Comparison.id)
    )
    found: dict[int, list[ComparisonRecord]] = {}
    for row, person, version, number in rows:
        seconds = None if row.milliseconds_to_decide is None else row.milliseconds_to_decide / 1000
        found.setdefault(row.turn_id, []).append(
            ComparisonRecord(
                person=person,
                verdict=row.verdict,
                picked_id=row.picked_id,
                chosen_id=row.chosen_id,
                strength=row.strength,
                mirrored=row.mirrored,
                signals=row.signals,
                seconds=seconds,
                justification=row.justification,
                instructions_version=version,
                round=number,
                at=row.created_at,
            )
        )
    return found


def _rankings(db: Session, conversation_id: int) -> dict[int, list[RankingRecord]]:
    rows = db.execute(
        select(Ranking, Person.name)
        .join(Turn, Turn.id == Ranking.turn_id)
        .join(Person, Person.id == Ranking.person_id)
        .where(Turn.conversation_id == conversation_id)
        .options(selectinload(Ranking.places))
        .order_by(Ranking.id)
    )
    found: dict[int, list[RankingRecord]] = {}
    for row, person in rows:
        by_place: dict[int, list[RankingPlace]] = {}
        for each in sorted(row.places, key=lambda each: (each.place, each.candidate_id)):
            by_place.setdefault(each.place, []).append(each)
        seconds = row.milliseconds_to_decide / 1000
        record = RankingRecord(person, list(by_place.values()), seconds, row.justification, row.signals)
        found.setdefault(row.turn_id, []).append(record)
    return found


def _writings(db: Session, conversation_id: int) -> dict[int, list[WritingRecord]]:
    found: dict[int, list[WritingRecord]] = {}
    tables: tuple[type[Any], ...] = (Demonstration, Edit)
    for table in tables:
        rows = db.execute(
            select(table, Person.name)
            .join(Turn, Turn.id == table.turn_id)
            .join(Person, Person.id == table.person_id)
            .where(Turn.conversation_id == conversation_id)
            .order_by(table.id)
        )
        for row, person in rows:
            original = getattr(row, "original_id", None)
            record = WritingRecord(person, row.text, row.milliseconds / 1000, original, row.signals)
            found.setdefault(row.turn_id, []).append(record)
    return found
