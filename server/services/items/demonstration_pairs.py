"""Replies that people wrote against the model's: each demonstration beside a reply of what serves, to be compared blind.

The model's reply is sampled as any other; the person's stands in a candidate that names its demonstration, so that wins count
it as `people`. Which stands where is drawn, and each who compares sees sides of their own.
"""

from __future__ import annotations

import secrets
from random import Random

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import Conflict
from server.models import Campaign, Conversation, Demonstration, Person, Turn
from server.services import audit
from server.services.data.transcripts import prompt_before, turns_of
from server.services.items import items
from server.services.items.items import Item
from server.services.snapshots import candidates, deployments
from server.services.working import leases
from server.transaction import ask_for

MOST = 500  # at once: each asks for a reply


def make(db: Session, campaign: Campaign, source: Campaign, person: Person | None = None, count: int = MOST) -> int:
    """Pair up to `count` demonstrations of `source` in the queue of `campaign`; returns how many are new or asked for again.

    A demonstration is paired once with each deployment; where the model's reply failed, it is asked for again. Conflict unless the campaign compares given texts for evaluation and
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
    paired = db.scalars(
        select(Turn)
        .join(Conversation)
        .where(Conversation.campaign_id == campaign.id, Turn.idempotency_key.like(f"demonstration:%{ending}"))
    ).all()
    failed = [turn for turn in paired if turn.status == "failed"]
    for turn in failed:
        candidates.ask_again(db, turn)
    there = {turn.idempotency_key for turn in paired}
    shown = db.scalars(
        select(Demonstration).where(Demonstration.campaign_id == source.id).order_by(Demonstration.id)
    ).all()
    fresh = [each for each in shown if f"demonstration:{each.id}{ending}" not in there][: max(0, min(count, MOST))]
    for demonstration in fresh:
        _pair(db, campaign, demonstration, f"demonstration:{demonstration.id}{ending}")
    if fresh:
        audit.record(db, person, "campaign.demonstrations", "campaign", campaign.id, added=len(fresh), of=source.slug)
    return len(fresh) + len(failed)


def _pair(db: Session, campaign: Campaign, demonstration: Demonstration, key: str) -> None:
    answered = db.get_one(Turn, demonstration.turn_id)
    said = prompt_before(answered, turns_of(db, [answered.conversation_id])[answered.conversation_id])
    (asked,) = items.add(db, campaign, {key: Item(tuple(said), (demonstration.text,), "pairs")})
    asked.conversation.prompt_id = answered.conversation.prompt_id
    asked.status, asked.ready_at = "sampling", None
    random = Random(secrets.randbits(128))
    (written,) = asked.candidates
    written.demonstration_id, written.position = demonstration.id, random.randrange(2)
    (snapshot,) = deployments.draw_snapshots(db, campaign, 1, random)
    db.add(candidates.queued(campaign, asked, snapshot, 1 - written.position, random))
    db.flush()
    ask_for(db, "reply", turn_id=asked.id)
