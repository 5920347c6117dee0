"""Items made of a pool: as many as are wanted, each prompt once, never of an overtaken model, and none while replies fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from server.models import Prompt, Turn
from server.services.chat import dialogue, queue
from server.services.items import pool_items
from server.services.snapshots import deployments
from server.services.ways import demonstrations
from server.services.working.answers import Sent
from tests import factories


def fill(db: Session, campaign, count: int = 5) -> None:
    db.add_all(Prompt(campaign_id=campaign.id, text=f"Question {number}?") for number in range(count))
    db.add(Prompt(campaign_id=campaign.id, text="Held out?", split="held_out"))
    db.add(Prompt(campaign_id=campaign.id, text="Proposed?", status="proposed"))
    db.flush()


def test_demonstrations_get_every_prompt_once(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="demonstration", prepared=2)
    fill(db, campaign)
    seen = []
    while (turn := queue.offer(db, cast.alice, campaign)) is not None:
        assert db.query(Turn).filter_by(queue_id=campaign.id).count() <= 2
        demonstrations.store_demonstration(db, cast.alice, turn.id, "So.", Sent(1000, f"key-of-item-{turn.id}"))
        seen.append(turn.message)
    assert sorted(seen) == [f"Question {number}?" for number in range(5)]


def test_many_at_once_each_find_one(db: Session) -> None:
    campaign = factories.campaign(db, way="demonstration", prepared=1)
    fill(db, campaign)
    turns = [queue.offer(db, factories.person(db, f"P{number}"), campaign) for number in range(5)]
    assert len({turn.id for turn in turns}) == 5


def test_rankings_are_sampled_ahead_by_what_serves(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking", prepared=3, candidates=4)
    fill(db, campaign)
    made = pool_items.refill(db, campaign, None)
    assert len(made) == 3
    assert pool_items.refill(db, campaign, None) == []
    assert {task for task, _ids in db.info["tasks"]} == {"reply"}
    turns = [db.get_one(Turn, turn_id) for turn_id in made]
    assert {(turn.status, len(turn.candidates)) for turn in turns} == {("sampling", 4)}
    assert queue.offer(db, cast.alice, campaign) is None
    assert pool_items.being_written(db, campaign)
    turns[0].status = "ready"
    db.flush()
    assert queue.offer(db, cast.alice, campaign) is turns[0]
    assert len(pool_items.refill(db, campaign, None)) == 1  # one is lent, so one more is free


def test_a_newer_deployment_puts_away_what_nobody_saw_and_asks_the_prompts_anew(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking", prepared=5)
    fill(db, campaign)
    first = [db.get_one(Turn, turn_id) for turn_id in pool_items.refill(db, campaign, None)]
    for turn in first:
        turn.status, turn.created_at = "ready", datetime.now(UTC) - timedelta(hours=1)
        turn.conversation.started_at = datetime.now(UTC) - timedelta(hours=1)
    db.flush()
    lent = queue.offer(db, cast.alice, campaign)
    deployments.deploy(db, campaign, [(factories.snapshot(db), 1.0)], reason="newer")
    second = pool_items.refill(db, campaign, None)
    db.expire_all()
    assert [turn for turn in first if turn.queue_id is not None] == [lent]
    assert len(second) == 5
    assert queue.offer(db, cast.alice, campaign) is lent


def test_none_while_paused_unserved_or_failing(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking", prepared=1)
    fill(db, campaign)
    assert pool_items.refill(db, campaign, "paused") == []
    (turn_id,) = pool_items.refill(db, campaign, None)
    failed = db.get_one(Turn, turn_id)
    failed.status = "failed"
    db.flush()
    assert pool_items.refill(db, campaign, None) == []
    db.expire_all()
    assert failed.queue_id is None
    failed.created_at = datetime.now(UTC) - timedelta(minutes=6)
    db.flush()
    assert len(pool_items.refill(db, campaign, None)) == 1


def test_a_quota_ends_it(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="demonstration", quota=1)
    fill(db, campaign)
    turn = queue.offer(db, cast.alice, campaign)
    demonstrations.store_demonstration(db, cast.alice, turn.id, "So.", Sent(1000, "key-of-the-page"))
    assert dialogue.why_not(db, campaign) is not None
    assert queue.offer(db, cast.alice, campaign) is None


def test_a_prompt_whose_replies_failed_is_drawn_again(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="ranking", candidates=4, prepared=1, served_by=factories.snapshot(db))
    db.add(Prompt(campaign_id=campaign.id, text="Why is the sea salty?"))
    db.flush()
    (first,) = pool_items.refill(db, campaign, None)
    turn = db.get_one(Turn, first)
    turn.status, turn.created_at = "failed", turn.created_at - 2 * pool_items.AFTER_FAILURE
    db.flush()
    (second,) = pool_items.refill(db, campaign, None)
    assert second != first and db.get_one(Turn, second).message == turn.message
