"""The rows behind the replies: a candidate is claimed, kept alive, and settled by the same claim or not at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from server.models import Candidate, Snapshot, Turn
from server.services import lost
from server.services.chat import dialogue
from server.services.snapshots import deployments
from server.transaction import ask_for
from training.lines.records import Message
from workers.context import is_dead
from workers.reply.asks import Ask, BestOf, Failed, Outcome, Source, Written


def source_of(snapshot: Snapshot) -> Source:
    """The content of the row, and of those it is the best of, to be used without their session."""
    best_of = None
    if snapshot.draws_from and snapshot.scored_by and snapshot.k:
        best_of = BestOf(source_of(snapshot.draws_from), source_of(snapshot.scored_by), snapshot.k)
    return Source(
        snapshot.id, snapshot.name, snapshot.backend, snapshot.path, snapshot.endpoint, snapshot.manifest,
        kind=snapshot.kind, best_of=best_of,
    )  # fmt: skip


def claim(db: Session, turn_id: int, name: str) -> tuple[list[Ask], bool]:
    """Take what waits of a turn, or what a dead worker left: (what is to be written, whether its text must be withheld).

    Nothing when another worker has it, or when the turn is no longer sampling: a message may come twice or late.
    """
    stale = Candidate.heartbeat_at < func.now() - lost.REPLY_STALE
    taken = set(
        db.scalars(
            update(Candidate)
            .where(
                Candidate.turn_id == turn_id,
                or_(Candidate.status == "queued", (Candidate.status == "sampling") & stale),
                select(Turn.id).where(Turn.id == turn_id, Turn.status == "sampling").exists(),
            )
            .values(status="sampling", claimed_by=name, attempts=Candidate.attempts + 1, heartbeat_at=func.now())
            .returning(Candidate.id)
        )
    )
    if not taken:
        return [], False
    turn = db.get_one(Turn, turn_id)
    messages = cast("tuple[Message, ...]", tuple(dialogue.transcript(db, turn)))
    asks, withheld = [], False
    for candidate, snapshot in db.execute(
        select(Candidate, Snapshot)
        .join(Snapshot, Snapshot.id == Candidate.snapshot_id)
        .where(Candidate.turn_id == turn_id)
        .order_by(Candidate.position)
        .execution_options(populate_existing=True)
    ):
        source = source_of(snapshot)
        withheld |= not source.streams
        if candidate.id in taken:
            asks.append(_ask(candidate, source, name, messages))
    return asks, withheld


def _ask(candidate: Candidate, source: Source, claim: str, messages: tuple[Message, ...]) -> Ask:
    sampling: Mapping[str, Any] = candidate.sampling
    return Ask(
        candidate_id=candidate.id,
        turn_id=candidate.turn_id,
        position=candidate.position,
        attempt=candidate.attempts,
        claim=claim,
        source=source,
        seed=candidate.seed or 0,
        temperature=float(sampling.get("temperature", 1.0)),
        top_p=float(sampling.get("top_p", 1.0)),
        max_new_tokens=int(sampling.get("max_new_tokens", 128)),
        messages=messages,
    )


class Settled(NamedTuple):
    """Which candidates were stored, the turn's status now, and what its person is told when it failed."""

    stored: list[Ask]
    status: str
    told: str


def settle(db: Session, turn_id: int, outcomes: Sequence[tuple[Ask, Outcome]]) -> Settled:
    """Store what came of candidates of one turn.

    A candidate that was claimed by someone else meanwhile is left alone. Whoever settles a turn's last candidate makes the
    turn ready, or failed when one of them failed.
    """
    turn = db.scalars(
        select(Turn).where(Turn.id == turn_id).with_for_update().execution_options(populate_existing=True)
    ).one()
    stored = [ask for ask, outcome in outcomes if _store(db, turn, ask, outcome)]
    statuses = set(db.scalars(select(Candidate.status).where(Candidate.turn_id == turn_id)))
    if turn.status == "sampling" and stored and statuses <= {"done", "failed"}:
        turn.status = "failed" if "failed" in statuses else "ready"
        if turn.status == "ready":
            turn.failure, turn.ready_at = None, func.now()
    return Settled(stored, turn.status, turn.failure or "")


def _store(db: Session, turn: Turn, ask: Ask, outcome: Outcome) -> bool:
    match outcome:
        case Written():
            values: dict[str, Any] = {
                "status": "done",
                "text": outcome.text,
                "log_probability": outcome.log_probability,
                "token_count": outcome.token_count,
                "finish_reason": outcome.finish_reason,
                "failure": None,
            }
            if outcome.notes:
                values["sampling"] = Candidate.sampling.op("||")(literal(outcome.notes, JSONB))
        case Failed():
            values = {"status": "failed", "failure": outcome.reason}
    changed = db.scalar(
        update(Candidate)
        .where(Candidate.id == ask.candidate_id, Candidate.claimed_by == ask.claim, Candidate.status == "sampling")
        .values(finished_at=func.now(), **values)
        .returning(Candidate.id)
        .execution_options(synchronize_session=False)
    )
    if changed is not None and isinstance(outcome, Failed):
        turn.failure = outcome.told
    return changed is not None


def renew(db: Session, claims: Mapping[int, str]) -> set[int]:
    """Say that the worker lives, for all its candidates at once; those that are no longer its own."""
    if not claims:
        return set()
    kept = db.scalars(
        update(Candidate)
        .where(tuple_(Candidate.id, Candidate.claimed_by).in_(list(claims.items())), Candidate.status == "sampling")
        .values(heartbeat_at=func.now())
        .returning(Candidate.id)
        .execution_options(synchronize_session=False)
    )
    return set(claims) - set(kept)


def ask_again_for_the_dead(db: Session) -> Collection[int]:
    """Queue again what dead processes of this host had claimed, without waiting until they are stale; the turns."""
    claimed = select(Candidate.claimed_by).where(Candidate.status == "sampling").distinct()
    dead = [name for name in db.scalars(claimed) if name and is_dead(name)]
    if not dead:
        return []
    turns = set(
        db.scalars(
            update(Candidate)
            .where(Candidate.status == "sampling", Candidate.claimed_by.in_(dead))
            .values(status="queued", heartbeat_at=None)
            .returning(Candidate.turn_id)
        )
    )
    for turn_id in sorted(turns):
        ask_for(db, "reply", turn_id=turn_id)
    return turns


def serving(db: Session) -> list[Source]:
    """The policies that answer somewhere now."""
    return [source_of(snapshot) for snapshot in deployments.serving(db)]
