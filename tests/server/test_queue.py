"""The queue of items: exact overlap under many hands, each person each item once, checks mixed in, sides drawn."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import Conflict, NotFound
from server.models import Campaign, CheckResult, Comparison, Lease, Person, Report, Turn
from server.services.chat import queue
from server.services.data.dataset_selection import DatasetSelection
from server.services.door import checks
from server.services.intervals import Share
from server.services.ways import feedback, remarks, undo
from tests import factories

KEY = "key-of-the-page"


def answer(db: Session, person: Person, turn: Turn, place: int = 1) -> Comparison:
    return feedback.store_comparison(db, person, turn.id, place, 3000, f"{KEY}-{turn.id}")[0]


def test_an_item_leaves_the_queue_with_its_last_answer(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", overlap=2)
    turn = factories.item(db, campaign)
    for person, left in ((cast.alice, campaign.id), (cast.bob, None)):
        assert queue.offer(db, person, campaign) is turn
        answer(db, person, turn)
        assert turn.queue_id == left
        assert queue.offer(db, person, campaign) is None
    assert queue.offer(db, cast.mallory, campaign) is None
    assert turn.status == "compared"


def test_the_oldest_comes_first_and_a_reload_finds_the_same(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    first, second = factories.item(db, campaign, "One?"), factories.item(db, campaign, "Two?")
    assert queue.offer(db, cast.alice, campaign) is first
    assert queue.offer(db, cast.alice, campaign) is first
    assert queue.offer(db, cast.bob, campaign) is second


def test_what_was_skipped_goes_to_others_for_good(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    first, second = factories.item(db, campaign, "One?"), factories.item(db, campaign, "Two?")
    queue.offer(db, cast.alice, campaign)
    remarks.skip(db, cast.alice, first.id)
    assert queue.offer(db, cast.alice, campaign) is second
    remarks.skip(db, cast.alice, second.id)
    assert queue.offer(db, cast.alice, campaign) is None
    assert queue.offer(db, cast.bob, campaign) is first


def test_a_lease_that_ran_out_frees_its_place_and_takes_no_answer(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    turn = factories.item(db, campaign)
    queue.offer(db, cast.alice, campaign)
    assert queue.offer(db, cast.bob, campaign) is None
    db.query(Lease).one().expires_at = datetime.now(UTC) - timedelta(seconds=1)
    db.flush()
    assert queue.offer(db, cast.bob, campaign) is turn
    with pytest.raises(Conflict, match="ran out"):
        answer(db, cast.alice, turn)


def test_an_item_that_was_not_lent_cannot_be_answered_or_seen(db: Session, cast) -> None:
    turn = factories.item(db, factories.campaign(db, way="pairs"))
    for act in (answer, lambda db, person, turn: remarks.report(db, person, turn.id, "other"),
                lambda db, person, turn: queue.lent_or_own(db, person, turn.id)):  # fmt: skip
        with pytest.raises(NotFound):
            act(db, cast.mallory, turn)


def test_a_mirrored_choice_names_the_reply_that_was_meant(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", overlap=20)
    turn = factories.item(db, campaign)
    seen = set()
    for number in range(20):
        person = factories.person(db, f"P{number}")
        queue.offer(db, person, campaign)
        mirrored = db.query(Lease).filter_by(person_id=person.id).one().mirrored
        stored = answer(db, person, turn, 1)  # what stood left
        assert stored.picked_id == turn.candidates[1 if mirrored else 0].id
        assert stored.mirrored is mirrored
        seen.add(mirrored)
    assert seen == {True, False}  # one of 2^19 honest runs sees only one side


def test_checks_are_mixed_in_once_each_and_count_for_nobody(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs", check_rate=0.5)
    gold = factories.item(db, campaign, "Gold?", check_kind="gold", expected={"picked": 0, "strength": 2})
    plain = [factories.item(db, campaign, f"Plain {number}?").id for number in range(30)]
    met = []
    while (turn := queue.offer(db, cast.alice, campaign)) is not None:
        met.append(turn.id)
        lease = db.query(Lease).filter_by(person_id=cast.alice.id, turn_id=turn.id).one()
        answer(db, cast.alice, turn, 8 if lease.mirrored else 1)
    assert Counter(met) == Counter([gold.id, *plain])  # one of 2^30 honest runs draws no check
    assert gold.queue_id == campaign.id
    result = db.query(CheckResult).one()
    assert (result.passed, result.answered["strength"], result.person_id) == (True, 4, cast.alice.id)
    (line,) = checks.by_person(db, campaign)
    assert (line.name, line.gold, line.attention) == ("Alice", Share(1, 1), Share(0, 0))


@pytest.mark.parametrize(
    ("expected", "answered", "agrees"),
    [
        ({"picked": 0}, ("picked", 0, 1), True),
        ({"picked": 0}, ("picked", 1, 4), False),
        ({"picked": 1, "strength": 3}, ("picked", 1, 2), False),
        ({"picked": 1, "strength": 3}, ("picked", 1, 3), True),
        ({"picked": 1}, ("tie", None, None), False),
        ({"verdict": "tie"}, ("tie", None, None), True),
        ({"verdict": "both_bad"}, ("picked", 0, 4), False),
    ],
)
def test_agreeing_with_the_key(expected, answered, agrees) -> None:
    verdict, picked, strength = answered
    assert checks.agrees(expected, {"verdict": verdict, "picked": picked, "strength": strength}) is agrees


def test_a_lease_that_ran_out_in_the_middle_of_a_request_is_not_renewed(committed: str) -> None:
    """Alice's request began while she held the last place; Bob took it before hers came to look."""
    new_session = session_factory(committed)
    with new_session.begin() as db:
        campaign = factories.campaign(db, way="pairs")
        turn = factories.item(db, campaign)
        alice, bob = factories.person(db, "Alice"), factories.person(db, "Bob")
        queue.offer(db, alice, campaign)
        db.query(Lease).one().expires_at = datetime.now(UTC) + timedelta(seconds=0.3)
        ids = campaign.id, turn.id, alice.id, bob.id
    with new_session.begin() as hers:
        hers.execute(text("SELECT 1"))  # from here on now() stands still for her
        time.sleep(0.4)
        with new_session.begin() as his:
            where = his.get_one(Campaign, ids[0])
            assert queue.offer(his, his.get_one(Person, ids[3]), where).id == ids[1]
        assert queue.offer(hers, hers.get_one(Person, ids[2]), hers.get_one(Campaign, ids[0])) is None
    with new_session() as db, pytest.raises(Conflict, match="ran out"):
        answer(db, db.get_one(Person, ids[2]), db.get_one(Turn, ids[1]))


