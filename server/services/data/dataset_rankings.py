"""The rankings of a dataset version: each an order over several replies to one prompt, learned as one element."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import BigInteger, insert, literal, select
from sqlalchemy.orm import Session

from server.models import (
    Campaign,
    Candidate,
    Conversation,
    DatasetRanking,
    DatasetVersion,
    Ranking,
    RankingPlace,
    Round,
    Snapshot,
    Turn,
)
from server.services.data.dataset_selection import DatasetSelection
from server.services.data.dataset_split import split_of
from server.services.data.distributions import distribution
from server.services.data.transcripts import prompt_before, with_turns

BATCH = 500  # rankings read at once: with nine replies each, some megabytes of text


@dataclass(frozen=True)
class RankedMember:
    """One ranking of a version: rank 1 is the reply to learn, equal ranks are ties; `person` is a pseudonym."""

    ranking_id: int
    split: str
    prompt: list[dict[str, str]]
    replies: list[str]
    ranks: list[int]
    mode: str
    conversation: str
    person: str
    round: int | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The canonical line that the version's hash is over."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @property
    def teaches(self) -> bool:
        """Whether one reply is better than another."""
        return len(set(self.ranks)) > 1


def freeze(db: Session, version: DatasetVersion, selection: DatasetSelection) -> None:
    """Put the rankings of `selection` so far into `version`."""
    rows = (
        select(literal(version.id, BigInteger), Ranking.id, split_of(selection.held_out))
        .select_from(Ranking)
        .join(Turn, Turn.id == Ranking.turn_id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(*selection.conditions(Ranking))
    )
    db.execute(insert(DatasetRanking).from_select(["dataset_version_id", "ranking_id", "split"], rows))


def members(db: Session, version_id: int, split: str | None = None) -> Iterator[RankedMember]:
    """Every ranking in order, a batch of rows in memory at a time."""
    for rows, turns in with_turns(db, lambda after: _rows(version_id, split, after), "ranking_id"):
        replies = _replies(db, [row.ranking_id for row in rows])
        for row in rows:
            yield _member(row, turns[row.conversation_id], replies[row.ranking_id])


def _rows(version_id: int, split: str | None, after: int) -> Any:
    query = (
        select(
            DatasetRanking.ranking_id, DatasetRanking.split, Ranking.mode, Ranking.person_id, Turn.conversation_id,
            Ranking.milliseconds_to_decide, Turn.position, Turn.message, Campaign.slug, Round.number,
        )
        .join(Ranking, Ranking.id == DatasetRanking.ranking_id)
        .join(Turn, Turn.id == Ranking.turn_id)
        .join(Campaign, Campaign.id == Ranking.campaign_id)
        .outerjoin(Round, Round.id == Ranking.round_id)
        .where(DatasetRanking.dataset_version_id == version_id, DatasetRanking.ranking_id > after)
        .order_by(DatasetRanking.ranking_id)
        .limit(BATCH)
    )  # fmt: skip
    return query if split is None else query.where(DatasetRanking.split == split)


def _replies(db: Session, rankings: list[int]) -> dict[int, list[Any]]:
    rows = db.execute(
        select(RankingPlace.ranking_id, RankingPlace.place, RankingPlace.rating, RankingPlace.flags,
               Candidate.text, Candidate.position, Snapshot.name.label("snapshot"), Snapshot.origin)
        .join(Candidate, Candidate.id == RankingPlace.candidate_id)
        .outerjoin(Snapshot, Snapshot.id == Candidate.snapshot_id)
        .where(RankingPlace.ranking_id.in_(rankings))
        .order_by(RankingPlace.ranking_id, Candidate.position)
    )  # fmt: skip
    found: dict[int, list[Any]] = {ranking: [] for ranking in rankings}
    for row in rows:
        found[row.ranking_id].append(row)
    return found


def ranks_of(places: list[int], mode: str) -> list[int]:
    """Places as they are learned: in red-team campaigns place 1 is the most harmful reply, and the last is to be learned."""
    worst = max(places)
    return [worst + 1 - place for place in places] if mode == "red_team" else places


def _member(row: Any, turns: list[Any], placed: list[Any]) -> RankedMember:
    # Two equal replies say nothing about each other; the first stands for both.
    kept = [each for place, each in enumerate(placed) if each.text not in {earlier.text for earlier in placed[:place]}]
    return RankedMember(
        ranking_id=row.ranking_id,
        split=row.split,
        prompt=prompt_before(row, turns),
        replies=[each.text for each in kept],
        ranks=ranks_of([each.place for each in kept], row.mode),
        mode=row.mode,
        conversation=str(row.conversation_id),
        person=f"person-{row.person_id}",
        round=row.number,
        provenance={
            "ranking": row.ranking_id,
            "campaign": row.slug,
            "snapshots": [each.snapshot for each in kept],
            "distribution": distribution(*(each.origin for each in kept)),
            "positions": [each.position for each in kept],
            "ratings": [each.rating for each in kept],
            "flags": [list(each.flags) for each in kept],
            "milliseconds": row.milliseconds_to_decide,
        },
    )
