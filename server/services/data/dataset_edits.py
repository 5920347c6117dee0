"""The edits of a dataset version: what a person made of a reply, over that reply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import BigInteger, insert, literal, select
from sqlalchemy.orm import Session

from server.models import Campaign, Candidate, Conversation, DatasetEdit, DatasetVersion, Edit, Round, Snapshot, Turn
from server.services.data.dataset_member import Member
from server.services.data.dataset_selection import DatasetSelection
from server.services.data.dataset_split import split_of
from server.services.data.distributions import distribution
from server.services.data.transcripts import prompt_before, with_turns

BATCH = 2_000


def freeze(db: Session, version: DatasetVersion, selection: DatasetSelection) -> None:
    """Put the edits of `selection` so far into `version`; one that changed nothing is never among them."""
    rows = (
        select(literal(version.id, BigInteger), Edit.id, split_of(selection.held_out))
        .select_from(Edit)
        .join(Turn, Turn.id == Edit.turn_id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .join(Candidate, Candidate.id == Edit.original_id)
        .where(*selection.conditions(Edit), Candidate.text != Edit.text)
    )
    db.execute(insert(DatasetEdit).from_select(["dataset_version_id", "edit_id", "split"], rows))


def members(db: Session, version_id: int, split: str | None = None) -> Iterator[Member]:
    """Every edit in order as a pair: the edited text is the chosen one."""
    for rows, turns in with_turns(db, lambda after: _rows(version_id, split, after), "edit_id"):
        for row in rows:
            yield _member(row, turns[row.conversation_id])


def _rows(version_id: int, split: str | None, after: int) -> Any:
    query = (
        select(
            DatasetEdit.edit_id, DatasetEdit.split, Edit.mode, Edit.person_id, Edit.text, Edit.milliseconds,
            Candidate.text.label("original"), Snapshot.name.label("snapshot"), Snapshot.origin, Turn.conversation_id, Turn.position,
            Turn.message, Campaign.slug, Round.number,
        )
        .join(Edit, Edit.id == DatasetEdit.edit_id)
        .join(Turn, Turn.id == Edit.turn_id)
        .join(Candidate, Candidate.id == Edit.original_id)
        .join(Campaign, Campaign.id == Edit.campaign_id)
        .outerjoin(Snapshot, Snapshot.id == Candidate.snapshot_id)
        .outerjoin(Round, Round.id == Edit.round_id)
        .where(DatasetEdit.dataset_version_id == version_id, DatasetEdit.edit_id > after)
        .order_by(DatasetEdit.edit_id)
        .limit(BATCH)
    )  # fmt: skip
    return query if split is None else query.where(DatasetEdit.split == split)


def _member(row: Any, turns: list[Any]) -> Member:
    return Member(
        comparison_id=None,
        split=row.split,
        prompt=prompt_before(row, turns),
        chosen=row.text,
        rejected=row.original,
        strength=None,
        mode=row.mode,
        conversation=str(row.conversation_id),
        person=f"person-{row.person_id}",
        round=row.number,
        provenance={
            "edit": row.edit_id,
            "campaign": row.slug,
            "chosen_snapshot": None,
            "rejected_snapshot": row.snapshot,
            "distribution": distribution(row.origin),
            "milliseconds": row.milliseconds,
        },
    )
