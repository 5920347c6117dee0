"""Frozen dataset versions: which comparisons a round learns from, and on which side of the split each one falls.

A version is made by one statement over one consistent view of the table and never changes. The split goes by conversation,
from a hash of the conversation alone, so more data moves no conversation from one side to the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, cast, func, insert, literal, or_, select
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

SPLIT_SALT = "whetstone-split-1"  # another salt would move conversations between train and test
BATCH = 2_000  # members read at once: a few megabytes of text


@dataclass(frozen=True)
class DatasetSelection:
    """Which comparisons; empty campaigns and modes mean all of them."""

    campaigns: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    imports: bool = True
    simulated: bool = True
    held_out: float = (
        0.15  # of the conversations; the papers' 5% of 44,000 would be too few pairs of a first round's 300
    )
    weakest_strength: int = (
        1  # at or below it a comparison teaches nothing (2204.05862, 2.2); such are frozen, not usable
    )

    def as_json(self) -> dict[str, Any]:
        """The form stored beside the version."""
        return asdict(self) | {"campaigns": list(self.campaigns), "modes": list(self.modes)}


@dataclass(frozen=True)
class Member:
    """One comparison of a version with the text it is about; `person` is a pseudonym."""

    comparison_id: int
    split: str
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str
    strength: int | None
    mode: str
    conversation: str
    person: str | None
    round: int | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The canonical line that the version's hash is over."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parse_selection(wanted: dict[str, Any]) -> DatasetSelection:
    """Build a DatasetSelection, or BadInput naming the setting that is unknown or cannot be used."""
    known = DatasetSelection.__dataclass_fields__
    for name, value in wanted.items():
        if name not in known:
            raise BadInput(
                f"There is no setting dataset.{name}; known are {', '.join(known)}.", field=f"dataset.{name}"
            )
        kinds = {"campaigns": list, "modes": list, "imports": bool, "simulated": bool}.get(name, (int, float))
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
            raise BadInput(f"dataset.{name} cannot be {value!r}.", field=f"dataset.{name}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in wanted.items()
    }
    selection = DatasetSelection(**values)
    if not 0 < selection.held_out < 1:
        raise BadInput("dataset.held_out must lie between 0 and 1.", field="dataset.held_out")
    return selection


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
        .where(chosen.text.is_not(None), rejected.text.is_not(None), chosen.text != rejected.text)
    )
    if selection.campaigns:
        query = query.join(Campaign, Campaign.id == Comparison.campaign_id).where(
            Campaign.slug.in_(selection.campaigns)
        )
    if selection.modes:
        query = query.where(Comparison.mode.in_(selection.modes))
    if not selection.imports:
        query = query.where(Comparison.import_id.is_(None))
    if not selection.simulated:
        query = query.outerjoin(Person, Person.id == Comparison.person_id).where(
            or_(Person.id.is_(None), Person.simulated.is_(False))
        )
    return query


def count_usable(db: Session, selection: DatasetSelection, *, after: int = 0) -> int:
    """How many comparisons a preference model could learn from now, of those with an id above `after`."""
    query = _chosen_comparisons(selection, [func.count()]).where(
        Comparison.id > after,
        or_(Comparison.strength.is_(None), Comparison.strength > selection.weakest_strength),
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


def _held_out(share: float) -> ColumnElement[bool]:
    """Whether the comparison's conversation falls into the held-out share.

    Imported records with the same opening message stay together: datasets repeat their prompts.
    """
    opening = aliased(Turn)
    first_message = (
        select(opening.message)
        .where(opening.conversation_id == Conversation.id)
        .order_by(opening.position)
        .limit(1)
        .scalar_subquery()
    )
    key = case(
        (Conversation.source == "import", literal("opening:") + first_message),
        else_=literal("conversation:") + cast(Conversation.id, Turn.message.type),
    )
    digest = func.sha256(func.convert_to(literal(SPLIT_SALT + "\n") + key, "UTF8"))
    fraction = sum(
        (cast(func.get_byte(digest, byte), BigInteger) * 256 ** (3 - byte) for byte in range(4)), literal(0, BigInteger)
    )
    return fraction < int(share * 2**32)


def freeze(db: Session, selection: DatasetSelection, *, person: Person | None = None) -> DatasetVersion:
    """Make a version of all comparisons of `selection` so far; BadInput when there are none."""
    version = DatasetVersion(
        sha256="", selection=selection.as_json(), counts={}, created_by_id=person.id if person else None
    )
    db.add(version)
    db.flush()
    split = case((_held_out(selection.held_out), "test"), else_="train")
    rows = _chosen_comparisons(selection, [literal(version.id, BigInteger), Comparison.id, split])
    db.execute(insert(DatasetMember).from_select(["dataset_version_id", "comparison_id", "split"], rows))
    digest = hashlib.sha256()
    counts: dict[str, dict[str, int]] = {"split": {}, "mode": {}, "campaign": {}}
    pairs = last = 0
    for member in members(db, version.id):
        digest.update(member.line())
        pairs, last = pairs + 1, member.comparison_id
        for name, value in (
            ("split", member.split),
            ("mode", member.mode),
            ("campaign", member.provenance["campaign"]),
        ):
            counts[name][value] = counts[name].get(value, 0) + 1
    if not pairs:
        raise BadInput("There is no comparison to learn from yet; collect or import some first.")
    version.sha256 = digest.hexdigest()
    version.counts = {"pairs": pairs, **counts}
    version.selection = selection.as_json() | {"up_to": last}
    db.flush()
    return version


def members(db: Session, version_id: int, split: str | None = None) -> Iterator[Member]:
    """Every member in the order of its comparison, a batch of rows in memory at a time."""
    after = 0
    while True:
        batch = db.execute(_member_rows(version_id, split, after)).all()
        if not batch:
            return
        before = turns_of(db, sorted({row.conversation_id for row in batch}))
        for row in batch:
            yield _member(row, before.get(row.conversation_id, []))
        after = batch[-1].comparison_id


def _member_rows(version_id: int, split: str | None, after: int) -> Any:
    chosen, rejected = aliased(Candidate), aliased(Candidate)
    chosen_by, rejected_by = aliased(Snapshot), aliased(Snapshot)
    query = (
        select(
            DatasetMember.comparison_id, DatasetMember.split, Comparison.strength, Comparison.mode, Comparison.person_id,
            Comparison.import_id, Comparison.milliseconds_to_decide, Turn.conversation_id, Turn.position, Turn.message,
            Campaign.slug, Round.number, chosen.text.label("chosen"), rejected.text.label("rejected"),
            chosen_by.name.label("chosen_snapshot"), rejected_by.name.label("rejected_snapshot"),
            chosen.position.label("chosen_position"),
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


def turns_of(db: Session, conversations: list[int]) -> dict[int, list[Any]]:
    """The turns of these conversations in order: position, message, and the reply that carried each one on, if one did."""
    carried = aliased(Candidate)
    rows = db.execute(
        select(Turn.conversation_id, Turn.position, Turn.message, carried.text.label("reply"))
        .outerjoin(carried, carried.id == Turn.continued_by_id)
        .where(Turn.conversation_id.in_(conversations))
        .order_by(Turn.conversation_id, Turn.position)
    )
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row.conversation_id, []).append(row)
    return found


def _member(row: Any, turns: list[Any]) -> Member:
    prompt = []
    for turn in turns:
        if turn.position < row.position:
            prompt.append({"role": "user", "content": turn.message})
            prompt.append({"role": "assistant", "content": turn.reply or ""})
    prompt.append({"role": "user", "content": row.message})
    provenance = {
        "comparison": row.comparison_id,
        "campaign": row.slug,
        "chosen_snapshot": row.chosen_snapshot,
        "rejected_snapshot": row.rejected_snapshot,
        "chosen_position": row.chosen_position,
        "milliseconds": row.milliseconds_to_decide,
    }
    return Member(
        comparison_id=row.comparison_id,
        split=row.split,
        prompt=prompt,
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
        .where(Prompt.split == split, Prompt.campaign_id.in_(campaigns))
    )
    return {row.text: str(row.mode) for row in db.execute(query.group_by(Prompt.text).order_by(first))}
