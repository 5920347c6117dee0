"""Frozen dataset versions: which feedback a round learns from, and on which side of the split each piece falls.

A version is made by one transaction over one consistent view of the tables and never changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import BigInteger, func, insert, literal, or_, select
from sqlalchemy.orm import Session, aliased

from server.errors import BadInput
from server.models import (
    Campaign,
    Candidate,
    Comparison,
    Conversation,
    DatasetMember,
    DatasetVersion,
    Person,
    Prompt,
    Round,
    Snapshot,
    Turn,
)
from server.services.data import dataset_edits, dataset_rankings
from server.services.data.dataset_member import Member
from server.services.data.dataset_selection import DatasetSelection
from server.services.data.dataset_split import split_of
from server.services.data.distributions import distribution
from server.services.data.grades import grade
from server.services.data.transcripts import prompt_before, with_turns

BATCH = 2_000  # members read at once: a few megabytes of text


def _chosen_comparisons(selection: DatasetSelection, columns: list[Any]) -> Any:
    """The comparisons of a selection; two equal replies say nothing and are never among them."""
    chosen, rejected = aliased(Candidate), aliased(Candidate)
    query = (
        select(*columns)
        .select_from(Comparison)
        .join(Turn, Turn.id == Comparison.turn_id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .join(chosen, chosen.id == Comparison.chosen_id)
        .join(rejected, rejected.id == Comparison.rejected_id)
        .where(
            *selection.conditions(Comparison),
            chosen.text.is_not(None),
            rejected.text.is_not(None),
            chosen.text != rejected.text,
        )
    )
    return query if selection.imports else query.where(Comparison.import_id.is_(None))


def count_usable(db: Session, selection: DatasetSelection, *, after: int = 0) -> int:
    """How many comparisons a preference model could learn from now, of those with an id above `after`."""
    query = _chosen_comparisons(selection, [func.count()]).where(
        Comparison.id > after,
        or_(grade().is_(None), grade() > selection.weakest_strength),
    )
    return db.scalar(query) or 0


def last_used(db: Session) -> int:
    """The highest comparison id that a finished round has learnt from; 0 before the first."""
    newest = db.scalar(
        select(DatasetVersion)
        .join(Round, Round.dataset_version_id == DatasetVersion.id)
        .where(Round.status == "done")
        .order_by(Round.number.desc())
        .limit(1)
    )
    return int(newest.selection.get("up_to", 0)) if newest else 0


def freeze(db: Session, selection: DatasetSelection, *, person: Person | None = None) -> DatasetVersion:
    """Make a version of all feedback of `selection` so far: comparisons, edits, rankings. BadInput when there is none."""
    version = DatasetVersion(
        sha256="", selection=selection.as_json(), counts={}, created_by_id=person.id if person else None
    )
    db.add(version)
    db.flush()
    columns = [literal(version.id, BigInteger), Comparison.id, split_of(selection.held_out)]
    rows = _chosen_comparisons(selection, columns)
    db.execute(insert(DatasetMember).from_select(["dataset_version_id", "comparison_id", "split"], rows))
    if selection.rankings:
        dataset_rankings.freeze(db, version, selection)
    if selection.edits:
        dataset_edits.freeze(db, version, selection)
    digest = hashlib.sha256()
    counts: dict[str, dict[str, int]] = {"split": {}, "mode": {}, "campaign": {}}
    pairs = last = 0
    for member in members(db, version.id):
        digest.update(member.line())
        pairs, last = pairs + 1, max(last, member.comparison_id or 0)
        for name, value in (
            ("split", member.split),
            ("mode", member.mode),
            ("campaign", member.provenance["campaign"]),
        ):
            counts[name][value] = counts[name].get(value, 0) + 1
    rankings = 0
    for ranked in dataset_rankings.members(db, version.id):
        digest.update(ranked.line())
        rankings += ranked.teaches
    if not pairs and not rankings:
        raise BadInput("There is no comparison to learn from yet; collect or import some first.")
    version.sha256 = digest.hexdigest()
    version.counts = {"pairs": pairs, "rankings": rankings, **counts}
    version.selection = selection.as_json() | {"up_to": last}
    db.flush()
    return version


def members(db: Session, version_id: int, split: str | None = None) -> Iterator[Member]:
    """Every pair: comparisons in their order, then edits in theirs; a batch of rows in memory at a time."""
    yield from _compared(db, version_id, split)
    yield from dataset_edits.members(db, version_id, split)


def _compared(db: Session, version_id: int, split: str | None) -> Iterator[Member]:
    batches = with_turns(db, lambda after: _member_rows(version_id, split, after), "comparison_id")
    for rows, turns in batches:
        for row in rows:
            yield _member(row, turns[row.conversation_id])


def _member_rows(version_id: int, split: str | None, after: int) -> Any:
    chosen, rejected = aliased(Candidate), aliased(Candidate)
    chosen_by, rejected_by = aliased(Snapshot), aliased(Snapshot)
    query = (
        select(
            DatasetMember.comparison_id, DatasetMember.split, grade().label("strength"), Comparison.mode, Comparison.person_id,
            Comparison.import_id, Comparison.milliseconds_to_decide, Turn.conversation_id, Turn.position, Turn.message,
            Campaign.slug, Round.number, chosen.text.label("chosen"), rejected.text.label("rejected"),
            chosen_by.name.label("chosen_snapshot"), rejected_by.name.label("rejected_snapshot"),
            chosen.position.label("chosen_position"), chosen_by.origin.label("chosen_origin"),
            rejected_by.origin.label("rejected_origin"), Comparison.details["distribution"].astext.label("imported_distribution"),
        )
        .join(Comparison, Comparison.id == DatasetMember.comparison_id)
        .join(Turn, Turn.id == Comparison.turn_id)
        .join(Campaign, Campaign.id == Comparison.campaign_id)
        .join(chosen, chosen.id == Comparison.chosen_id)
        .join(rejected, rejected.id == Comparison.rejected_id)
        .outerjoin(Round, Round.id == Comparison.round_id)
        .outerjoin(chosen_by, chosen_by.id == chosen.snapshot_id)
        .outerjoin(rejected_by, rejected_by.id == rejected.snapshot_id)
        .where(DatasetMember.dataset_version_id == version_id, DatasetMember.comparison_id > after)
        .order_by(DatasetMember.comparison_id)
        .limit(BATCH)
    )  # fmt: skip
    return query if split is None else query.where(DatasetMember.split == split)


def _member(row: Any, turns: list[Any]) -> Member:
    provenance = {
        "comparison": row.comparison_id,
        "campaign": row.slug,
        "chosen_snapshot": row.chosen_snapshot,
        "rejected_snapshot": row.rejected_snapshot,
        "distribution": distribution(row.chosen_origin, row.rejected_origin) or row.imported_distribution,
        "chosen_position": row.chosen_position,
        "milliseconds": row.milliseconds_to_decide,
    }
    return Member(
        comparison_id=row.comparison_id,
        split=row.split,
        prompt=prompt_before(row, turns),
        chosen=row.chosen,
        rejected=row.rejected,
        strength=row.strength,
        mode=row.mode,
        conversation=str(row.conversation_id),
        person=None if row.person_id is None else f"person-{row.person_id}",
        round=row.number,
        provenance=provenance,
    )


def pool_prompts(db: Session, split: str, campaigns: list[int]) -> dict[str, str]:
    """The openings of these campaigns' pools on one side, each text once, in a fixed order, with their campaign's mode.

    A text that stands in campaigns of both modes counts as helpful.
    """
    first = func.min(Prompt.id)
    query = (
        select(Prompt.text, func.min(Campaign.mode).label("mode"))
        .join(Campaign, Campaign.id == Prompt.campaign_id)
        .where(Prompt.split == split, Prompt.status == "accepted", Prompt.campaign_id.in_(campaigns))
    )
    return {row.text: str(row.mode) for row in db.execute(query.group_by(Prompt.text).order_by(first))}
