"""Making the candidates of a turn: which snapshot writes each, with which seed and settings, and where it will stand."""

from __future__ import annotations

import secrets
from random import Random
from typing import Any

from sqlalchemy.orm import Session

from server.models import Campaign, Candidate, Snapshot, Turn
from server.services.snapshots import deployments
from server.transaction import ask_for

PAIR = 2  # replies to a turn that people compare
# Below 2^53, so that a seed survives every JSON reader.
SEED_LIMIT = 2**53


def sampling_of(campaign: Campaign) -> dict[str, Any]:
    """The settings that the campaign samples with now, as a candidate keeps them."""
    return {
        "temperature": campaign.temperature,
        "top_p": campaign.top_p,
        "max_new_tokens": campaign.max_new_tokens,
    }


def add(db: Session, campaign: Campaign, turn: Turn, count: int) -> None:
    """Give a new turn `count` queued candidates; Conflict while no model serves the campaign."""
    random = Random(secrets.randbits(128))
    snapshots = deployments.draw_snapshots(db, campaign, count, random)
    random.shuffle(snapshots)  # where a reply stands must not tell which snapshot wrote it
    for place, snapshot in enumerate(snapshots):
        db.add(queued(campaign, turn, snapshot, place, random))
    db.flush()


def ask_again(db: Session, turn: Turn) -> None:
    """Have the replies of a failed turn written after all; those that are done stay."""
    turn.status, turn.failure = "sampling", None
    for candidate in turn.candidates:
        if candidate.status != "done":
            candidate.status, candidate.failure, candidate.attempts = "queued", None, 0
            candidate.claimed_by = candidate.heartbeat_at = None
    db.flush()
    ask_for(db, "reply", turn_id=turn.id)


def queued(campaign: Campaign, turn: Turn, snapshot: Snapshot, place: int, random: Random) -> Candidate:
    """A reply that this snapshot is to write, to stand at `place`."""
    return Candidate(
        turn_id=turn.id,
        position=place,
        snapshot_id=snapshot.id,
        seed=random.randrange(SEED_LIMIT),
        sampling=sampling_of(campaign),
    )
