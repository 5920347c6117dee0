"""The chat over HTTP: its shapes, who may do what, and what markup becomes."""

from __future__ import annotations

import pytest

from server.models import Comparison, Prompt, Turn
from tests import factories

HTML = {"Accept": "text/html"}
SECRETS = ("snapshot", "seed", "log_probability", "policy-", "sampling_settings")


@pytest.fixture
def campaign(db):
    campaign = factories.campaign(db, slug="helpful", instructions="Be *kind*.")
    db.add_all(Prompt(campaign_id=campaign.id, text=f"Question {number}?") for number in range(5))
    db.commit()
    return campaign


@pytest.fixture
def turn(db, campaign, cast):
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice), replies=("**Left**", "Right"))
    db.commit()
    return turn


def message(text: str = "Hello", key: str = "key-of-the-page", **more) -> dict:
    return {"text": text, "idempotency_key": key, "prompt_id": None, **more}


def choice(place: int = 7, key: str = "key-of-the-page") -> dict:
    return {"scale_position": place, "milliseconds": 1500, "idempotency_key": key}


def test_from_message_to_comparison(client, db, cast, campaign, sign_in, sent_tasks) -> None:
    sign_in(cast.alice)
    answer = client.post("/api/campaigns/helpful/messages", json=message())
    assert answer.status_code == 201
    told = answer.json()["turn"]
    assert told["status"] == "sampling"
    assert [each["text"] for each in told["candidates"]] == [None, None]
    assert sent_tasks == [("reply", {"turn_id": told["id"]})]
    assert client.post("/api/campaigns/helpful/messages", json=message()).json()["turn"]["id"] == told["id"]
    turn = db.get_one(Turn, told["id"])
    for candidate in turn.candidates:
        candidate.text, candidate.status = f"Reply {candidate.position}", "done"
    turn.status = "ready"
    db.commit()
    first = client.post(f"/api/turns/{turn.id}/comparison", json=choice())
    again = client.post(f"/api/turns/{turn.id}/comparison", json=choice())
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["comparison"] | {"id": 0} == {
        "id": 0, "verdict": "picked", "strength": 3, "picked_position": 1
    }  # fmt: skip
    assert first.json()["turn"]["continued_by"] == 1
    assert db.query(Comparison).count() == 1
    shown = client.get("/api/campaigns/helpful/conversation").json()
    assert shown["conversation"]["turns"][0]["compared"] is True
    assert shown["lease_expires_at"]


def test_nothing_tells_which_snapshot_wrote_what(client, cast, turn, sign_in) -> None:
    sign_in(cast.alice)
    for path in (f"/api/turns/{turn.id}", "/api/campaigns/helpful/conversation", "/chat/helpful"):
        text = client.get(path, headers=HTML).text
        assert not [word for word in SECRETS if word in text]


def test_the_page_says_which_instructions_it_shows(client, db, cast, turn, sign_in) -> None:
    sign_in(cast.alice)
    shown = client.get("/api/campaigns/helpful/conversation").json()["instructions_id"]
    page = client.get("/chat/helpful", headers=HTML).text
    assert f'data-instructions="{shown}"' in page
    assert f'name="instructions_id" value="{shown}"' in page
    told = client.post(f"/api/turns/{turn.id}/comparison", json=choice() | {"instructions_id": shown})
    assert told.status_code == 201
    assert db.get_one(Comparison, told.json()["comparison"]["id"]).instructions_id == shown


def test_a_reply_is_shown_only_when_both_are_there(client, db, cast, turn, sign_in) -> None:
    turn.status = "sampling"
    turn.candidates[1].status = "sampling"
    db.commit()
    sign_in(cast.alice)
    told = client.get(f"/api/turns/{turn.id}").json()["turn"]
    assert [each["text"] for each in told["candidates"]] == [None, None]


