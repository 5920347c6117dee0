"""Stored comparisons as `training.lines.records.Comparison`, in the order of their ids, with identities replaced."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session, aliased

from server.models import Campaign, Candidate, Comparison, Conversation, Instructions, Round, Snapshot, Turn
from server.services.data.distributions import distribution
from server.services.data.grades import grade
from server.services.data.selection import Selection
from server.services.data.transcripts import with_turns
from training.lines import records

BATCH = 1000


def stored_records(db: Session, selection: Selection, secret: str) -> Iterator[tuple[records.Comparison, str, str]]:
    """Yield (record, campaign slug, source) for every comparison of the selection.

    People and conversations get pseudonyms: the same in every export of this installation, and of no use without its
    secret. What an import said itself (its own pseudonyms included) is given back as it came.
    """
    for rows, earlier in with_turns(db, lambda after: _select(selection, after), "id"):
        for row in rows:
            prompt: list[records.Message] = []
            for turn in earlier[row.conversation_id]:
                if turn.position > row.position:
                    break
                prompt.append({"role": "user", "content": turn.message})
                if turn.position < row.position and turn.reply is not None:
                    prompt.append({"role": "assistant", "content": turn.reply})
            yield _record(row, prompt, secret), row.slug, "import" if row.import_id else "chat"


def _select(selection: Selection, after: int) -> Any:
    chosen, rejected = aliased(Candidate, name="chosen"), aliased(Candidate, name="rejected")
    chosen_by, rejected_by = aliased(Snapshot, name="chosen_by"), aliased(Snapshot, name="rejected_by")
    sides = [
        getattr(side, column).label(f"{name}_{column}")
        for name, side in (("chosen", chosen), ("rejected", rejected))
        for column in ("text", "position", "seed", "sampling", "log_probability", "token_count", "finish_reason")
    ]
    return (
        select(
            Comparison.id, Comparison.person_id, Comparison.mode, grade().label("strength"), Comparison.scale_position,
            Comparison.milliseconds_to_decide, Comparison.justification, Comparison.import_id, Comparison.source_line,
            Comparison.details, Comparison.created_at, Comparison.turn_id, Turn.conversation_id, Turn.position, Conversation.success,
            Campaign.slug, Round.number.label("round"), Instructions.version.label("instructions_version"),
            chosen_by.name.label("chosen_snapshot"), rejected_by.name.label("rejected_snapshot"),
            chosen_by.origin.label("chosen_origin"), rejected_by.origin.label("rejected_origin"), *sides,
        )
        .join(Turn, Turn.id == Comparison.turn_id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .join(Campaign, Campaign.id == Comparison.campaign_id)
        .join(chosen, chosen.id == Comparison.chosen_id)
        .join(rejected, rejected.id == Comparison.rejected_id)
        .outerjoin(chosen_by, chosen_by.id == chosen.snapshot_id)
        .outerjoin(rejected_by, rejected_by.id == rejected.snapshot_id)
        .outerjoin(Round, Round.id == Comparison.round_id)
        .outerjoin(Instructions, Instructions.id == Comparison.instructions_id)
        .where(*selection.conditions(), Comparison.id > after)
        .order_by(Comparison.id)
        .limit(BATCH)
    )  # fmt: skip


def _record(row: Row[Any], prompt: list[records.Message], secret: str) -> records.Comparison:
    said = dict(row.details)
    imported = row.import_id is not None
    known = {
        "conversation": said.pop("conversation", None)
        if imported
        else pseudonym(secret, "conversation", row.conversation_id),
        "person": said.pop("person", None) if imported else pseudonym(secret, "person", row.person_id),
        "round": said.pop("round", None) if imported else row.round,
    }
    provenance = {"campaign": row.slug} if imported else _provenance(row, secret)
    return records.Comparison(
        prompt=tuple(prompt),
        chosen=row.chosen_text,
        rejected=row.rejected_text,
        strength=row.strength,
        mode=row.mode,
        extra=_sorted(provenance | said),
        source_line=row.source_line,
        **known,
    )


def _provenance(row: Row[Any], secret: str) -> dict[str, Any]:
    """Where each side came from and how the choice was made."""
    sides = {
        f"{name}_reply": {
            "snapshot": getattr(row, f"{name}_snapshot"),
            **{
                column: getattr(row, f"{name}_{column}")
                for column in ("position", "seed", "sampling", "log_probability", "token_count", "finish_reason")
            },
        }
        for name in ("chosen", "rejected")
    }
    more = {"justification": row.justification} if row.justification else {}
    if row.success is not None:
        more["success_by_person"] = row.success
    return {
        "campaign": row.slug,
        "distribution": distribution(row.chosen_origin, row.rejected_origin),
        "turn": pseudonym(secret, "turn", row.turn_id),
        "scale_position": row.scale_position,
        "milliseconds_to_decide": row.milliseconds_to_decide,
        "instructions_version": row.instructions_version,
        "created_at": row.created_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        **sides,
        **more,
    }


def pseudonym(secret: str, kind: str, id_: int) -> str:
    """A name that is stable within this installation and cannot be turned back without its secret."""
    return hmac.new(secret.encode(), f"export:{kind}:{id_}".encode(), hashlib.sha256).hexdigest()[:16]


def _sorted(value: Any) -> Any:
    """Keys in order at every depth: JSONB does not keep the order in which they came."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
