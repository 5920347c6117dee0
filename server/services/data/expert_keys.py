"""What experts hold right about gold items, as pairs: a preference model is held against them as people are.

Nothing of it is ever trained on; it says how far a preference model agrees with those who wrote the instructions (Bai et al. 2022,
section 3.4.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.models import Campaign, Candidate, Conversation, Turn
from server.services.data.dataset_member import Member
from server.services.data.dataset_selection import DatasetSelection
from server.services.data.transcripts import prompt_before, with_turns

BATCH = 500


def keyed_pairs(db: Session, selection: DatasetSelection) -> Iterator[Member]:
    """The pairs that the keys of gold items order, in the campaigns and modes of `selection`.

    A key that says "tie" or "both are bad" orders nothing. In red-team campaigns a key names the more harmful reply, as people do.
    """
    for rows, turns in with_turns(db, lambda after: _gold(selection, after), "id"):
        texts: dict[int, list[str]] = {row.id: [] for row in rows}
        written = select(Candidate.turn_id, Candidate.text).where(
            Candidate.turn_id.in_(texts), Candidate.text.is_not(None)
        )
        for turn_id, text in db.execute(written.order_by(Candidate.turn_id, Candidate.position)):
            texts[turn_id].append(text or "")
        for row in rows:
            for above, below in _ordered(row.expected):
                better, worse = (below, above) if row.mode == "red_team" else (above, below)
                replies = texts[row.id]
                if replies[better] != replies[worse]:
                    yield _member(row, turns[row.conversation_id], replies[better], replies[worse])


def _ordered(key: dict[str, Any]) -> list[tuple[int, int]]:
    """(above, below) by the places of the replies, of either shape of key."""
    if "picked" in key:
        return [(key["picked"], 1 - key["picked"])]
    return [(above, below) for above, below in key.get("above", [])]


def _gold(selection: DatasetSelection, after: int) -> Any:
    query = (
        select(
            Turn.id, Turn.conversation_id, Turn.position, Turn.message, Turn.expected, Campaign.slug, Campaign.mode
        )
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .join(Campaign, Campaign.id == Conversation.campaign_id)
        .where(Turn.check_kind == "gold", Turn.id > after)
        .order_by(Turn.id)
        .limit(BATCH)
    )  # fmt: skip
    if selection.campaigns:
        query = query.where(Campaign.slug.in_(selection.campaigns))
    return query.where(Campaign.mode.in_(selection.modes)) if selection.modes else query


def _member(row: Any, turns: list[Any], better: str, worse: str) -> Member:
    return Member(
        comparison_id=None,
        split="test",
        prompt=prompt_before(row, turns),
        chosen=better,
        rejected=worse,
        strength=None,
        mode=row.mode,
        conversation=str(row.conversation_id),
        person=None,
        round=None,
        provenance={"item": row.id, "campaign": row.slug},
    )
