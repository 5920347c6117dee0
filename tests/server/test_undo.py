"""Taking back: within the window, only what nothing builds on, and nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from server.errors import Conflict
from server.models import Comparison, Undone
from server.services.chat import dialogue, queue
from server.services.data import datasets
from server.services.data.dataset_selection import DatasetSelection
from server.services.ways import feedback, undo
from tests import factories

KEY = "key-of-the-page"


def test_the_last_choice_comes_back_whole(db: Session, cast) -> None:
    campaign = factories.campaign(db, overlap=2, max_turns=1)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    stored, _ = feedback.store_comparison(db, cast.alice, turn.id, 2, 4000, KEY, "Clearer.")
    assert (turn.conversation.status, turn.queue_id) == ("finished", campaign.id)
    assert undo.undo(db, cast.alice, campaign) is turn
    assert (turn.status, turn.continued_by_id, turn.queue_id, turn.conversation.status) == ("ready", None, None, "open")
    kept = db.query(Undone).one()
    assert (kept.kind, kept.person_id, kept.turn_id) == ("comparison", cast.alice.id, turn.id)
    assert (kept.answer["id"], kept.answer["justification"], kept.answer["strength"]) == (stored.id, "Clearer.", 3)
    assert db.query(Comparison).count() == 0
    again, new = feedback.store_comparison(db, cast.alice, turn.id, 8, 4000, "another-key")
    assert new
    assert again.picked_id == turn.candidates[1].id


@pytest.mark.parametrize("why", ["too late", "later turn", "frozen", "off", "nothing"])
def test_what_cannot_be_taken_back(db: Session, cast, why: str) -> None:
    campaign = factories.campaign(db, undo_seconds=0 if why == "off" else 60)
    talk = factories.conversation(db, campaign, cast.alice)
    turn = factories.turn(db, talk)
    if why != "nothing":
        stored, _ = feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
        if why == "too late":
            stored.created_at = datetime.now(UTC) - timedelta(seconds=61)
        db.flush()
    if why == "later turn":
        factories.turn(db, talk, "And then?")
    if why == "frozen":
        datasets.freeze(db, DatasetSelection())
    with pytest.raises(Conflict, match="taken back"):
        undo.undo(db, cast.alice, campaign)
    assert db.query(Undone).count() == 0


def test_only_ones_own(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
    with pytest.raises(Conflict):
        undo.undo(db, cast.bob, campaign)


def test_not_while_another_conversation_is_open(db: Session, cast) -> None:
    campaign = factories.campaign(db, max_turns=1)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
    factories.conversation(db, campaign, cast.alice)
    with pytest.raises(Conflict, match="another conversation"):
        undo.undo(db, cast.alice, campaign)


def test_an_item_is_open_for_the_same_person_again(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    turn = factories.item(db, campaign)
    assert queue.offer(db, cast.bob, campaign) is turn
    feedback.store_comparison(db, cast.bob, turn.id, 1, 4000, KEY)
    assert (turn.queue_id, turn.status) == (None, "compared")
    assert undo.undo(db, cast.bob, campaign) is turn
    assert queue.offer(db, cast.mallory, campaign) is None  # bob holds its only place
    assert queue.offer(db, cast.bob, campaign) is turn


def test_through_the_page(client, db, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="talk")
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    db.commit()
    csrf = sign_in(cast.alice)
    assert "/chat/talk/undo" not in client.get("/chat/talk").text
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
    assert "/chat/talk/undo" in client.get("/chat/talk").text
    assert client.post("/chat/talk/undo", data={"csrf_token": csrf}).status_code == 303
    refused = client.post("/chat/talk/undo", data={"csrf_token": csrf}, headers={"accept": "text/html"})
    assert (refused.status_code, "taken back" in refused.text) == (409, True)
    assert dialogue.open_conversation(db, cast.alice, campaign) is turn.conversation


def test_a_place_is_kept_for_the_own_person_who_took_theirs_back_too(db: Session, cast) -> None:
    campaign = factories.campaign(db, overlap=2)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 100, "key-of-alice")
    assert queue.offer(db, cast.bob, campaign) is turn
    feedback.store_comparison(db, cast.bob, turn.id, 1, 100, "key-of-bob-1")
    undo.undo(db, cast.alice, campaign)
    undo.undo(db, cast.bob, campaign)
    assert queue.offer(db, cast.mallory, campaign) is None  # both places are somebody's
    feedback.store_comparison(db, cast.alice, turn.id, 2, 100, "key-of-alice-2")
    feedback.store_comparison(db, cast.bob, turn.id, 2, 100, "key-of-bob-2")
    assert (db.query(Comparison).count(), turn.queue_id) == (2, None)
