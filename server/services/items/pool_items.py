"""Items that a campaign makes itself from its pool of prompts: to be ranked with replies sampled ahead, or to be answered.

As many as the campaign's `prepared` are kept free. A prompt becomes an item for demonstrations once, and for rankings once
a deployment: what the model of last week wrote is put away unseen.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from server.models import Campaign, Conversation, Demonstration, Deployment, Lease, Prompt, Ranking, Turn
from server.services.items import pool
from server.services.snapshots import candidates, deployments
from server.services.working import leases
from server.transaction import ask_for

WAYS = ("ranking", "demonstration")
# Where no reply could be made the next is tried later: a model that is broken now is broken in a second too.
AFTER_FAILURE = timedelta(minutes=5)


def refill(db: Session, campaign: Campaign, refusal: str | None) -> list[int]:
    """Make the items that are missing; returns their turns. With a `refusal` (paused, quota reached) none are made."""
    if campaign.way not in WAYS:
        return []
    leases.lock(db, f"items:{campaign.id}")
    deployment = deployments.current(db, campaign)
    _put_away(db, campaign, deployment)
    if refusal is not None or campaign.status != "open" or (campaign.way == "ranking" and deployment is None):
        return []
    if failed_lately(db, campaign) is not None:
        return []
    missing = campaign.prepared - free(db, campaign)
    if missing <= 0:
        return []
    had: tuple[ColumnElement[bool], ...] = (
        Conversation.campaign_id == campaign.id,
        Conversation.source == "item",
        Conversation.prompt_id == Prompt.id,
        # One whose replies failed was never seen: its prompt is drawn again.
        ~exists().where(Turn.conversation_id == Conversation.id, Turn.status == "failed"),
    )
    if campaign.way == "ranking" and deployment is not None:
        had = (*had, Conversation.started_at >= deployment.created_at)
    fresh = select(Prompt).where(*pool.drawable(campaign), ~exists().where(*had)).order_by(func.random()).limit(missing)
    return [_make(db, campaign, prompt) for prompt in db.scalars(fresh).all()]


def _make(db: Session, campaign: Campaign, prompt: Prompt) -> int:
    talk = Conversation(campaign_id=campaign.id, source="item", prompt_id=prompt.id)
    db.add(talk)
    db.flush()
    sampled = campaign.way == "ranking"
    turn = Turn(
        conversation_id=talk.id,
        position=1,
        message=prompt.text,
        status="sampling" if sampled else "ready",
        ready_at=None if sampled else func.now(),
        queue_id=campaign.id,
        idempotency_key="pool",
    )
    db.add(turn)
    db.flush()
    if sampled:
        candidates.add(db, campaign, turn, campaign.candidates)
        ask_for(db, "reply", turn_id=turn.id)
    return turn.id


def free(db: Session, campaign: Campaign) -> int:
    """Items in the queue, or being written, that have a place left; checks aside."""
    answers: type[Ranking | Demonstration] = Ranking if campaign.way == "ranking" else Demonstration
    given = select(func.count()).where(answers.turn_id == Turn.id).scalar_subquery()
    lent = select(func.count()).where(leases.live_on(Turn.id)).scalar_subquery()
    waiting = select(func.count()).where(
        Turn.queue_id == campaign.id,
        Turn.status.in_(("ready", "sampling")),
        Turn.check_kind.is_(None),
        given + lent < campaign.overlap,
    )
    return db.scalar(waiting) or 0


def being_written(db: Session, campaign: Campaign) -> bool:
    """Whether replies to an item are under way, so that there will be something to do in a moment."""
    waiting = select(Turn.id).where(Turn.queue_id == campaign.id, Turn.status == "sampling").limit(1)
    return campaign.way in WAYS and db.scalar(waiting) is not None


def waits_for_model(db: Session, campaign: Campaign) -> bool:
    """Whether there has never been an item to rank, and none can be made since no model is deployed."""
    if campaign.way != "ranking" or deployments.current(db, campaign) is not None:
        return False
    brought = select(Conversation.id).where(Conversation.campaign_id == campaign.id, Conversation.source == "item")
    return db.scalar(brought.limit(1)) is None


def _put_away(db: Session, campaign: Campaign, deployment: Deployment | None) -> None:
    """Take out of the queue what failed, and what a newer deployment overtook before anybody was at it."""
    talk = aliased(Conversation)
    of_pool = exists().where(talk.id == Turn.conversation_id, talk.source == "item", talk.prompt_id.is_not(None))
    gone: ColumnElement[bool] = Turn.status == "failed"
    if deployment is not None and campaign.way == "ranking":
        untouched = ~exists().where(Ranking.turn_id == Turn.id) & ~_touched(Turn.id)
        gone |= untouched & (Turn.created_at < deployment.created_at)
    db.execute(
        update(Turn)
        .where(Turn.queue_id == campaign.id, of_pool, gone)
        .values(queue_id=None)
        .execution_options(synchronize_session=False)
    )


def _touched(turn_id: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    return exists().where(Lease.turn_id == turn_id)


def failed_lately(db: Session, campaign: Campaign) -> datetime | None:
    """When an item's replies last failed to be made, while it is too soon to try again; None when nothing is in the way."""
    return db.scalar(
        select(func.max(Turn.created_at))
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(
            Conversation.campaign_id == campaign.id,
            Conversation.source == "item",
            Turn.status == "failed",
            Turn.created_at > func.now() - AFTER_FAILURE,
        )
    )