def test_the_clock_of_a_web_server_frees_nothing_and_holds_nothing(db: Session, cast, monkeypatch) -> None:
    """A server whose clock is behind must not take an answer for a place that the database has given away."""
    campaign = factories.campaign(db, way="pairs")
    turn = factories.item(db, campaign)
    queue.offer(db, cast.alice, campaign)
    db.query(Lease).one().expires_at = datetime.now(UTC) - timedelta(seconds=1)
    db.flush()
    monkeypatch.setattr("server.services.working.leases.is_live", lambda _lease: True)  # what such a server would say
    with pytest.raises(Conflict, match="ran out"):
        answer(db, cast.alice, turn)


def test_after_taking_back_the_same_item_is_shown_again(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    first, second = factories.item(db, campaign, "One?"), factories.item(db, campaign, "Two?")
    queue.offer(db, cast.alice, campaign)
    answer(db, cast.alice, first)
    assert queue.offer(db, cast.alice, campaign) is second
    assert undo.undo(db, cast.alice, campaign) is first
    assert queue.offer(db, cast.alice, campaign) is first
    feedback.store_comparison(db, cast.alice, first.id, 8, 3000, "another-key")
    assert queue.offer(db, cast.alice, campaign) is second


def test_nothing_of_a_check_is_trained_on(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    plain = factories.comparison(db, factories.item(db, campaign, "Plain?"), cast.alice)
    for kind in ("gold", "attention"):
        factories.comparison(
            db, factories.item(db, campaign, kind, check_kind=kind, expected={"picked": 0}), cast.alice
        )
    assert db.query(Comparison).filter(*DatasetSelection().conditions(Comparison)).all() == [plain]


def test_many_hands_with_overlap_three_are_exact(committed: str) -> None:
    """Forty people at once, some of whom walk away: every item gets three answers of three people, not one more."""
    new_session = session_factory(committed)
    with new_session.begin() as db:
        campaign = factories.campaign(db, way="pairs", overlap=3)
        items = [factories.item(db, campaign, f"Question {number}?").id for number in range(40)]
        people = [factories.person(db, f"P{number}").id for number in range(40)]
        campaign_id = campaign.id
    problems: list[BaseException] = []

    def work(person_id: int) -> None:
        dice = random.Random(person_id)
        try:
            for _round in range(60):
                with new_session.begin() as db:
                    person, where = db.get_one(Person, person_id), db.get_one(Campaign, campaign_id)
                    turn = queue.offer(db, person, where)
                    turn_id = turn and turn.id
                    if turn_id is None and not db.query(Turn).filter(Turn.queue_id.is_not(None)).count():
                        return
                    if turn_id is not None and dice.random() < 0.2:  # walks away: the lease runs out
                        db.query(Lease).filter_by(person_id=person_id, turn_id=turn_id).one().expires_at = datetime.now(
                            UTC
                        ) - timedelta(seconds=1)
                        continue
                if turn_id is None:
                    continue
                with new_session.begin() as db:
                    answer(db, db.get_one(Person, person_id), db.get_one(Turn, turn_id), dice.randint(1, 8))
        except BaseException as error:  # recorded: a thread cannot fail a test
            problems.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with new_session() as db:
        given = Counter(db.query(Comparison.turn_id).all())
        assert set(given.values()) == {3}
        assert {turn_id for (turn_id,) in given} == set(items)
        assert len(db.query(Comparison.turn_id, Comparison.person_id).distinct().all()) == 120
        assert db.query(Turn).filter(Turn.queue_id.is_not(None)).count() == 0


def test_the_next_item_comes_with_the_answer(client, db, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="pairs", way="pairs")
    first, second = factories.item(db, campaign, "One?"), factories.item(db, campaign, "Two?")
    db.commit()
    sign_in(cast.alice)
    offered = client.get("/api/campaigns/pairs/conversation").json()["second_opinion"]
    assert offered["turn"]["id"] == first.id
    body = {"scale_position": 1, "milliseconds": 3000, "idempotency_key": KEY}
    told = client.post(f"/api/turns/{first.id}/comparison", json=body).json()
    assert told["comparison"]["picked_position"] == 0
    assert told["next"]["turn"]["id"] == second.id
    skipped = client.post(f"/api/turns/{second.id}/skip", json={"reason": "upsetting"}).json()
    assert skipped == {"skipped": second.id, "next": None}
    page = client.get("/chat/pairs").text
    assert "nothing to do now" in page
    assert "Talk with the model" not in page
    assert "Ask for help" not in client.get("/").text
    assert 'id="message"' not in page


def test_a_report_reaches_an_admin_once(client, db, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="pairs", way="pairs")
    turn = factories.item(db, campaign)
    db.commit()
    sign_in(cast.alice)
    client.get("/api/campaigns/pairs/conversation")
    body = {"reason": "identity", "note": "It says its name.", "position": 0}
    first, again = (client.post(f"/api/turns/{turn.id}/report", json=body) for _ in range(2))
    assert (first.status_code, first.json()) == (201, again.json())
    assert client.post(f"/api/turns/{turn.id}/report", json={"reason": "ugly"}).status_code == 422
    (report,) = remarks.open_reports(db)
    mirrored = db.query(Lease).one().mirrored
    assert report.candidate_id == turn.candidates[1 if mirrored else 0].id
    remarks.close_report(db, cast.ada, report.id)
    assert remarks.open_reports(db) == []


def test_the_page_of_reports_leads_to_the_turn_and_empties(client, db, cast, sign_in) -> None:
    turn = factories.turn(
        db, factories.conversation(db, factories.campaign(db), cast.alice), "Eggs?", ("<b>Boil</b>", "x")
    )
    made = remarks.report(db, cast.alice, turn.id, "nonsense", "See <i>there</i>.", shown=0)
    db.commit()
    csrf = sign_in(cast.ada)
    page = client.get("/admin/reports").text
    assert f"/admin/conversations/{turn.conversation_id}" in page
    assert "&lt;b&gt;Boil&lt;/b&gt;" in page
    assert "See &lt;i&gt;there&lt;/i&gt;." in page
    assert client.post(f"/admin/reports/{made.id}/close", data={"csrf_token": csrf}).status_code == 303
    assert "No open report." in client.get("/admin/reports").text
    assert client.post("/admin/reports/999999/close", data={"csrf_token": csrf}).status_code == 404


def test_what_is_in_hand_stays_there_when_the_campaign_is_paused(db: Session, cast) -> None:
    campaign = factories.campaign(db, way="pairs")
    turn = factories.item(db, campaign)
    assert queue.offer(db, cast.alice, campaign) is turn
    campaign.status = "paused"
    assert queue.offer(db, cast.alice, campaign) is turn
    assert queue.offer(db, cast.bob, campaign) is None


def test_a_report_is_of_the_reply_as_its_person_sees_it(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="texts", way="pairs")
    turn = factories.item(db, campaign)
    assert queue.offer(db, cast.alice, campaign) is turn
    db.query(Lease).one().mirrored = True
    db.commit()
    sign_in(cast.alice)
    page = client.get("/chat/texts").text
    assert "What is it about?" in page and '<option value="1">Reply B</option>' in page
    form = {"reason": "harmful", "position": "1"}
    assert client.post(f"/chat/texts/turns/{turn.id}/report", data=form).status_code == 303
    assert client.post(f"/api/turns/{turn.id}/report", json={"reason": "nonsense", "position": 0}).status_code == 201
    assert client.post(f"/api/turns/{turn.id}/report", json={"reason": "nonsense", "position": 2}).status_code == 404
    found = {report.reason: report.candidate_id for report in db.query(Report)}
    assert found == {"harmful": turn.candidates[0].id, "nonsense": turn.candidates[1].id}
