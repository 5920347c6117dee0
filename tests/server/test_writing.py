"""What people write: demonstrations, prompts for a pool, and better versions of a reply."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound, TooLarge
from server.models import Demonstration, Draft, Edit, Prompt, Undone
from server.services.campaigns import prompt_review
from server.services.chat import dialogue, edits, queue
from server.services.items import openings
from server.services.ways import demonstrations, feedback, prompt_writing, undo
from server.services.working import drafts
from server.services.working.answers import Sent
from tests import factories

KEY = "key-of-the-page"


def test_a_demonstration_is_stored_once_with_its_draft_gone(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="demonstration")
    turn = factories.item(db, campaign, replies=())
    assert queue.offer(db, cast.alice, campaign) is turn
    drafts.save(db, cast.alice, drafts.turn_place("demonstration", turn), "For n")
    with pytest.raises(BadInput, match="nothing in the box"):
        demonstrations.store_demonstration(db, cast.alice, turn.id, "  \n", Sent(1, KEY))
    with pytest.raises(TooLarge):
        demonstrations.store_demonstration(db, cast.alice, turn.id, "x" * 50_001, Sent(1, KEY))
    noticed = {"typed_chars": 10, "pasted_chars": 400}
    row, new = demonstrations.store_demonstration(
        db, cast.alice, turn.id, " For nine\r\nminutes. ", Sent(7000, KEY, noticed=noticed)
    )
    assert (row.text, row.milliseconds, row.signals, new) == ("For nine\nminutes.", 7000, noticed, True)
    assert demonstrations.store_demonstration(db, cast.alice, turn.id, "Other.", Sent(1, KEY)) == (row, False)
    assert (turn.status, turn.queue_id, db.query(Draft).count()) == ("compared", None, 0)
    with pytest.raises(NotFound):
        demonstrations.store_demonstration(db, cast.bob, turn.id, "Mine.", Sent(1, KEY))
    assert undo.undo(db, cast.alice, campaign) is turn
    assert (db.query(Undone).one().kind, db.query(Demonstration).count()) == ("demonstration", 0)


def test_the_chat_goes_on_from_the_improved_reply(db: Session, cast) -> None:
    campaign = factories.campaign(db, edits="optional", max_turns=2)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    with pytest.raises(Conflict, match="cannot be improved"):
        edits.store_edit(db, cast.alice, turn.id, "For nine minutes.", Sent(1, KEY))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
    with pytest.raises(BadInput, match="as it was"):
        edits.store_edit(db, cast.alice, turn.id, "In water. ", Sent(1, KEY))
    with pytest.raises(NotFound):
        edits.store_edit(db, cast.bob, turn.id, "Mine.", Sent(1, KEY))
    row, new = edits.store_edit(db, cast.alice, turn.id, "In water, for nine minutes.", Sent(5000, KEY))
    assert (row.original_id, row.milliseconds, new) == (turn.candidates[0].id, 5000, True)
    assert edits.store_edit(db, cast.alice, turn.id, "Other.", Sent(1, KEY)) == (row, False)
    with pytest.raises(Conflict, match="already answered"):
        edits.store_edit(db, cast.alice, turn.id, "Other.", Sent(1, "another-key"))
    later = dialogue.send_message(db, cast.alice, campaign, "And then?", "key-of-the-next")
    assert [each["content"] for each in dialogue.transcript(db, later)] == [
        "How do I boil an egg?", "In water, for nine minutes.", "And then?",
    ]  # fmt: skip


def test_an_edit_that_must_be_made_and_the_last_one_ends_the_chat(db: Session, cast) -> None:
    campaign = factories.campaign(db, edits="required", max_turns=2)
    talk = factories.conversation(db, campaign, cast.alice)
    turn = factories.turn(db, talk)
    feedback.store_comparison(db, cast.alice, turn.id, 8, 4000, KEY)
    with pytest.raises(Conflict, match="First improve"):
        dialogue.send_message(db, cast.alice, campaign, "And then?", "key-of-the-next")
    edits.store_edit(db, cast.alice, turn.id, "Yes.", Sent(1, KEY))
    last = factories.turn(db, talk, "And then?")
    feedback.store_comparison(db, cast.alice, last.id, 1, 4000, "key-of-the-last")
    assert talk.status == "open"
    edits.store_edit(db, cast.alice, last.id, "In hot water.", Sent(1, "key-of-the-end"))
    assert talk.status == "finished"


def test_in_red_team_campaigns_the_less_harmful_reply_is_improved(db: Session, cast) -> None:
    campaign = factories.campaign(db, mode="red_team", edits="optional")
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)  # A is more harmful
    row, _new = edits.store_edit(db, cast.alice, turn.id, "No, and here is why.", Sent(1, KEY))
    assert row.original_id == turn.candidates[1].id


def test_a_later_message_or_a_tie_leaves_nothing_to_improve(db: Session, cast) -> None:
    campaign = factories.campaign(db, edits="optional", ties=True)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, None, 4000, KEY, verdict="tie")
    assert edits.wanted(db, campaign, turn) is None
    undo.undo(db, cast.alice, campaign)
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, "another-key")
    assert edits.wanted(db, campaign, turn) is turn.candidates[0]
    dialogue.send_message(db, cast.alice, campaign, "And then?", "key-of-the-next")
    assert edits.wanted(db, campaign, turn) is None
    with pytest.raises(Conflict):
        edits.store_edit(db, cast.alice, turn.id, "Too late.", Sent(1, KEY))


def test_a_written_prompt_is_drawn_only_once_accepted(db: Session, cast) -> None:
    pool = factories.campaign(db)
    campaign = factories.campaign(db, way="prompts", pool_id=pool.id)
    row, new = prompt_writing.propose(db, cast.alice, campaign, " How do kites fly? ", Sent(3000, KEY))
    assert (row.campaign_id, row.written_in_id, row.author_id, row.status, row.text, new) == (
        pool.id, campaign.id, cast.alice.id, "proposed", "How do kites fly?", True,
    )  # fmt: skip
    assert prompt_writing.propose(db, cast.alice, campaign, "Other", Sent(1, KEY)) == (row, False)
    with pytest.raises(Conflict, match="there already"):
        prompt_writing.propose(db, cast.bob, campaign, "How do kites fly?", Sent(1, KEY))
    assert openings.draw(db, pool, 5) == []
    assert prompt_review.proposed(db) == [(row, "Alice", campaign.name)]
    assert prompt_review.decide(db, cast.ada, [row.id], "accepted") == 1
    assert prompt_review.decide(db, cast.ada, [row.id], "declined") == 0  # decided is decided
    assert [prompt.text for prompt in openings.draw(db, pool, 5)] == ["How do kites fly?"]
    with pytest.raises(Conflict):
        prompt_writing.withdraw(db, cast.alice, campaign, row.id)


def test_what_only_measures_is_never_drawn_for_training(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="prompts", purpose="evaluation")
    row, _new = prompt_writing.propose(db, cast.alice, campaign, "How do kites fly?", Sent(1, KEY))
    prompt_review.decide(db, cast.ada, [row.id], "accepted", "train")
    assert row.split == "held_out"


def test_an_own_prompt_is_taken_back_while_nobody_has_decided(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="prompts", undo_seconds=60)
    row, _new = prompt_writing.propose(db, cast.alice, campaign, "How do kites fly?", Sent(1, KEY))
    with pytest.raises(NotFound):
        prompt_writing.withdraw(db, cast.bob, campaign, row.id)
    assert prompt_writing.withdraw(db, cast.alice, campaign, row.id) == "How do kites fly?"
    assert (db.query(Prompt).count(), db.query(Undone).one().kind) == (0, "prompt")
    assert drafts.load(db, cast.alice, drafts.prompt_place(campaign)) == "How do kites fly?"
    late, _new = prompt_writing.propose(db, cast.alice, campaign, "How do planes fly?", Sent(1, "another-key"))
    late.created_at = datetime.now(UTC) - timedelta(seconds=61)
    db.flush()
    with pytest.raises(Conflict):
        prompt_writing.withdraw(db, cast.alice, campaign, late.id)


def test_a_full_campaign_takes_no_more(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="prompts", quota=1)
    prompt_writing.propose(db, cast.alice, campaign, "How do kites fly?", Sent(1, KEY))
    with pytest.raises(Conflict, match="all the answers"):
        prompt_writing.propose(db, cast.bob, campaign, "How do planes fly?", Sent(1, KEY))


def test_pages_and_forms(client, db: Session, cast, sign_in) -> None:
    shown = factories.campaign(db, way="demonstration")
    turn = factories.item(db, shown, "How do kites fly?", replies=())
    asked = factories.campaign(db, way="prompts")
    chat = factories.campaign(db, edits="optional")
    sign_in(cast.alice)
    page = client.get(f"/chat/{shown.slug}").text
    assert "How do kites fly?" in page
    form = {"turn_id": turn.id, "idempotency_key": KEY, "text": " "}
    refused = client.post(f"/chat/{shown.slug}/demonstration", data=form)
    assert (refused.status_code, "nothing in the box" in refused.text) == (422, True)
    stored = client.post(f"/chat/{shown.slug}/demonstration", data=form | {"text": "By lift."})
    assert stored.status_code == 303
    assert "There is nothing to do now" in client.get(f"/chat/{shown.slug}").text
    client.post(f"/chat/{asked.slug}/prompt", data={"idempotency_key": KEY, "text": "Why is the sea salty?"})
    written = client.get(f"/chat/{asked.slug}").text
    assert "Why is the sea salty?" in written
    assert "waiting" in written
    row = db.query(Prompt).one()
    client.post(f"/chat/{asked.slug}/prompts/{row.id}/withdraw")
    assert "Why is the sea salty?</textarea>" in client.get(f"/chat/{asked.slug}").text
    own = factories.turn(db, factories.conversation(db, chat, cast.alice))
    feedback.store_comparison(db, cast.alice, own.id, 1, 4000, KEY)
    page = client.get(f"/chat/{chat.slug}").text
    assert "In water.</textarea>" in page
    told = client.post(
        f"/api/turns/{own.id}/edit", json={"text": "In hot water.", "milliseconds": 10, "idempotency_key": KEY}
    )
    assert told.status_code == 201
    assert db.query(Edit).one().text == "In hot water."
    sign_in(cast.ada)
    prompt_writing.propose(db, cast.alice, asked, "Why is the sky blue?", Sent(1, "another-key"))
    assert "Why is the sky blue?" in client.get("/admin/prompts").text
    waiting = db.query(Prompt).one()
    client.post("/admin/prompts", data={"prompt_id": waiting.id, "decision": "declined"})
    assert waiting.status == "declined"


def test_the_box_of_a_red_team_campaign_says_whose_reply_it_holds(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="attack", mode="red_team", edits="optional", max_turns=3)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice), replies=("Worse.", "Better."))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 4000, KEY)
    turn.continued_by_id = turn.candidates[0].id  # the chat goes on from the worse one
    db.commit()
    sign_in(cast.alice)
    page = client.get("/chat/attack").text
    assert "Improve the less harmful reply, if you like" in page and ">Better.</textarea>" in page
    assert "goes on from your version" not in page


def test_a_tie_on_the_last_turn_ends_the_chat_though_edits_are_asked_for(db: Session, cast) -> None:
    campaign = factories.campaign(db, edits="required", ties=True, max_turns=1)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, None, 4000, KEY, verdict="tie")
    assert turn.conversation.status == "finished"
