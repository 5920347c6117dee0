"""Openings in store: sampled ahead, taken once, overtaken by deployments and settings, never more than asked for."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from server.db import session_factory
from server.models import Campaign, Candidate, Conversation, Deployment, Person, Prompt, Turn
from server.services.campaigns import campaigns
from server.services.chat import dialogue
from server.services.items import openings
from server.services.snapshots import deployments
from tests import factories

KEY = "key-of-the-page"


def with_pool(db: Session, count: int = 6, **settings: Any) -> Campaign:
    campaign = factories.campaign(db, **({"prepared": 3} | settings))
    for number in range(count):
        db.add(Prompt(campaign_id=campaign.id, text=f"Question {number}?"))
    db.flush()
    return campaign


def whole(db: Session, campaign: Campaign) -> list[Turn]:
    """Fill the store and write its replies, as a worker would."""
    turns = [db.get_one(Turn, one) for one in openings.prepare(db, campaign, None)]
    for turn in turns:
        for candidate in turn.candidates:
            candidate.text, candidate.status = f"Reply {candidate.position}.", "done"
        turn.status = "ready"
    db.flush()
    return turns


def test_the_store_is_filled_to_what_is_asked_for_and_no_further(db: Session) -> None:
    campaign = with_pool(db)
    assert len(openings.prepare(db, campaign, None)) == 3
    assert openings.prepare(db, campaign, None) == []
    assert {task for task, _ids in db.info.pop("tasks")} == {"reply"}
    stored = db.query(Conversation).filter_by(source="prepared").all()
    assert len({each.prompt_id for each in stored}) == 3
    assert all(each.person_id is None for each in stored)


def test_a_suggestion_in_store_is_there_at_once_with_its_provenance(db: Session, cast) -> None:
    campaign = with_pool(db)
    turn = whole(db, campaign)[0]
    seeds = [candidate.seed for candidate in turn.candidates]
    (first, *_rest) = openings.draw(db, campaign, 3)
    assert first.id in {one.prompt_id for one in db.query(Conversation).filter_by(source="prepared")}
    taken = dialogue.send_message(db, cast.alice, campaign, turn.message, KEY, turn.conversation.prompt_id)
    assert taken is turn
    assert (taken.status, taken.conversation.person_id, taken.conversation.source) == ("ready", cast.alice.id, "chat")
    assert [candidate.seed for candidate in taken.candidates] == seeds
    assert dialogue.send_message(db, cast.alice, campaign, turn.message, KEY, turn.conversation.prompt_id) is turn
    assert len(openings.prepare(db, campaign, None)) == 1  # its place is filled again


def test_a_changed_suggestion_is_a_message_of_its_own(db: Session, cast) -> None:
    campaign = with_pool(db)
    stored = whole(db, campaign)[0]
    turn = dialogue.send_message(db, cast.alice, campaign, "Something else?", KEY, stored.conversation.prompt_id)
    assert turn is not stored
    assert (turn.status, turn.conversation.prompt_id) == ("sampling", None)


@pytest.mark.parametrize("what", ["deployment", "temperature", "pairing", "paused", "quota", "declined"])
def test_what_is_overtaken_is_put_away(db: Session, cast, what: str) -> None:
    campaign = with_pool(db, count=3)
    stored = whole(db, campaign)[0]
    stored_id, message, prompt_id = stored.id, stored.message, stored.conversation.prompt_id
    refusal = None
    if what == "deployment":
        db.query(Deployment).filter_by(campaign_id=campaign.id).one().created_at = stored.created_at
        db.query(Turn).update({Turn.created_at: Turn.created_at - timedelta(seconds=5)})
        deployments.deploy(db, campaign, [(factories.snapshot(db), 1.0)], reason="newer")
    elif what == "temperature":
        campaign.temperature = 0.5
    elif what == "pairing":
        campaigns.update_campaign(db, campaign, cast.ada, pairing="one")
    elif what == "declined":
        db.get_one(Prompt, prompt_id).status = "declined"
    else:
        refusal = "No."
    db.flush()
    made = openings.prepare(db, campaign, refusal)
    gone = db.query(Turn).filter_by(id=stored_id).count() == 0
    if what in ("paused", "quota"):
        assert (made, gone) == ([], False)  # it may go on as it was
    else:
        assert gone
        turn = dialogue.send_message(db, cast.alice, campaign, message, KEY, prompt_id)
        assert turn.id != stored_id


def test_a_broken_model_is_tried_again_later_and_its_successor_at_once(db: Session) -> None:
    campaign = with_pool(db)
    for number in openings.prepare(db, campaign, None):
        db.get_one(Turn, number).status = "failed"
    db.flush()
    assert openings.prepare(db, campaign, None) == []
    assert openings.prepare(db, campaign, None) == []  # what tells of the failure is still there
    assert openings.failed_lately(db, campaign) is not None
    db.query(Deployment).update({Deployment.created_at: Deployment.created_at - timedelta(minutes=9)})
    db.query(Turn).update({Turn.created_at: Turn.created_at - timedelta(minutes=6)})
    assert openings.failed_lately(db, campaign) is None
    fresh = openings.prepare(db, campaign, None)
    assert len(fresh) == 3
    assert {turn.id for turn in db.query(Turn)} == set(fresh)  # the failed ones are removed
    for number in fresh:
        db.get_one(Turn, number).status = "failed"
    db.query(Turn).update({Turn.created_at: Turn.created_at - timedelta(seconds=5)})
    deployments.deploy(db, campaign, [(factories.snapshot(db), 1.0)], reason="mended")
    assert openings.failed_lately(db, campaign) is None
    assert len(openings.prepare(db, campaign, None)) == 3


def test_people_come_first(db: Session, cast) -> None:
    campaign = with_pool(db)
    dialogue.send_message(db, cast.alice, campaign, "I wait.", KEY)
    assert openings.prepare(db, campaign, None) == []


def test_held_out_and_proposed_prompts_are_never_drawn(db: Session) -> None:
    campaign = factories.campaign(db)
    for split, status in (("held_out", "accepted"), ("train", "proposed"), ("train", "accepted")):
        db.add(Prompt(campaign_id=campaign.id, text=f"{split} {status}", split=split, status=status))
    db.flush()
    assert [prompt.text for prompt in openings.draw(db, campaign, 5)] == ["train accepted"]


def test_two_people_never_get_the_same_one(committed: str) -> None:
    new_session = session_factory(committed)
    with new_session.begin() as db:
        campaign = with_pool(db, count=1)
        turn = whole(db, campaign)[0]
        people = [factories.person(db, f"P{number}").id for number in range(6)]
        ids = campaign.id, turn.conversation.prompt_id, turn.message
    gate = threading.Barrier(6)
    got: list[tuple[int, str]] = []

    def take(person_id: int) -> None:
        gate.wait()
        with new_session.begin() as db:
            person, where = db.get_one(Person, person_id), db.get_one(Campaign, ids[0])
            turn = dialogue.send_message(db, person, where, ids[2], KEY, ids[1])
            got.append((turn.id, turn.status))

    threads = [threading.Thread(target=take, args=(each,)) for each in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({turn_id for turn_id, _status in got}) == 6
    assert sorted(status for _turn_id, status in got) == ["ready", *["sampling"] * 5]
    with new_session() as db:
        assert db.query(Candidate).count() == 12
