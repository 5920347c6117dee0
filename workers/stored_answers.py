"""Stored rankings, edits and demonstrations as `training` reads them, in the order of their ids, with identities replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from server.models import (
    Campaign,
    Candidate,
    Demonstration,
    Edit,
    Instructions,
    Ranking,
    RankingPlace,
    Round,
    Snapshot,
    Turn,
)
from server.services.data.dataset_rankings import ranks_of
from server.services.data.distributions import distribution
from server.services.data.selection import Selection
from server.services.data.transcripts import prompt_before, with_turns
from training.lines import rankings, records
from workers.stored import pseudonym

BATCH = 500


@dataclass(frozen=True)
class Shown:
    """A demonstration: messages that end with the person's reply."""

    prompt: tuple[records.Message, ...]
    reply: str
    mode: str
    conversation: str
    person: str
    extra: dict[str, Any] = field(default_factory=dict)


def stored_rankings(db: Session, selection: Selection, secret: str) -> Iterator[tuple[rankings.Ranking, str, str]]:
    """Yield (record, campaign slug, source) for every ranking of the selection."""
    more = (Ranking.mode, Ranking.justification, Ranking.milliseconds_to_decide.label("milliseconds"), Round.number)
    for row, prompt in _rows(db, selection, Ranking, *more):
        placed = db.execute(
            select(
                RankingPlace.place, RankingPlace.rating, RankingPlace.flags, Candidate.text, Candidate.position,
                Candidate.seed, Snapshot.name, Snapshot.origin,
            )
            .join(Candidate, Candidate.id == RankingPlace.candidate_id)
            .outerjoin(Snapshot, Snapshot.id == Candidate.snapshot_id)
            .where(RankingPlace.ranking_id == row.id)
            .order_by(Candidate.position)
        ).all()  # fmt: skip
        sides = [
            {"snapshot": each.name, "seed": each.seed, "position": each.position, "rating": each.rating,
             "flags": list(each.flags)}
            for each in placed
        ]  # fmt: skip
        record = rankings.Ranking(
            prompt=prompt,
            replies=tuple(each.text or "" for each in placed),
            ranks=tuple(ranks_of([each.place for each in placed], row.mode)),
            round=row.number,
            extra=_beside(
                row, secret, distribution=distribution(*(each.origin for each in placed)), replies_from=sides
            ),
            **_known(row, secret),
        )
        yield record, row.slug, "item"


def stored_edits(db: Session, selection: Selection, secret: str) -> Iterator[tuple[records.Comparison, str, str]]:
    """Yield (record, campaign slug, source) for every edit of the selection: the edited text is the chosen one."""
    more = (
        Edit.mode,
        Edit.text,
        Edit.milliseconds,
        Candidate.text.label("original"),
        Snapshot.name,
        Snapshot.origin,
        Round.number,
    )
    for row, prompt in _rows(db, selection, Edit, *more):
        record = records.Comparison(
            prompt=prompt,
            chosen=row.text,
            rejected=row.original or "",
            round=row.number,
            extra=_beside(
                row, secret, distribution=distribution(row.origin), edited=True, rejected_reply={"snapshot": row.name}
            ),
            **_known(row, secret),
        )
        yield record, row.slug, "chat"


def stored_demonstrations(db: Session, selection: Selection, secret: str) -> Iterator[tuple[Shown, str, str]]:
    """Yield (record, campaign slug, source) for every demonstration of the selection."""
    more = (Campaign.mode, Demonstration.text, Demonstration.milliseconds)
    for row, prompt in _rows(db, selection, Demonstration, *more):
        yield Shown(prompt, row.text, extra=_beside(row, secret), **_known(row, secret)), row.slug, "item"


def _rows(db: Session, selection: Selection, answers: Any, *columns: Any) -> Iterator[tuple[Row[Any], Any]]:
    query = (
        select(
            answers.id, answers.person_id, answers.created_at, answers.turn_id, answers.purpose, Campaign.slug,
            Turn.conversation_id, Turn.position, Turn.message, Instructions.version.label("instructions"), *columns,
        )
        .join(Turn, Turn.id == answers.turn_id)
        .join(Campaign, Campaign.id == answers.campaign_id)
        .join(Instructions, Instructions.id == answers.instructions_id)
        .where(*selection.conditions(answers))
        .order_by(answers.id)
        .limit(BATCH)
    )  # fmt: skip
    if answers is not Demonstration:
        query = query.outerjoin(Round, Round.id == answers.round_id)
    if answers is Edit:
        query = query.join(Candidate, Candidate.id == Edit.original_id)
        query = query.outerjoin(Snapshot, Snapshot.id == Candidate.snapshot_id)
    for rows, turns in with_turns(db, lambda after: query.where(answers.id > after), "id"):
        for row in rows:
            yield row, tuple(prompt_before(row, turns[row.conversation_id]))


def _known(row: Row[Any], secret: str) -> dict[str, Any]:
    return {
        "mode": row.mode,
        "conversation": pseudonym(secret, "conversation", row.conversation_id),
        "person": pseudonym(secret, "person", row.person_id),
    }


def _beside(row: Row[Any], secret: str, **more: Any) -> dict[str, Any]:
    return {
        "campaign": row.slug,
        "turn": pseudonym(secret, "turn", row.turn_id),
        "purpose": row.purpose,
        "milliseconds": row.milliseconds,
        "instructions_version": row.instructions,
        "created_at": row.created_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        **more,
    }
