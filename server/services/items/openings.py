"""Openings kept in store: prompts of a campaign's pool whose two replies were sampled before anybody asked.

A prepared opening is a conversation of nobody. Whoever takes its prompt gets it by one UPDATE, so that two people never get
the same, and the candidates keep what they were sampled with: snapshots, seeds, settings, and the time by which the round
is found. What a newer deployment or other settings have overtaken is put away, never shown.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, delete, exists, false, func, or_, select, update
from sqlalchemy.orm import Session

from server.models import Campaign, Candidate, Conversation, Person, Prompt, Turn
from server.services.items import pool, pool_items
from server.services.snapshots import candidates, deployments
from server.services.working import leases
from server.transaction import ask_for


def draw(db: Session, campaign: Campaign, count: int) -> list[Prompt]:
    """Openings from the pool at random, those in store first; never held-out ones, which only measure."""
    stored = _stored(campaign).where(Conversation.prompt_id == Prompt.id, _current(db, campaign), _whole()).exists()
    return list(
        db.scalars(select(Prompt).where(*pool.drawable(campaign)).order_by(stored.desc(), func.random()).limit(count))
    )


def of_pool(db: Session, campaign: Campaign, prompt_id: int | None) -> Prompt | None:
    """The prompt, if this campaign may draw it."""
    return (
        None if prompt_id is None else db.scalar(select(Prompt).where(Prompt.id == prompt_id, *pool.drawable(campaign)))
    )


def claim(db: Session, person: Person, campaign: Campaign, prompt: Prompt, text: str, key: str) -> Turn | None:
    """Make an opening in store this person's chat and return its turn, with `key` as the message's; None when there is none.

    The caller holds the person's chat lock and has found no chat of theirs in progress.
    """
    if campaign.prepared == 0:
        return None
    free = (
        _stored(campaign)
        .where(Conversation.prompt_id == prompt.id, Turn.message == text, _current(db, campaign))
        .order_by(_whole().desc(), Conversation.id)
        .limit(1)
        .with_for_update(of=Conversation, skip_locked=True)
    )
    taken = db.scalar(
        update(Conversation)
        .where(Conversation.id.in_(free.scalar_subquery()), Conversation.source == "prepared")
        .values(source="chat", person_id=person.id, started_at=func.now())
        .returning(Conversation.id)
        .execution_options(synchronize_session=False)
    )
    if taken is None:
        return None
    turn = db.scalars(
        update(Turn).where(Turn.conversation_id == taken).values(idempotency_key=key).returning(Turn),
        execution_options={"populate_existing": True},
    ).one()
    db.refresh(turn.conversation)
    ask_for(db, "prepare_openings", campaign_id=campaign.id)
    return turn


def prepare(db: Session, campaign: Campaign, refusal: str | None) -> list[int]:
    """Put away what is out of date and sample what is missing of the campaign's `prepared`; returns the new turns.

    With a `refusal` (paused, quota reached) nothing is sampled. Nothing is sampled either while people wait for replies
    that no worker has taken up: they come first, and the next tick is soon.
    """
    leases.lock(db, f"prepared:{campaign.id}")
    _put_away(db, campaign)
    if refusal is not None or campaign.way != "chat" or campaign.status != "open" or _somebody_waits(db):
        return []
    if deployments.current(db, campaign) is None or failed_lately(db, campaign) is not None:
        return []
    there = db.scalar(select(func.count()).select_from(_stored(campaign).subquery())) or 0
    missing = campaign.prepared - there
    if missing <= 0:
        return []
    waiting = _stored(campaign).where(Conversation.prompt_id == Prompt.id).exists()
    fresh = (
        select(Prompt)
        .where(*pool.drawable(campaign), ~waiting, func.char_length(Prompt.text) <= campaign.max_message_chars)
        .order_by(func.random())
        .limit(missing)
    )
    return [_sample(db, campaign, prompt) for prompt in db.scalars(fresh) if prompt.text.strip()]


def _sample(db: Session, campaign: Campaign, prompt: Prompt) -> int:
    conversation = Conversation(campaign_id=campaign.id, prompt_id=prompt.id, source="prepared")
    db.add(conversation)
    db.flush()
    message = prompt.text.replace("\r\n", "\n").strip()
    turn = Turn(conversation_id=conversation.id, position=1, message=message, idempotency_key="prepared")
    db.add(turn)
    db.flush()
    candidates.add(db, campaign, turn, candidates.PAIR)
    ask_for(db, "reply", turn_id=turn.id)
    return turn.id


def put_all_away(db: Session, campaign: Campaign) -> None:
    """After the pairing of models was changed, which no reply in store tells: nothing that was made before is shown."""
    leases.lock(db, f"prepared:{campaign.id}")
    db.execute(
        update(Conversation)
        .where(
            Conversation.campaign_id == campaign.id, Conversation.source == "prepared", Conversation.status == "open"
        )
        .values(status="abandoned", finished_at=func.now())
        .execution_options(synchronize_session=False)
    )
    ask_for(db, "prepare_openings", campaign_id=campaign.id)


def _put_away(db: Session, campaign: Campaign) -> None:
    """What may not be shown any more: overtaken, failed, of a prompt that was withdrawn, or more than is asked for."""
    fit = _stored(campaign).where(
        _current(db, campaign), exists().where(Prompt.id == Conversation.prompt_id, *pool.drawable(campaign))
    )
    if campaign.status == "closed" or campaign.way != "chat":
        fit = fit.where(false())
    kept = fit.order_by(Conversation.id).limit(campaign.prepared)
    store = (Conversation.campaign_id == campaign.id, Conversation.source == "prepared")
    db.execute(
        update(Conversation)
        .where(*store, Conversation.status == "open", Conversation.id.not_in(kept.scalar_subquery()))
        .values(status="abandoned", finished_at=func.now())
        .execution_options(synchronize_session=False)
    )
    # A worker that is in the middle of one must still find its turn, and what failed tells to wait: removed at a later tick.
    written = exists().where(
        Turn.conversation_id == Conversation.id, or_(Turn.status == "sampling", _failed_just_now())
    )
    db.execute(
        delete(Conversation)
        .where(*store, Conversation.status == "abandoned", ~written)
        .execution_options(synchronize_session=False)
    )


def _stored(campaign: Campaign) -> Select[int]:
    """The conversations in store, whose replies are there or under way."""
    return (
        select(Conversation.id)
        .join(Turn, Turn.conversation_id == Conversation.id)
        .where(
            Conversation.campaign_id == campaign.id,
            Conversation.source == "prepared",
            Conversation.status == "open",
            Turn.status.in_(("ready", "sampling")),
        )
    )


def _whole() -> ColumnElement[bool]:
    return Turn.status == "ready"


def _current(db: Session, campaign: Campaign) -> ColumnElement[bool]:
    """Sampled since what serves now was deployed, and as the campaign samples now."""
    deployment = deployments.current(db, campaign)
    if deployment is None:
        return false()
    # The worker adds notes of its own to what a candidate was sampled with.
    otherwise = exists().where(
        Candidate.turn_id == Turn.id, ~Candidate.sampling.contains(candidates.sampling_of(campaign))
    )
    return and_(Turn.created_at >= deployment.created_at, ~otherwise)


def failed_lately(db: Session, campaign: Campaign) -> datetime | None:
    """When what serves now last failed to write ahead, while it is too soon to try again; None when nothing is in the way.

    A newer deployment is tried at once.
    """
    deployment = deployments.current(db, campaign)
    if deployment is None:
        return None
    return db.scalar(
        select(func.max(Turn.created_at))
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(
            Conversation.campaign_id == campaign.id,
            Conversation.source == "prepared",
            Turn.created_at >= deployment.created_at,
            _failed_just_now(),
        )
    )


def _failed_just_now() -> ColumnElement[bool]:
    return and_(Turn.status == "failed", Turn.created_at > func.now() - pool_items.AFTER_FAILURE)


def _somebody_waits(db: Session) -> bool:
    waits = (
        select(Candidate.id)
        .join(Turn, Turn.id == Candidate.turn_id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(Candidate.status == "queued", Turn.status == "sampling", Conversation.source != "prepared")
    )
    return db.scalar(waits.limit(1)) is not None
