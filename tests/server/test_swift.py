"""The swift way of answering a given pair stores what the long way stores, and gives way to it whenever it must."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sqlalchemy.orm import Session

from server.language import current, speaking
from server.markdown import to_html
from server.models import Comparison, Lease, Turn, WorkSession
from server.services.chat import queue
from server.services.ways import swift, undo
from server.services.working import drafts
from tests import factories

KEY = "key-of-the-page"


def columns(db: Session, comparison_id: int) -> dict[str, Any]:
    """All that is stored of an answer but what must differ: numbers of rows, times, keys and who."""
    row = db.get_one(Comparison, comparison_id, populate_existing=True)
    apart = {"id", "created_at", "idempotency_key", "person_id"}
    return {c.key: getattr(row, c.key) for c in Comparison.__table__.columns if c.key not in apart}


def choose(rng: random.Random) -> dict[str, Any]:
    verdict = rng.choice(["picked", "picked", "picked", "tie", "both_bad"])
    return {
        "scale_position": rng.randint(1, 8) if verdict == "picked" else None,
        "verdict": verdict,
        "milliseconds": rng.randint(0, 9000),
        "justification": rng.choice([None, "Because."]) if verdict != "both_bad" else "Both lie.",
        "signals": rng.choice([None, {"visible_ms": 5000, "pasted_chars": 3}]),
        "idempotency_key": f"key-{rng.random()}",
    }


@pytest.mark.parametrize("mode", ["helpful", "red_team"])
@pytest.mark.parametrize("held_out", [False, True])
def test_both_ways_store_the_same(client, db: Session, cast, sign_in, monkeypatch, mode: str, held_out: bool) -> None:
    campaign = factories.campaign(db, way="pairs", mode=mode, overlap=2, ties=True, both_bad=True)
    turns = [factories.item(db, campaign, f"Question {number}?") for number in range(12)]
    for person in (cast.alice, cast.bob):
        person.held_out = held_out
    rng = random.Random(f"{mode} {held_out}")
    bodies = [choose(rng) for _turn in turns]
    stored: dict[str, list[dict[str, Any]]] = {}
    told: dict[str, list[dict[str, Any]]] = {}
    for name, person in (("long", cast.alice), ("swift", cast.bob)):
        if name == "long":
            monkeypatch.setattr(swift, "store", lambda *_asked: None)
        else:
            monkeypatch.undo()
        sign_in(person)
        assert queue.offer(db, person, campaign) is turns[0]
        for lease in db.query(Lease):
            lease.mirrored = lease.turn_id % 2 == 0
        db.commit()
        for turn, body in zip(turns, bodies, strict=True):
            key = {"idempotency_key": f"{body['idempotency_key']}-{name}"}
            answer = client.post(f"/api/turns/{turn.id}/comparison", json=body | key)
            assert answer.status_code == 201, answer.text
            stored.setdefault(name, []).append(columns(db, answer.json()["comparison"].pop("id")))
            told.setdefault(name, []).append(answer.json())
            for lease in db.query(Lease).filter(
                Lease.released_at.is_(None)
            ):  # sides are drawn: here, both get the same
                lease.mirrored = lease.turn_id % 2 == 0
            db.commit()
        assert client.post(f"/api/turns/{turns[-1].id}/comparison", json=bodies[-1] | key).status_code == 200
    assert stored["swift"] == stored["long"]
    assert {row["purpose"] for row in stored["swift"]} == {"evaluation" if held_out else "training"}
    for swiftly, slowly in zip(told["swift"], told["long"], strict=True):
        assert {**swiftly["comparison"], "id": 0} == {**slowly["comparison"], "id": 0}
        assert swiftly["conversation"] == slowly["conversation"]
        if swiftly["next"] is not None:
            for side in (swiftly, slowly):  # drawn anew for each
                side["next"]["turn"]["candidates"].sort(key=lambda each: each["text"])
                for each in side["next"]["turn"]["candidates"]:
                    del each["position"]
        assert swiftly["next"] == slowly["next"]
    db.expire_all()
    assert {(turn.queue_id, turn.status) for turn in turns} == {(None, "compared")}
    assert db.query(Lease).filter(Lease.released_at.is_(None)).count() == 0
    sessions = {row.person_id: row.answers for row in db.query(WorkSession)}
    assert sessions == {cast.alice.id: 12, cast.bob.id: 12}


def test_it_is_the_swift_way_that_is_gone(client, db: Session, cast, sign_in, monkeypatch) -> None:
    campaign = factories.campaign(db, way="pairs")
    turn, after = factories.item(db, campaign, "One?"), factories.item(db, campaign, "Two?")
    assert queue.offer(db, cast.alice, campaign) is turn
    drafts.save(db, cast.alice, drafts.justification_place(turn), "Bec")
    db.commit()
    monkeypatch.setattr("server.services.ways.feedback.store_comparison", None)
    sign_in(cast.alice)
    body = {"scale_position": 1, "milliseconds": 3000, "idempotency_key": KEY}
    answer = client.post(f"/api/turns/{turn.id}/comparison", json=body)
    assert (answer.status_code, answer.json()["next"]["turn"]["id"]) == (201, after.id)
    assert drafts.load(db, cast.alice, drafts.justification_place(turn)) == ""


@pytest.mark.parametrize(
    ("why", "status"),
    [("nobody", 401), ("no token", 403), ("another site", 403), ("not lent", 404), ("ran out", 409), ("taken back", 201),
     ("bad place", 422), ("no json", 422), ("disabled", 401), ("researcher", 403)],
)  # fmt: skip
def test_what_is_not_plain_goes_the_long_way(client, db: Session, cast, sign_in, why: str, status: int) -> None:
    campaign = factories.campaign(db, way="pairs")
    turn = factories.item(db, campaign)
    person = cast.rosa if why == "researcher" else cast.alice
    lent = queue.offer(db, cast.bob if why == "not lent" else person, campaign)
    assert lent is turn
    headers, body = {}, {"scale_position": 1, "milliseconds": 3000, "idempotency_key": KEY}
    sign_in(None if why == "nobody" else person)
    match why:
        case "no token":
            headers = {"X-CSRF-Token": "x" * 32}
        case "another site":
            headers = {"Origin": "https://evil.example"}
        case "ran out":
            lease = db.query(Lease).one()
            lease.expires_at = lease.created_at
        case "taken back":
            client.post(f"/api/turns/{turn.id}/comparison", json=body)
            undo.undo(db, person, campaign)
            body["idempotency_key"] = "another-key"
        case "bad place":
            body["scale_position"] = 9
        case "disabled":
            person.disabled_at = person.created_at
    db.commit()
    content = {"content": b"{"} if why == "no json" else {"json": body}
    answer = client.post(f"/api/turns/{turn.id}/comparison", headers=headers, **content)
    assert answer.status_code == status, answer.text
    if status != 201:
        assert answer.json()["error"]["message"]
        assert db.query(Comparison).count() == 0


@pytest.mark.parametrize("number", ["abc", "-1", "9" * 5000])
def test_what_is_no_turns_number_names_no_page(client, cast, sign_in, number: str) -> None:
    sign_in(cast.alice)
    body = {"scale_position": 1, "milliseconds": 3000, "idempotency_key": KEY}
    assert client.post(f"/api/turns/{number}/comparison", json=body).status_code == 404


def test_a_quota_ends_the_swift_way_too(client, db: Session, cast, sign_in, monkeypatch) -> None:
    campaign = factories.campaign(db, way="pairs", quota=3)
    turns = [factories.item(db, campaign, f"Question {number}?") for number in range(5)]
    factories.comparison(db, turns[4], cast.bob)
    assert queue.offer(db, cast.alice, campaign) is turns[0]
    db.commit()
    sign_in(cast.alice)
    looked: list[object] = []
    monkeypatch.setattr("server.routes.api_comparison.describe_next", lambda *asked, **_more: looked.append(asked))
    answers = []
    for number in range(2):
        body = {"scale_position": 1, "milliseconds": 3000, "idempotency_key": f"key-of-the-page-{number}"}
        answers.append(client.post(f"/api/turns/{turns[number].id}/comparison", json=body).json())
    assert answers[0]["next"]["turn"]["id"] == turns[1].id
    assert answers[1]["next"] is None
    assert len(looked) == 1  # the long way is asked why there is nothing more


def test_the_next_item_is_looked_up_without_all_that_was_answered_before(db: Session, cast) -> None:
    """An anti-join would read every answer the person ever gave, for each item anew."""
    campaign = factories.campaign(db, way="pairs")
    for number in range(3):
        factories.item(db, campaign, f"Question {number}?")
    asked = {"campaign_id": campaign.id, "after": 0, "person_id": cast.alice.id, "overlap": 1, "quota": None}
    connection = db.connection().connection.driver_connection
    plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {swift._NEXT}", asked))
    assert plan.count("SubPlan") >= 4
    assert "Anti Join" not in plan


def test_a_check_is_the_long_way_and_is_mixed_in_as_often(client, db: Session, cast, sign_in) -> None:
    campaign = factories.campaign(db, way="pairs", check_rate=0.5)
    plain = [factories.item(db, campaign, f"Question {number}?") for number in range(30)]
    for number in range(30):
        factories.item(db, campaign, f"Check {number}?", check_kind="gold", expected={"picked": 0})
    sign_in(cast.alice)
    lent = queue.offer(db, cast.alice, campaign)
    db.commit()
    checks = 0
    for number in range(25):
        body = {"scale_position": 1, "milliseconds": 3000, "idempotency_key": f"key-of-{number:04}"}
        told = client.post(f"/api/turns/{lent.id}/comparison", json=body).json()
        lent = db.get_one(Turn, told["next"]["turn"]["id"])
        checks += lent.check_kind is not None
    assert 4 <= checks <= 21  # of 25 at one half: outside in one of a thousand runs
    db.expire_all()
    assert plain[0].queue_id is None


def test_an_item_that_was_rendered_for_one_is_rendered_anew_in_anothers_language() -> None:
    code = "```\nnine minutes\n```"
    with speaking("de"):
        german = swift._html(code, current())
    with speaking("ar"):
        assert swift._html(code, current()) != german
    with speaking("de"):
        assert swift._html(code, current()) == german == to_html(code)
