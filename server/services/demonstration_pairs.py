"""Replies that people wrote against the model's: each demonstration beside a reply of what serves, to be compared blind.

The model's reply is sampled as any other; the person's stands in a candidate that names its demonstration, so that wins count
it as `people`. Which stands where is drawn, and each who compares sees sides of their own.
"""

from __future__ import annotations

import secrets
from random import Random

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.errors import Conflict
from server.models import Campaign, Candidate, Conversation, Demonstration, Person, Turn
from server.services import audit, candidates, deployments, leases
from server.services.transcripts import prompt_before, turns_of
from server.transaction import ask_for

MOST = 500  # at once: each asks for a reply


def make(db: Session, campaign: Campaign, source: Campaign, person: Person | None = None, count: int = MOST) -> int:
    """Pair up to `count` demonstrations of `source` in the queue of `campaign`; returns how many are new.

    A demonstration is paired once with each deployment. Conflict unless the campaign compares given texts for evaluation and
    a model serves it.
    """
    if campaign.way != "pairs" or campaign.purpose != "evaluation":
        raise Conflict(
            f"{campaign.name} must compare given texts (way pairs) for evaluation, so that nothing of it is trained on."
        )
    deployment = deployments.current(db, campaign)
    if deployment is None:
        raise Conflict(f"No model serves {campaign.name} yet; deploy one on the page Snapshots.")
    leases.lock(db, f"items:{campaign.id}")
    ending = f":{deployment.id}"
    there = set(db.scalars(
        select(Turn.idempotency_key)
        .join(Conversation)
        .where(Conversation.campaign_id == campaign.id, Turn.idempotency_key.like("demonstration:%"))
    ))  # fmt: skip
    shown = db.scalars(
        select(Demonstration).where(Demonstration.campaign_id == source.id).order_by(Demonstration.id)
    ).all()
    fresh = [each for each in shown if f"demonstration:{each.id}{ending}" not in there][: max(0, min(count, MOST))]
    for demonstration in fresh:
        _pair(db, campaign, demonstration, f"demonstration:{demonstration.id}{ending}")
    if fresh:
        audit.record(db, person, "campaign.demonstrations", "campaign", campaign.id, added=len(fresh), of=source.slug)
    return len(fresh)


def _pair(db: Session, campaign: Campaign, demonstration: Demonstration, key: str) -> None:
    answered = db.get_one(Turn, demonstration.turn_id)
    said = prompt_before(answered, turns_of(db, [answered.conversation_id])[answered.conversation_id])
    talk = Conversation(campaign_id=campaign.id, source="item", prompt_id=answered.conversation.prompt_id)
    db.add(talk)
    db.flush()
    before = list(zip(said[:-1:2], said[1::2], strict=True))
    for position, (message, reply) in enumerate(before, 1):
        turn = Turn(
            conversation_id=talk.id, position=position, message=message["content"], status="compared",
            ready_at=func.now(), idempotency_key=f"{key}:{position}",
        )  # fmt: skip
        db.add(turn)
        db.flush()
        carried = Candidate(turn_id=turn.id, position=0, status="done", text=reply["content"], finished_at=func.now())
        db.add(carried)
        db.flush()
        turn.continued_by_id = carried.id
    asked = Turn(
        conversation_id=talk.id, position=len(before) + 1, message=said[-1]["content"], status="sampling",
        idempotency_key=key, queue_id=campaign.id,
    )  # fmt: skip
    db.add(asked)
    db.flush()
    random = Random(secrets.randbits(128))
    (snapshot,) = deployments.draw_snapshots(db, campaign, 1, random)
    place = random.randrange(2)
    db.add(Candidate(
        turn_id=asked.id, position=place, snapshot_id=snapshot.id, seed=random.randrange(candidates.SEED_LIMIT),
        sampling=candidates.sampling_of(campaign),
    ))  # fmt: skip
    db.add(Candidate(
        turn_id=asked.id, position=1 - place, status="done", text=demonstration.text, finished_at=func.now(),
        demonstration_id=demonstration.id,
    ))  # fmt: skip
    db.flush()
    ask_for(db, "reply", turn_id=asked.id)
