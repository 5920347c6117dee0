"""More or fewer people per turn: which turns leave the queue and which come back."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from server.models import Campaign
from server.services.campaigns import campaigns
from server.services.chat import queue
from tests import factories


@pytest.fixture
def campaign(db: Session) -> Campaign:
    return factories.campaign(db, way="pairs", overlap=2)


def test_what_is_full_by_the_lower_number_leaves_the_queue(db: Session, cast, campaign: Campaign) -> None:
    once, never = factories.item(db, campaign, "One?"), factories.item(db, campaign, "Two?")
    check = factories.item(db, campaign, "Three?", check_kind="gold", expected={"picked": 0})
    for turn in (once, check):
        factories.comparison(db, turn, cast.alice)
        turn.status, turn.queue_id = "ready", campaign.id
    db.flush()
    campaigns.update_campaign(db, campaign, cast.ada, overlap="1")
    assert [(turn.queue_id, turn.status) for turn in (once, never, check)] == [
        (None, "compared"), (campaign.id, "ready"), (campaign.id, "ready"),
    ]  # fmt: skip


def test_what_lacks_an_answer_by_the_higher_number_comes_back(db: Session, cast, campaign: Campaign) -> None:
    campaigns.update_campaign(db, campaign, cast.ada, overlap="1")
    turn, put_away = factories.item(db, campaign, "One?"), factories.item(db, campaign, "Two?")
    factories.comparison(db, turn, cast.alice)
    put_away.queue_id, put_away.status = None, "compared"
    db.flush()
    campaigns.update_campaign(db, campaign, cast.ada, overlap="2")
    assert (turn.queue_id, turn.status) == (campaign.id, "ready")
    assert put_away.queue_id is None
    assert queue.offer(db, cast.alice, campaign) is None
    assert queue.offer(db, cast.bob, campaign) is turn


def test_a_turn_of_a_chat_stays_compared_and_is_shown_to_others(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice, status="finished"))
    factories.comparison(db, turn, cast.alice)
    campaigns.update_campaign(db, campaign, cast.ada, overlap=2)
    assert (turn.queue_id, turn.status) == (campaign.id, "compared")
    assert queue.offer(db, cast.bob, campaign) is turn
    factories.comparison(db, turn, cast.bob)
    turn.queue_id = campaign.id
    db.flush()
    campaigns.update_campaign(db, campaign, cast.ada, overlap=1)
    assert (turn.queue_id, turn.status) == (None, "compared")


def test_other_campaigns_and_imports_are_left_alone(db: Session, cast, campaign: Campaign) -> None:
    other = factories.campaign(db, way="pairs", overlap=1)
    theirs = factories.item(db, other)
    factories.comparison(db, theirs, cast.alice)
    brought = factories.turn(db, factories.conversation(db, campaign, None))
    factories.comparison(db, brought, cast.alice)
    brought.queue_id = None
    db.flush()
    campaigns.update_campaign(db, campaign, cast.ada, overlap=3)
    assert (theirs.queue_id, brought.queue_id) == (None, None)
