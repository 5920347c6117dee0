"""The conversation: what a message makes, when it is refused, and what a lease does."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, Conflict, NotFound, TooLarge
from server.models import Campaign, Candidate, Conversation, Lease, Person, Prompt, Turn
from server.routes import chat_view
from server.services.chat import dialogue, failures
from server.services.items import openings
from server.services.working import drafts, leases
from tests import factories

KEY = "key-of-the-page"


def expire(db: Session, person: Person) -> None:
    for lease in db.query(Lease).filter_by(person_id=person.id):
        lease.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    db.flush()


def test_a_message_makes_a_turn_with_two_queued_candidates(db: Session, cast) -> None:
    campaign = factories.campaign(db, temperature=0.7, top_p=0.9, max_new_tokens=64)
    turn = dialogue.send_message(db, cast.alice, campaign, "  Hello  ", KEY)
    assert (turn.message, turn.position, turn.status) == ("Hello", 1, "sampling")
    left, right = turn.candidates
    assert (left.position, right.position) == (0, 1)
    assert left.seed != right.seed
    assert left.sampling == {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 64}
    assert {each.status for each in turn.candidates} == {"queued"}
    assert db.info["tasks"] == [("reply", {"turn_id": turn.id})]


def test_the_same_key_is_the_same_turn(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    first = dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    assert dialogue.send_message(db, cast.alice, campaign, "Hello", KEY) is first
    assert db.query(Turn).count() == 1


def test_a_message_sent_by_many_at_once_is_stored_once(committed: str) -> None:
    new_session = session_factory(committed)
    with new_session.begin() as db:
        alice, campaign = factories.person(db, "Alice"), factories.campaign(db)
        ids = alice.id, campaign.id
    turn_ids: list[int] = []
    gate = threading.Barrier(6)

    def send() -> None:
        gate.wait()
        with new_session.begin() as db:
            person, where = db.get_one(Person, ids[0]), db.get_one(Campaign, ids[1])
            turn_ids.append(dialogue.send_message(db, person, where, "Hello", KEY).id)

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(turn_ids) == 6
    assert len(set(turn_ids)) == 1
    with new_session() as db:
        assert (db.query(Conversation).count(), db.query(Turn).count(), db.query(Candidate).count()) == (1, 1, 2)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", BadInput, "empty"),
        (" \n\t ", BadInput, "empty"),
        ("x" * 102_400, TooLarge, "at most 8,000"),
        ("a\0b", BadInput, "U+0000"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_reason(db: Session, cast, text, error, words) -> None:
    with pytest.raises(error, match=words.replace("+", r"\+")):
        dialogue.send_message(db, cast.alice, factories.campaign(db), text, KEY)
    assert db.query(Conversation).count() == 0


def test_the_next_message_waits_for_the_choice(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    with pytest.raises(Conflict, match="First choose"):
        dialogue.send_message(db, cast.alice, campaign, "More", KEY)
    factories.comparison(db, turn, cast.alice)
    assert dialogue.send_message(db, cast.alice, campaign, "More", KEY).position == 2


def test_a_conversation_ends_at_its_limit(db: Session, cast) -> None:
    campaign = factories.campaign(db, max_turns=1)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    factories.comparison(db, turn, cast.alice)
    with pytest.raises(Conflict, match="reached its one turn"):
        dialogue.send_message(db, cast.alice, campaign, "More", KEY)


@pytest.mark.parametrize(("changes", "words"), [({"status": "paused"}, "paused"), ({"quota": 1}, "all the answers")])
def test_a_campaign_that_takes_nothing_says_so(db: Session, cast, changes, words) -> None:
    campaign = factories.campaign(db, **changes)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.bob))
    factories.comparison(db, turn, cast.bob)
    with pytest.raises(Conflict, match=words):
        dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)


def test_a_closed_campaign_is_not_there(db: Session) -> None:
    with pytest.raises(NotFound):
        dialogue.find_campaign(db, factories.campaign(db, status="closed").slug)


def test_the_transcript_follows_the_replies_that_carried_on(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    conversation = factories.conversation(db, campaign, cast.alice)
    first = factories.turn(db, conversation, "One?", ("left", "right"))
    factories.comparison(db, first, cast.alice, picked=1)
    second = factories.turn(db, conversation, "Two?", ("a", "b"))
    assert dialogue.transcript(db, second) == [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "right"},
        {"role": "user", "content": "Two?"},
    ]


def test_a_stale_lease_is_a_conflict_and_keeps_what_was_typed(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    turn = dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    drafts.save(db, cast.alice, drafts.message_place(campaign), "half a thought")
    expire(db, cast.alice)
    with pytest.raises(Conflict, match="expired"):
        dialogue.check_lease(db, cast.alice, turn.conversation)
    conversation, expired = dialogue.visit(db, cast.alice, campaign)
    assert (conversation, expired) == (None, True)
    assert turn.conversation.status == "abandoned"
    assert drafts.load(db, cast.alice, drafts.message_place(campaign)) == "half a thought"
    with pytest.raises(Conflict, match="expired"):
        dialogue.send_message(db, cast.alice, campaign, "On", "another-key", conversation_id=turn.conversation_id)


def test_activity_renews_the_lease(db: Session, cast) -> None:
    campaign = factories.campaign(db, lease_minutes=30)
    turn = dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    lease = leases.find(db, cast.alice, turn.conversation)
    lease.expires_at = datetime.now(UTC) + timedelta(minutes=1)
    db.flush()
    dialogue.visit(db, cast.alice, campaign)
    assert lease.expires_at > datetime.now(UTC) + timedelta(minutes=29)


def test_the_sweep_closes_what_was_left(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    left = dialogue.send_message(db, cast.alice, campaign, "Hello", KEY).conversation
    kept = dialogue.send_message(db, cast.bob, campaign, "Hello", KEY).conversation
    for lease in db.query(Lease).filter_by(person_id=cast.alice.id):
        lease.expires_at = datetime.now(UTC) - timedelta(days=1)
    db.flush()
    assert leases.abandon_expired(db) == 1
    db.expire_all()
    assert (left.status, kept.status) == ("abandoned", "open")
    # Whoever comes back is told, until the next conversation begins.
    assert dialogue.visit(db, cast.alice, campaign) == (None, True)
    assert dialogue.visit(db, cast.alice, campaign) == (None, True)
    dialogue.send_message(db, cast.alice, campaign, "Again", "another-key")
    dialogue.finish(db, cast.alice, campaign)
    assert dialogue.visit(db, cast.alice, campaign) == (None, False)


def test_the_sweep_leaves_the_last_instant_of_a_lease_alone(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    expire(db, cast.alice)
    assert leases.abandon_expired(db) == 0


def test_a_failed_turn_is_asked_for_again(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    turn = dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    done, failed = turn.candidates
    done.status, done.text = "done", "kept"
    failed.status, failed.failure, failed.attempts = "failed", "no weights", 3
    turn.status, turn.failure = "failed", "no weights"
    db.flush()
    db.info.pop("tasks")
    assert dialogue.retry_turn(db, cast.alice, turn.id) == (turn, True)
    assert dialogue.retry_turn(db, cast.alice, turn.id) == (turn, False)  # under way: nothing begins anew
    assert (turn.status, turn.failure, done.status, failed.status, failed.attempts) == (
        "sampling",
        None,
        "done",
        "queued",
        0,
    )
    assert db.info["tasks"] == [("reply", {"turn_id": turn.id})]
    with pytest.raises(NotFound):
        dialogue.retry_turn(db, cast.bob, turn.id)


def test_finishing_makes_room_for_another(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    first = dialogue.send_message(db, cast.alice, campaign, "Hello", KEY).conversation
    assert dialogue.finish(db, cast.alice, campaign) is first
    assert first.status == "finished"
    assert dialogue.finish(db, cast.alice, campaign) is None
    assert dialogue.send_message(db, cast.alice, campaign, "Hi", "another-key").conversation is not first


def test_a_message_that_got_no_reply_is_in_the_box_of_the_next_conversation(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    turn = dialogue.send_message(db, cast.alice, campaign, "A long story", KEY)
    turn.status, turn.failure = "failed", failures.TOO_LONG
    view = chat_view.build_view(db, cast.alice, campaign)
    assert view.pair is not None and view.pair.hopeless
    dialogue.finish(db, cast.alice, campaign)
    place = drafts.message_place(campaign)
    assert drafts.load(db, cast.alice, place) == "A long story"
    other = dialogue.send_message(db, cast.alice, campaign, "Another", "another-key")
    other.status, other.failure = "failed", "no weights"
    drafts.save(db, cast.alice, place, "What I typed since")
    assert not chat_view.build_view(db, cast.alice, campaign).pair.hopeless
    dialogue.finish(db, cast.alice, campaign)
    assert drafts.load(db, cast.alice, place) == "What I typed since"


def test_suggestions_are_never_held_out(db: Session) -> None:
    campaign = factories.campaign(db)
    db.add_all(
        Prompt(campaign_id=campaign.id, text=f"{split} {n}", split=split)
        for n in range(5)
        for split in ("train", "held_out")
    )
    db.flush()
    assert {prompt.split for prompt in openings.draw(db, campaign, 50)} == {"train"}


def test_a_prompt_is_noted_only_when_sent_as_it_stands(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    prompt = Prompt(campaign_id=campaign.id, text="How do tides work?")
    db.add(prompt)
    db.flush()
    same = dialogue.send_message(db, cast.alice, campaign, "How do tides work?", KEY, prompt.id)
    changed = dialogue.send_message(db, cast.bob, campaign, "How do tides work? In verse.", KEY, prompt.id)
    assert (same.conversation.prompt_id, changed.conversation.prompt_id) == (prompt.id, None)


def test_drafts_have_their_places_and_limits(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    place = drafts.message_place(campaign)
    assert drafts.place_of(db, place) is campaign
    drafts.save(db, cast.alice, place, "one")
    drafts.save(db, cast.alice, place, "two")
    assert (drafts.load(db, cast.alice, place), drafts.load(db, cast.bob, place)) == ("two", "")
    drafts.save(db, cast.alice, place, "")
    assert drafts.load(db, cast.alice, place) == ""
    with pytest.raises(BadInput):
        drafts.place_of(db, "message:0; DROP")
    with pytest.raises(TooLarge, match="100,000"):
        drafts.save(db, cast.alice, place, "x" * 100_001)
    with pytest.raises(NotFound):
        drafts.place_of(db, "message:999999")
