"""A round's rows as files of a run folder: feedback in training's own form, and the prompts that PPO answers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from sqlalchemy.orm import Session

from server.services.data import dataset_rankings, datasets, expert_keys
from server.services.data.dataset_member import Member
from server.services.data.dataset_rankings import RankedMember
from server.services.data.dataset_selection import DatasetSelection
from training.lines import rankings
from training.lines.rankings import Ranking
from training.lines.records import Comparison, to_line

MOST_CONTEXTS = 4_000  # conversation beginnings beside the pool; PPO answers each prompt a few times at most
MOST_HELD_OUT = 400

Messages = list[dict[str, str]]


def as_record(member: Member) -> Comparison:
    """A member of a dataset version as training reads it; people are pseudonyms."""
    return Comparison(
        prompt=tuple(member.prompt),  # type: ignore[arg-type] # roles are "user" and "assistant" by construction
        chosen=member.chosen,
        rejected=member.rejected,
        strength=member.strength,
        mode=member.mode,
        conversation=member.conversation,
        person=member.person,
        round=member.round,
        extra=member.provenance,
    )


def as_ranking(member: RankedMember) -> Ranking:
    """A ranking of a dataset version as training reads it."""
    return Ranking(
        prompt=tuple(member.prompt),  # type: ignore[arg-type] # as above
        replies=tuple(member.replies),
        ranks=tuple(member.ranks),
        mode=member.mode,
        conversation=member.conversation,
        person=member.person,
        round=member.round,
        extra=member.provenance,
    )


def write_feedback(db: Session, version_id: int, folder: Path) -> None:
    """Write data/train.jsonl and data/test.jsonl: pairs, then rankings; each file appears whole or not at all."""
    for split in ("train", "test"):
        pairs = (to_line(as_record(member)) for member in datasets.members(db, version_id, split))
        ranked = (
            rankings.to_line(as_ranking(member))
            for member in dataset_rankings.members(db, version_id, split)
            if member.teaches
        )
        _write_lines(folder / "data" / f"{split}.jsonl", chain(pairs, ranked))


def write_experts(db: Session, selection: DatasetSelection, folder: Path) -> None:
    """Write data/experts.jsonl, what experts hold right about gold items, if there are any."""
    pairs = [to_line(as_record(member)) for member in expert_keys.keyed_pairs(db, selection)]
    if pairs:
        _write_lines(folder / "data" / "experts.jsonl", pairs)


def write_prompts(db: Session, version_id: int, campaigns: list[int], folder: Path) -> int:
    """Write data/prompts.jsonl and data/held_out.jsonl, with modes; returns how many prompts there are to train on.

    To train on: the pools' openings and where people's conversations stood in the training split. Nothing that begins with
    a held-out opening is among them.
    """
    held_out = datasets.pool_prompts(db, "held_out", campaigns)
    openings = datasets.pool_prompts(db, "train", campaigns)
    prompts = [(_said(text), mode) for text, mode in openings.items() if text not in held_out]
    prompts += _contexts(db, version_id, set(held_out), {json.dumps(prompt) for prompt, _ in prompts})
    _write_lines(folder / "data" / "prompts.jsonl", (_line(prompt, mode) for prompt, mode in prompts))
    if held_out:
        count = min(MOST_HELD_OUT, len(held_out))  # at even distances: the pool stands campaign by campaign
        pool = list(held_out.items())
        kept = [pool[place * len(pool) // count] for place in range(count)]
        _write_lines(folder / "data" / "held_out.jsonl", (_line(_said(text), mode) for text, mode in kept))
    return len(prompts)


def _said(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def _contexts(db: Session, version_id: int, held_out: set[str], known: set[str]) -> list[tuple[Messages, str]]:
    """Distinct prompts of the training comparisons with their modes, evenly thinned to MOST_CONTEXTS."""
    found: list[tuple[Messages, str]] = []
    every = 1
    for place, prompt in enumerate(_distinct(db, version_id, held_out, known)):
        if place % every == 0:
            found.append(prompt)
        if len(found) >= 2 * MOST_CONTEXTS:
            del found[1::2]
            every *= 2
    return found[:MOST_CONTEXTS] if every == 1 else found


def _distinct(db: Session, version_id: int, held_out: set[str], known: set[str]) -> Iterator[tuple[Messages, str]]:
    learned: Iterator[Member | RankedMember] = chain(
        datasets.members(db, version_id, "train"), dataset_rankings.members(db, version_id, "train")
    )
    for member in learned:
        text = json.dumps(member.prompt)
        asked = member.prompt[-1]["content"].strip()
        if asked and text not in known and member.prompt[0]["content"] not in held_out:
            known.add(text)
            yield member.prompt, member.mode


def _line(prompt: Messages, mode: str) -> str:
    return json.dumps({"messages": prompt, "mode": mode}, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
