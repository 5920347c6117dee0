"""What comes twice or late after an answer was taken back or skipped, and what others hold meanwhile."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from server.errors import Conflict
from server.models import Comparison, Skip
from server.services.campaigns import campaigns
from server.services.chat import queue
from server.services.data import statistics
from server.services.data.selection import Selection
from server.services.ways import feedback, remarks, undo
from tests import factories

KEY = "key-of-the-page"


def test_taking_back_twice_takes_back_one(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    for number in range(2):
        factories.item(db, campaign, f"Question {number}")
    for number in range(2):
        turn = queue.offer(db, cast.bob, campaign)
        feedback.store_comparison(db, cast.bob, turn.id, 1, 4000, f"{KEY}-{number}")
    assert undo.undo(db, cast.bob, campaign, turn.id) is turn
    assert undo.undo(db, cast.bob, campaign, turn.id) is turn
    assert db.query(Comparison).count() == 1
    with pytest.raises(Conflict, match="taken back"):
        undo.undo(db, cast.mallory, campaign, turn.id)


def test_the_page_names_what_it_takes_back(client, db, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="given", way="pairs")
    for number in range(2):
        factories.item(db, campaign, f"Question {number}")
    for number in range(2):
        turn = queue.offer(db, cast.bob, campaign)
        feedback.store_comparison(db, cast.bob, turn.id, 1, 4000, f"{KEY}-{number}")
    csrf = sign_in(cast.bob)
    assert f'name="turn_id" value="{turn.id}"' in client.get("/chat/given").text
    for _ in range(2):
        sent = client.post("/chat/given/undo", data={"csrf_token": csrf, "turn_id": turn.id})
        assert sent.status_code == 303
    assert client.post("/api/campaigns/given/undo", json={"turn_id": turn.id}).status_code == 200
    assert db.query(Comparison).count() == 1


def test_a_request_that_was_taken_back_does_not_come_again(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    factories.item(db, campaign)
    turn = queue.offer(db, cast.bob, campaign)
    feedback.store_comparison(db, cast.bob, turn.id, 1, 4000, KEY)
    undo.undo(db, cast.bob, campaign)
    with pytest.raises(Conflict):
        feedback.store_comparison(db, cast.bob, turn.id, 1, 4000, KEY)
    assert feedback.store_comparison(db, cast.bob, turn.id, 8, 4000, "another-key")[1]


def test_a_turn_that_is_lent_stays_so_while_its_own_person_thinks_again(db: Session, cast) -> None:
    campaign = factories.campaign(db, overlap=2)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
    assert queue.offer(db, cast.bob, campaign) is turn
    undo.undo(db, cast.alice, campaign)
    assert queue.offer(db, cast.bob, campaign) is turn
    assert queue.offer(db, cast.mallory, campaign) is None
    feedback.store_comparison(db, cast.bob, turn.id, 1, 4000, KEY)
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, "another-key")
    assert turn.queue_id is None  # it has both


def test_skipping_what_was_answered_changes_nothing(db: Session, cast) -> None:
    turn = factories.turn(db, factories.conversation(db, factories.campaign(db), cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
    remarks.skip(db, cast.alice, turn.id)
    assert (db.query(Skip).count(), turn.conversation.status) == (0, "open")


def test_a_conversation_of_ties_is_counted(db: Session, cast) -> None:
    campaign = factories.campaign(db, ties=True)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, None, 4000, KEY, verdict="tie")
    counted = statistics.totals(db, Selection(campaign_id=campaign.id))
    assert (counted.comparisons, counted.conversations) == (1, 1)


@pytest.mark.parametrize(("field", "value"), [("ties", "yes"), ("both_bad", "yes"), ("pairing", "two")])
def test_what_answers_mean_by_stays(db: Session, cast, field, value) -> None:
    campaign = factories.campaign(db)
    campaigns.update_campaign(db, campaign, None, **{field: value})
    factories.comparison(db, factories.turn(db, factories.conversation(db, campaign, cast.alice)), cast.alice)
    with pytest.raises(Conflict, match="cannot change"):
        campaigns.update_campaign(db, campaign, None, **{field: "shares" if field == "pairing" else "no"})


def test_a_client_is_told_what_may_be_said(client, db, cast, sign_in) -> None:
    factories.campaign(db, ties=True)
    db.commit()
    sign_in(cast.alice)
    told = client.get("/api/campaigns").json()["campaigns"][0]
    assert (told["ties"], told["both_bad"], told["justification"]) == (True, False, "optional")