ROUTES = [
    ("GET", "/api/campaigns", None),
    ("GET", "/api/campaigns/helpful/prompts", None),
    ("GET", "/api/campaigns/helpful/conversation", None),
    ("POST", "/api/campaigns/helpful/messages", message()),
    ("POST", "/api/campaigns/helpful/finish", {}),
    ("PUT", "/api/drafts/message:1", {"text": "x"}),
    ("GET", "/chat", None),
    ("GET", "/chat/helpful", None),
    ("GET", "/chat/helpful/conversation", None),
    ("POST", "/chat/helpful/message", {}),
    ("POST", "/chat/helpful/comparison", {}),
    ("POST", "/chat/helpful/finish", {}),
]
TURN_ROUTES = [
    ("GET", "/api/turns/{turn}", None),
    ("GET", "/api/turns/{turn}/events", None),
    ("POST", "/api/turns/{turn}/retry", {}),
    ("POST", "/api/turns/{turn}/comparison", choice()),
    ("PUT", "/api/drafts/justification:{turn}", {"text": "x"}),
    ("POST", "/chat/helpful/turns/{turn}/retry", {}),
    ("POST", "/chat/helpful/turns/{turn}/skip", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES + TURN_ROUTES)
def test_only_crowdworkers_chat(client, cast, turn, sign_in, method, path, body) -> None:
    path = path.format(turn=turn.id)
    for person, status in ((None, 401), (cast.rosa, 403), (cast.ada, 403)):
        sign_in(person)
        assert client.request(method, path, json=body).status_code == status


@pytest.mark.parametrize(("method", "path", "body"), TURN_ROUTES)
def test_another_persons_turn_does_not_exist(client, db, cast, turn, sign_in, method, path, body) -> None:
    sign_in(cast.mallory)
    answer = client.request(method, path.format(turn=turn.id), json=body)
    assert answer.status_code == 404
    assert client.request(method, path.format(turn=999_999_999), json=body).json() == answer.json()
    assert db.query(Comparison).count() == 0


def test_another_persons_conversation_stays_hidden_and_open(client, cast, turn, sign_in) -> None:
    sign_in(cast.mallory)
    assert client.get("/api/campaigns/helpful/conversation").json()["conversation"] is None
    client.post("/api/campaigns/helpful/finish", json={})
    assert turn.conversation.status == "open"
    body = {"turn_id": turn.id, "idempotency_key": "key-of-the-page", "scale_position": 1}
    assert client.post("/chat/helpful/comparison", data=body).status_code == 404


def test_a_second_opinion_hides_how_the_first_chose(client, db, cast, sign_in) -> None:
    campaign = factories.campaign(db, slug="shared", overlap=2)
    turn = factories.turn(db, factories.conversation(db, campaign, cast.alice, status="finished"))
    factories.comparison(db, turn, cast.alice, picked=1)
    db.commit()
    sign_in(cast.bob)
    offered = client.get("/api/campaigns/shared/conversation").json()["second_opinion"]
    assert (offered["turn"]["continued_by"], offered["turn"]["compared"]) == (None, False)
    assert "second opinion" in client.get("/chat/shared", headers=HTML).text
    told = client.post(f"/api/turns/{turn.id}/comparison", json=choice()).json()
    assert told["turn"]["continued_by"] is None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (message(""), 422, "bad_input"),
        (message("x" * 102_400), 413, "too_large"),
        (message(key="short"), 422, "bad_input"),
        (message(prompt_id=2**63 - 1), 201, None),
        (message(conversation_id=12345), 409, "conflict"),
        ({"text": 5}, 422, "bad_input"),
    ],
)
def test_bad_messages_are_named(client, cast, campaign, sign_in, body, status, code) -> None:
    sign_in(cast.alice)
    answer = client.post("/api/campaigns/helpful/messages", json=body)
    assert answer.status_code == status
    assert code is None or answer.json()["error"]["code"] == code


@pytest.mark.parametrize(
    "path", ["/api/turns/99999999999999999999", "/api/campaigns/a%00b/conversation", "/api/turns/x"]
)
def test_odd_addresses_are_refused_kindly(client, cast, campaign, sign_in, path) -> None:
    sign_in(cast.alice)
    assert client.get(path).status_code in (404, 422)


def test_markup_is_inert_everywhere(client, db, cast, campaign, sign_in) -> None:
    evil = "<script>alert(1)</script> <img src=x onerror=alert(1)> [x](javascript:alert(1)) ![p](https://evil.example/p.png)"
    conversation = factories.conversation(db, campaign, cast.alice)
    first = factories.turn(db, conversation, evil, (evil, evil))
    factories.comparison(db, first, cast.alice)
    second = factories.turn(db, conversation, evil, (evil, evil))
    db.commit()
    sign_in(cast.alice)
    page = client.get("/chat/helpful", headers=HTML).text
    html = "".join(each["html"] for each in client.get(f"/api/turns/{second.id}").json()["turn"]["candidates"])
    for text in (page.split('id="chat"')[1], html):
        assert "<script" not in text
        assert "<img" not in text
        assert 'href="javascript' not in text
        assert "&lt;script&gt;" in text


def test_the_forms_work_without_a_script(client, db, cast, campaign, sign_in) -> None:
    csrf = sign_in(cast.alice)
    data = {"csrf_token": csrf, "idempotency_key": "key-of-the-page"}
    empty = client.post("/chat/helpful/message", data=data | {"text": " "}, headers=HTML)
    assert empty.status_code == 422
    assert "The message is empty" in empty.text
    long = client.post("/chat/helpful/message", data=data | {"text": "word " * 2000}, headers=HTML)
    assert long.status_code == 413
    assert "at most 8,000" in long.text
    assert "word word" in long.text  # what was typed is still in its box
    sent = client.post("/chat/helpful/message", data=data | {"text": "Hello"})
    assert sent.headers["location"] == "/chat/helpful"
    turn = db.query(Turn).one()
    assert 'http-equiv="refresh"' in client.get("/chat/helpful", headers=HTML).text
    for candidate in turn.candidates:
        candidate.text, candidate.status = "A reply", "done"
    turn.status = "ready"
    db.commit()
    unchosen = client.post("/chat/helpful/comparison", data=data | {"turn_id": turn.id}, headers=HTML)
    assert "Choose one of the steps" in unchosen.text
    stored = client.post("/chat/helpful/comparison", data=data | {"turn_id": turn.id, "scale_position": 2})
    assert stored.status_code == 303
    assert db.query(Comparison).one().strength == 3


def test_paused_is_said_on_the_page(client, db, cast, campaign, sign_in) -> None:
    campaign.status = "paused"
    db.commit()
    sign_in(cast.alice)
    page = client.get("/chat/helpful", headers=HTML)
    assert page.status_code == 200
    assert "This campaign is paused." in page.text
    assert '<textarea id="message"' not in page.text
    assert client.post("/api/campaigns/helpful/messages", json=message()).status_code == 409


def test_the_start_page_for_everybody(client, db, cast, campaign, sign_in) -> None:
    sign_in(None)
    assert "People sharpen the model" in client.get("/", headers=HTML).text
    sign_in(cast.alice)
    page = client.get("/", headers=HTML).text
    assert "/chat/helpful" in page
    assert "/rounds" not in page
    sign_in(cast.rosa)
    page = client.get("/", headers=HTML).text
    assert "Comparisons today" in page
    assert "/admin/people" not in page
    sign_in(cast.ada)
    assert "/admin/people" in client.get("/", headers=HTML).text
