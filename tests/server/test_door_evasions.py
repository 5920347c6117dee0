"""What the door lets nobody slip round: screening by skipping, the limit of a day, and what is taken back from outside."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput, NotAllowed
from server.models import Lease
from server.services.campaigns import campaigns
from server.services.chat import dialogue, queue
from server.services.door import members
from server.services.ways import feedback, remarks, undo
from tests import factories
from tests.server.test_door import KEY, step


def screening_campaign(db: Session, **more):
    campaign = factories.campaign(db, way="pairs", screening_items=4, screening_agreement=0.75, **more)
    plain = [factories.item(db, campaign, f"Plain {number}?") for number in range(3)]
    for number in range(6):
        factories.item(db, campaign, f"Gold {number}?", check_kind="gold", expected={"picked": 0})
    return campaign, plain


@pytest.mark.parametrize(("right", "after"), [(4, "ready"), (3, "ready"), (2, "screened_out")])
def test_the_first_items_are_gold_and_decide(db: Session, cast, right: int, after: str) -> None:
    campaign, plain = screening_campaign(db)
    for number in range(4):
        turn = queue.offer(db, cast.alice, campaign)
        assert turn.check_kind == "gold"
        lease = db.query(Lease).filter_by(turn_id=turn.id).one()
        agrees = number < right
        position = 1 if agrees != lease.mirrored else 8
        feedback.store_comparison(db, cast.alice, turn.id, position, 100, f"key-of-item-{number}")
    assert step(db, cast.alice, campaign) == after
    offered = queue.offer(db, cast.alice, campaign)
    assert offered is (plain[0] if after == "ready" else None)


def test_replies_that_were_left_unanswered_count_for_the_day(db: Session, cast) -> None:
    campaign = factories.campaign(db, mode="red_team", daily_limit=2)
    for _ in range(2):
        talk = factories.conversation(db, campaign, cast.alice)
        factories.turn(db, talk, ready_at=datetime.now(UTC))
        assert step(db, cast.alice, campaign) == "ready"
        dialogue.finish(db, cast.alice, campaign)
    assert step(db, cast.alice, campaign) == "daily_limit"


def test_at_the_limit_of_a_day_the_page_says_so_and_lets_take_back(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="talk", daily_limit=1, max_turns=3)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice), ready_at=datetime.now(UTC))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 100, KEY)
    db.commit()
    sign_in(cast.alice)
    page = client.get("/chat/talk")
    assert page.status_code == 200
    assert "It goes on at midnight UTC" in page.text and 'name="text"' not in page.text
    assert "/chat/talk/undo" in page.text
    turn.conversation.status, campaign.undo_seconds = "finished", 0
    db.commit()
    assert client.get("/chat/talk").headers["location"] == "/chat/talk/begin"


def test_skipping_the_gold_items_is_no_way_round_them(db: Session, cast) -> None:
    campaign, _plain = screening_campaign(db)
    for _ in range(4):
        turn = queue.offer(db, cast.alice, campaign)
        assert turn.check_kind == "gold"
        remarks.skip(db, cast.alice, turn.id)
    assert step(db, cast.alice, campaign) == "screened_out"


def test_without_gold_items_enough_the_door_stays_shut(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", screening_items=2, screening_agreement=0.5)
    factories.item(db, campaign, "Plain?")
    factories.item(db, campaign, "Gold?", check_kind="gold", expected={"picked": 0})
    turn = queue.offer(db, cast.alice, campaign)
    feedback.store_comparison(db, cast.alice, turn.id, 1, 100, KEY)
    assert queue.offer(db, cast.alice, campaign) is None


def test_who_was_excluded_takes_nothing_back_and_answers_nothing(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    talk = factories.conversation(db, campaign, cast.alice)
    feedback.store_comparison(db, cast.alice, factories.turn(db, talk).id, 1, 100, KEY)
    open_turn = factories.turn(db, factories.conversation(db, campaign, cast.bob))
    for person in (cast.alice, cast.bob):
        members.exclude(db, cast.ada, campaign, person.id, "All the same side.")
    with pytest.raises(NotAllowed, match="All the same side"):
        undo.undo(db, cast.alice, campaign)
    with pytest.raises(NotAllowed, match="All the same side"):
        feedback.store_comparison(db, cast.bob, open_turn.id, 1, 100, "another-key")


def test_a_campaign_without_checks_takes_no_share_of_them(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    for field, value in (("check_rate", 0.1), ("screening_items", 2)):
        with pytest.raises(BadInput, match="expert"):
            campaigns.update_campaign(db, campaign, cast.ada, **{field: value})
