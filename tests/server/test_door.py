"""The door: each condition in its order, what is in hand may be finished, and nobody passes but by the door."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotAllowed, NotFound
from server.models import CheckResult, Comparison, Membership, Question
from server.services.campaigns import campaigns
from server.services.chat import dialogue, own_success, queue
from server.services.door import door, members, qualifying
from server.services.ways import feedback, prompt_writing, remarks
from server.services.working.answers import Sent
from server.services.working.instructions import new_instructions
from tests import factories

KEY = "key-of-the-page"


def step(db: Session, person, campaign) -> str:
    return door.standing(db, person, campaign).step


def test_an_open_campaign_asks_nothing(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    found = door.standing(db, cast.alice, campaign)
    assert (found.step, found.sentence, found.membership, found.instructions_are_new) == ("ready", "", None, True)
    door.confirm_instructions(db, cast.alice, campaign, found.instructions_id)
    assert not door.standing(db, cast.alice, campaign).instructions_are_new
    new_instructions(db, campaign, "Pick the kinder reply.", cast.ada)
    assert door.standing(db, cast.alice, campaign).instructions_are_new
    assert door.standing(db, cast.alice, campaign).instructions_have_changed
    found = door.standing(db, cast.bob, campaign)  # who has confirmed none
    assert found.instructions_are_new and not found.instructions_have_changed
    with pytest.raises(BadInput):
        other = factories.campaign(db)
        door.confirm_instructions(db, cast.alice, other, found.instructions_id)


def test_members_only(db: Session, cast) -> None:
    campaign = factories.campaign(db, access="members")
    assert step(db, cast.alice, campaign) == "members_only"
    with pytest.raises(NotAllowed, match="chosen"):
        dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    members.add(db, cast.ada, campaign, cast.alice.email)
    assert step(db, cast.alice, campaign) == "ready"
    dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    with pytest.raises(NotFound, match="Nobody"):
        members.add(db, cast.ada, campaign, "nobody@example.org")


def test_consent_is_to_a_text(db: Session, cast) -> None:
    campaign = factories.campaign(db, consent="It may upset you.", way="pairs")
    turn = factories.item(db, campaign)
    assert step(db, cast.alice, campaign) == "consent"
    assert queue.offer(db, cast.alice, campaign) is None
    with pytest.raises(Conflict, match="changed"):
        door.agree(db, cast.alice, campaign, "0" * 64)
    door.agree(db, cast.alice, campaign, door.consent_hash(campaign))
    assert queue.offer(db, cast.alice, campaign) is turn
    campaign.consent = "It may upset you a lot."
    db.flush()
    assert step(db, cast.alice, campaign) == "consent"
    assert queue.offer(db, cast.alice, campaign) is turn  # in hand: it may be finished
    feedback.store_comparison(db, cast.alice, turn.id, 1, 100, KEY)
    factories.item(db, campaign)
    assert queue.offer(db, cast.alice, campaign) is None
    door.decline(db, cast.alice, campaign)
    assert step(db, cast.alice, campaign) == "screened_out"
    door.come_back(db, cast.alice, campaign)
    assert step(db, cast.alice, campaign) == "consent"


def questions(db: Session, campaign, admin) -> list[Question]:
    for number in range(3):
        members.add_question(db, admin, campaign, f"Question {number}?", "Yes\n* No\nPerhaps", "Because.")
    return qualifying.questions(db, campaign)


def test_the_test_opens_or_closes_the_campaign(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    with pytest.raises(BadInput, match="Add a question"):
        campaigns.update_campaign(db, campaign, cast.ada, pass_mark="0.6")
    asked = questions(db, campaign, cast.ada)
    campaigns.update_campaign(db, campaign, cast.ada, pass_mark="0.6", test_attempts="2")
    right = {question.id: 1 for question in asked}
    with pytest.raises(NotAllowed, match="test"):
        dialogue.send_message(db, cast.alice, campaign, "Hello", KEY)
    with pytest.raises(BadInput, match="every question"):
        qualifying.take_test(db, cast.alice, campaign, {asked[0].id: 1}, KEY)
    two = right | {asked[2].id: 0}
    first = qualifying.take_test(db, cast.alice, campaign, two, KEY)
    assert (first.correct_count, first.question_count, first.passed) == (2, 3, True)  # 2 of 3 is above 0.6
    assert qualifying.take_test(db, cast.alice, campaign, {}, KEY) is first
    assert step(db, cast.alice, campaign) == "ready"
    with pytest.raises(Conflict):
        qualifying.take_test(db, cast.alice, campaign, right, "another-key")
    wrong = {question.id: 0 for question in asked}
    assert not qualifying.take_test(db, cast.bob, campaign, wrong, "key-of-bob-1").passed
    assert step(db, cast.bob, campaign) == "test"
    qualifying.take_test(db, cast.bob, campaign, wrong, "key-of-bob-2")
    assert step(db, cast.bob, campaign) == "screened_out"
    with pytest.raises(Conflict):
        qualifying.take_test(db, cast.bob, campaign, right, "key-of-bob-3")
    members.reinstate(db, cast.ada, campaign, cast.bob.id)
    assert step(db, cast.bob, campaign) == "ready"
    assert qualifying.results(db, campaign) == {cast.alice.id: (1, True, 2, 3), cast.bob.id: (2, False, 0, 3)}


def test_a_pass_mark_is_met_exactly(db: Session, cast) -> None:
    campaign = factories.campaign(db, pass_mark=0.7)
    for number in range(10):
        members.add_question(db, cast.ada, campaign, f"Question {number}?", "* Yes\nNo")
    asked = qualifying.questions(db, campaign)
    seven = {question.id: 0 if place < 7 else 1 for place, question in enumerate(asked)}
    assert qualifying.take_test(db, cast.alice, campaign, seven, KEY).passed


def test_each_person_sees_the_test_in_an_order_of_their_own(db: Session) -> None:
    campaign = factories.campaign(db, pass_mark=1)
    admin = factories.person(db, "Ada", "admin")
    questions(db, campaign, admin)
    orders = set()
    for number in range(20):
        person = factories.person(db, f"P{number}")
        once, again = (qualifying.asked_of(db, person, campaign) for _time in range(2))
        assert once == again
        assert sorted(once[0].options) == [(0, "Yes"), (1, "No"), (2, "Perhaps")]
        orders.add(tuple((each.id, *each.options) for each in once))
    assert len(orders) > 10


@pytest.mark.parametrize("options", ["Yes", "Yes\nNo", "* Yes\n* No", "* Yes\nYes", "* Yes\n*"])
def test_what_is_no_question(db: Session, cast, options: str) -> None:
    with pytest.raises(BadInput, match="options"):
        members.add_question(db, cast.ada, factories.campaign(db), "Well?", options)


def test_the_last_question_of_a_test_stays(db: Session, cast) -> None:
    campaign = factories.campaign(db, pass_mark=1)
    asked = members.add_question(db, cast.ada, campaign, "Well?", "* Yes\nNo")
    with pytest.raises(Conflict, match="last question"):
        members.retire_question(db, cast.ada, campaign, asked.id)
    more = members.add_question(db, cast.ada, campaign, "Really?", "* Yes\nNo")
    members.retire_question(db, cast.ada, campaign, asked.id)
    assert qualifying.questions(db, campaign) == [more]
    with pytest.raises(NotFound):
        members.retire_question(db, cast.ada, factories.campaign(db), more.id)


def test_a_day_has_an_end_and_what_is_in_hand_is_finished(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", daily_limit=2)
    turns = [factories.item(db, campaign, f"Question {number}?") for number in range(4)]
    assert queue.offer(db, cast.alice, campaign) is turns[0]
    remarks.skip(db, cast.alice, turns[0].id)  # seen is seen
    assert queue.offer(db, cast.alice, campaign) is turns[1]
    stored, _new = feedback.store_comparison(db, cast.alice, turns[1].id, 1, 100, KEY)
    assert step(db, cast.alice, campaign) == "daily_limit"
    assert queue.offer(db, cast.alice, campaign) is None
    assert queue.offer(db, cast.bob, campaign) is turns[0]
    stored.created_at = datetime.now(UTC) - timedelta(days=1, hours=1)
    db.flush()
    assert queue.offer(db, cast.alice, campaign) is turns[2]


def test_excluded_and_left(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    turn = factories.item(db, campaign)
    assert queue.offer(db, cast.alice, campaign) is turn
    with pytest.raises(BadInput, match="Say why"):
        members.exclude(db, cast.ada, campaign, cast.alice.id, " ")
    members.exclude(db, cast.ada, campaign, cast.alice.id, "All the same side.")
    assert "All the same side." in door.standing(db, cast.alice, campaign).sentence
    assert queue.offer(db, cast.bob, campaign) is turn  # its place is free at once
    with pytest.raises(NotAllowed):
        door.come_back(db, cast.alice, campaign)
    with pytest.raises(Conflict):
        feedback.store_comparison(db, cast.alice, turn.id, 1, 100, KEY)
    door.leave(db, cast.bob, campaign)
    assert step(db, cast.bob, campaign) == "left"
    assert queue.offer(db, cast.mallory, campaign) is turn
    door.come_back(db, cast.bob, campaign)
    assert step(db, cast.bob, campaign) == "ready"


def test_leaving_ends_the_chat(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    talk = factories.conversation(db, campaign, cast.alice)
    door.leave(db, cast.alice, campaign)
    assert talk.status == "finished"


def test_prompts_pass_the_door_too(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="prompts", daily_limit=1)
    prompt_writing.propose(db, cast.alice, campaign, "How do kites fly?", Sent(1, KEY))
    with pytest.raises(NotAllowed, match="in a day"):
        prompt_writing.propose(db, cast.alice, campaign, "How do planes fly?", Sent(1, "another-key"))


def test_held_out_people_only_measure(db: Session, cast) -> None:
    campaign = factories.campaign(db)
    members.hold_out(db, cast.ada, cast.alice.id, held_out=True)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice))
    feedback.store_comparison(db, cast.alice, turn.id, 1, 100, KEY)
    assert db.query(Comparison).one().purpose == "evaluation"


def test_success_is_rated_once_by_its_person(db: Session, cast) -> None:
    campaign = factories.campaign(db, mode="red_team", asks_success=True)
    assert own_success.asked(db, cast.alice, campaign) is None
    talk = factories.conversation(db, campaign, cast.alice)
    with pytest.raises(Conflict, match="when it is over"):
        own_success.rate(db, cast.alice, campaign, talk.id, 3)
    talk.status = "finished"
    db.flush()
    assert own_success.asked(db, cast.alice, campaign) == talk.id
    with pytest.raises(NotFound):
        own_success.rate(db, cast.bob, campaign, talk.id, 3)
    with pytest.raises(BadInput):
        own_success.rate(db, cast.alice, campaign, talk.id, 6)
    own_success.rate(db, cast.alice, campaign, talk.id, 3)
    own_success.rate(db, cast.alice, campaign, talk.id, 3)
    with pytest.raises(Conflict, match="already"):
        own_success.rate(db, cast.alice, campaign, talk.id, 4)
    assert (talk.success, own_success.asked(db, cast.alice, campaign)) == (3, None)


def test_the_pages_lead_through(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="guarded", consent="It may *upset* you.")
    asked = members.add_question(
        db, cast.ada, campaign, "Which one?", "* The better\nThe longer", "Length is no virtue."
    )
    campaign.pass_mark = 1
    db.commit()
    sign_in(cast.alice)
    assert client.get("/chat/guarded").headers["location"] == "/chat/guarded/begin"
    page = client.get("/chat/guarded/begin").text
    assert "<em>upset</em>" in page
    client.post("/chat/guarded/consent", data={"sha256": door.consent_hash(campaign), "answer": "yes"})
    page = client.get("/chat/guarded/begin").text
    assert "Which one?" in page
    assert "Pick the better reply." in page
    form = {"idempotency_key": KEY, f"question-{asked.id}": "1", "instructions_id": "1"}
    assert client.post("/chat/guarded/test", data={"idempotency_key": KEY}).status_code == 422
    client.post("/chat/guarded/test", data=form)
    page = client.get("/chat/guarded/begin").text
    assert "0 of 1 right" in page
    assert "Length is no virtue." in page
    client.post("/chat/guarded/test", data={"idempotency_key": "another-key", f"question-{asked.id}": "0"})
    assert client.get("/chat/guarded/begin").headers["location"] == "/chat/guarded"
    assert client.get("/chat/guarded").status_code == 200
    client.post("/chat/guarded/leave")
    assert "Come back" in client.get("/chat/guarded/begin").text
    assert client.get("/chat/guarded/conversation").status_code == 403
    client.post("/chat/guarded/return")
    assert client.get("/chat/guarded").status_code == 200


def test_the_door_as_json(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="guarded", consent="It may upset you.")
    sign_in(cast.alice)
    told = client.get("/api/campaigns/guarded/door").json()
    assert (told["step"], told["consent"]["text"]) == ("consent", "It may upset you.")
    assert client.get("/api/campaigns/guarded/conversation").json()["door"]["step"] == "consent"
    message = {"text": "Hello", "idempotency_key": KEY}
    assert client.post("/api/campaigns/guarded/messages", json=message).status_code == 403
    agreed = client.post("/api/campaigns/guarded/door/consent", json={"sha256": told["consent"]["sha256"]}).json()
    assert agreed["step"] == "ready"
    read = client.post("/api/campaigns/guarded/door/instructions", json={"instructions_id": told["instructions_id"]})
    assert not read.json()["instructions_are_new"]
    assert client.post("/api/campaigns/guarded/messages", json=message).status_code == 201
    assert db.get(Membership, (cast.alice.id, campaign.id)).consented_at is not None


def test_admins_set_the_door(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="guarded")
    sign_in(cast.ada)
    refused = client.post("/admin/campaigns/guarded/door", data={"pass_mark": "0.8", "consent": "Typed text."})
    assert refused.status_code == 422
    assert "Typed text.</textarea>" in refused.text
    client.post("/admin/campaigns/guarded/questions", data={"markdown": "Which?", "options": "* A\nB"})
    form = {
        "pass_mark": "0.8",
        "consent": "It may upset you.",
        "daily_limit": "50",
        "blurred": "yes",
        "access": "members",
    }
    assert client.post("/admin/campaigns/guarded/door", data=form).status_code == 303
    assert (campaign.pass_mark, campaign.daily_limit, campaign.blurred, campaign.access) == (0.8, 50, True, "members")
    assert client.post("/admin/campaigns/guarded/members", data={"member": "Zoe"}).status_code == 404
    client.post("/admin/campaigns/guarded/members", data={"member": "Alice"})
    client.post(f"/admin/campaigns/guarded/members/{cast.alice.id}/exclude", data={"reason": "Too fast."})
    page = client.get("/admin/campaigns/guarded/door").text
    assert "Too fast." in page
    client.post(f"/admin/campaigns/guarded/members/{cast.alice.id}/reinstate")
    assert db.get(Membership, (cast.alice.id, campaign.id)).status == "active"
    client.post(f"/admin/people/{cast.bob.id}/hold-out", data={"held_out": "yes"})
    assert cast.bob.held_out
    assert "held out" in client.get("/admin/people").text


def test_a_screening_without_gold_items_enough_is_told(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="guarded", way="pairs", screening_items=2)
    factories.item(db, campaign, "One?", check_kind="gold", expected={"picked": 0})
    sign_in(cast.ada)
    assert (
        "takes 2 gold items and the queue has 1: nobody gets past it"
        in client.get("/admin/campaigns/guarded/door").text
    )
    factories.item(db, campaign, "Two?", check_kind="gold", expected={"picked": 0})
    assert "nobody gets past it" not in client.get("/admin/campaigns/guarded/door").text


def test_a_veil_lies_over_each_reply(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="veiled", blurred=True)
    factories.turn(db, factories.conversation(db, campaign, cast.alice))
    sign_in(cast.alice)
    page = client.get("/chat/veiled").text
    assert page.count('<details class="veil">') == 2


def test_two_of_one_name_keep_their_own_results(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="guarded", way="pairs")
    turn = factories.item(db, campaign, check_kind="gold", expected={"picked": 0})
    twins = [factories.person(db, "Twin") for _twin in range(2)]
    for twin, passed in zip(twins, (True, False), strict=True):
        members.add(db, cast.ada, campaign, str(twin.id))
        db.add(
            CheckResult(
                campaign_id=campaign.id, turn_id=turn.id, person_id=twin.id, kind="gold", passed=passed, expected={},
                answered={},
            )
        )  # fmt: skip
    db.commit()
    sign_in(cast.ada)
    page = client.get("/admin/campaigns/guarded/door").text
    assert "1 of 1" in page
    assert "0 of 1" in page
    with pytest.raises(NotFound, match="Several"):
        members.add(db, cast.ada, campaign, "Twin")
