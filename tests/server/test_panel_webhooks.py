"""Messages of a panel: signed, taken once, followed by when they were sent and not by when they came."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.models import Campaign, Panel, PanelSubmission, Person, WebhookEvent, WorkSession
from server.services.chat import queue
from server.services.panels import panel_webhooks, panels
from server.services.working import work_time
from tests import factories
from tests.server.prolific_double import Message, Prolific

PID, URL = "5f1c0a9b8e7d6c5b4a392817", "/panel/first/webhook"


@pytest.fixture
def campaign(db: Session) -> Campaign:
    made = factories.campaign(db, slug="pairs", way="pairs")
    factories.item(db, made)
    return made


@pytest.fixture
def panel(db: Session, campaign: Campaign) -> Panel:
    made = factories.panel(db, campaign, slug="first")
    db.commit()
    return made


@pytest.fixture
def prolific(panel: Panel) -> Prolific:
    return Prolific(secret=str(panel.webhook_secret))


@pytest.fixture
def submission(db: Session, panel: Panel) -> Iterator[PanelSubmission]:
    _person, made = panels.enter(db, panel, panels.Arrival(PID, "s1", "st1", {}))
    db.commit()
    yield made


def post(client: TestClient, prolific: Prolific, message: Message) -> str:
    answer = client.post(URL, content=message.body, headers=prolific.headers(message))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["taken"])


def status(db: Session) -> str:
    db.expire_all()
    return db.scalars(select(PanelSubmission)).one().status


def test_the_signature_is_that_of_the_documentation() -> None:
    """Reckoned with openssl: printf '1700000000{"a":1}' | openssl dgst -sha256 -hmac SECRET -binary | base64."""
    message = Message(b'{"a":1}', "e", 1)
    found = Prolific(secret="SECRET").headers(message, at=1_700_000_000)["X-Prolific-Request-Signature"]
    assert found == "gn91PVeGLFfkRD8RQXkhDRSrYdt3kmTs2UVghWOZZGU="


@pytest.mark.parametrize(("said", "ours"), [("RETURNED", "returned"), ("SCREENED OUT", "screened_out")])
def test_a_submission_that_ended_there_gives_its_place_to_others(
    client: TestClient,
    db: Session,
    campaign: Campaign,
    prolific: Prolific,
    submission: PanelSubmission,
    said: str,
    ours: str,
) -> None:
    person = db.get_one(Person, submission.person_id)
    held = queue.offer(db, person, campaign)
    work_time.seen(db, person, campaign)
    db.commit()
    assert held is not None
    assert post(client, prolific, prolific.message("s1", PID, said)) == "followed"
    assert status(db) == ours
    assert queue.places_taken(db, campaign, held.id) == 0
    assert db.query(WorkSession).one().ended_as == "returned"


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ("RESERVED", "reserved"), ("ACTIVE", "active"), ("TIMED-OUT", "timed_out"), ("AWAITING REVIEW", "awaiting_review"),
        ("APPROVED", "approved"), ("REJECTED", "rejected"), ("SCREENED OUT", "screened_out"), ("TIMED_OUT", "timed_out"),
    ],
)  # fmt: skip
def test_every_status_of_the_documentation_is_known(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission, said: str, ours: str
) -> None:
    assert post(client, prolific, prolific.message("s1", PID, said)) == "followed"
    assert status(db) == ours


def test_sent_twice_is_taken_once(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission
) -> None:
    message = prolific.message("s1", PID, "AWAITING REVIEW")
    assert [post(client, prolific, message) for _attempt in range(3)] == ["followed", "seen before", "seen before"]
    assert db.query(WebhookEvent).count() == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_whatever_order_they_come_the_last_one_sent_holds(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission, order: tuple[int, ...]
) -> None:
    now = int(time.time())
    steps = ["RESERVED", "ACTIVE", "AWAITING REVIEW", "APPROVED"]
    sent = [prolific.message("s1", PID, step, now - 100 + 10 * place) for place, step in enumerate(steps)]
    for place in order:
        post(client, prolific, sent[place])
    assert status(db) == "approved"


def test_in_one_second_the_later_step_holds(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission
) -> None:
    now = int(time.time())
    assert post(client, prolific, prolific.message("s1", PID, "RETURNED", now)) == "followed"
    assert post(client, prolific, prolific.message("s1", PID, "ACTIVE", now)) == "older"
    assert status(db) == "returned"


def test_a_rejection_that_is_taken_back_is_taken_back_here_too(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission
) -> None:
    now = int(time.time())
    post(client, prolific, prolific.message("s1", PID, "REJECTED", now - 20))
    post(client, prolific, prolific.message("s1", PID, "AWAITING REVIEW", now - 10))
    assert status(db) == "awaiting_review"


def test_news_of_work_does_not_open_what_ended_here(
    client: TestClient, db: Session, campaign: Campaign, prolific: Prolific, submission: PanelSubmission
) -> None:
    panels.screen_out(db, db.get_one(Person, submission.person_id), campaign)
    db.commit()
    post(client, prolific, prolific.message("s1", PID, "ACTIVE"))
    assert status(db) == "screened_out"


def test_a_message_may_come_before_the_visit(client: TestClient, db: Session, panel: Panel, prolific: Prolific) -> None:
    """A workspace tells of all its studies, so nothing is made of it; but a visit that follows is as it says."""
    assert post(client, prolific, prolific.message("s1", PID, "RETURNED")) == "unknown"
    assert db.query(PanelSubmission).count() == 0 and db.query(Person).count() == 0
    late = client.get(f"/panel/first?PROLIFIC_PID={PID}&STUDY_ID=st1&SESSION_ID=s1")
    assert late.status_code == 409 and "returned this submission" in late.json()["error"]["message"]
    assert post(client, prolific, prolific.message("s2", PID, "ACTIVE")) == "unknown"
    assert client.get(f"/panel/first?PROLIFIC_PID={PID}&STUDY_ID=st1&SESSION_ID=s2").status_code == 303


def test_other_events_are_kept_and_ignored(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission
) -> None:
    study = Message(
        json.dumps({"resource_id": "st1", "event_type": "study.status.change", "status": "ACTIVE"}).encode(), "e1", 1
    )
    strange = prolific.message("s1", PID, "ON HOLD")
    assert [post(client, prolific, study), post(client, prolific, strange)] == ["ignored", "ignored"]
    assert status(db) == "active"


def test_what_is_not_signed_by_the_panel_now_changes_nothing(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission
) -> None:
    message = prolific.message("s1", PID, "RETURNED")
    now = int(time.time())
    good = prolific.headers(message)
    cases = [
        {},
        prolific.headers(message, secret="another secret of somebody"),
        prolific.headers(message, at=now - 310),
        prolific.headers(message, at=now + 310),
        good | {"X-Prolific-Request-Timestamp": str(now - 5)},
        good | {"X-Prolific-Request-Timestamp": "soon"},
        good | {"X-Prolific-Request-Signature": ""},
        good | {"X-Prolific-Request-Signature": good["X-Prolific-Request-Signature"][:-3] + "é=="},
    ]
    for headers in cases:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        assert client.post(URL, content=message.body, headers=raw).status_code == 401, headers
    assert client.post(URL, content=message.body + b" ", headers=good).status_code == 401
    without = {name: value for name, value in good.items() if name != "X-Event-ID"}
    assert client.post(URL, content=message.body, headers=without).status_code == 422
    assert status(db) == "active" and db.query(WebhookEvent).count() == 0
    assert post(client, prolific, message) == "followed"


@pytest.mark.parametrize("body", [b"", b"[]", b"nothing", b'{"resource_id": "a\\u0000"}', b'{"x": NaN}', b"\xff"])
def test_a_signed_body_that_is_no_message_is_refused(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission, body: bytes
) -> None:
    message = Message(body, "e1", 1)
    assert client.post(URL, content=body, headers=prolific.headers(message)).status_code == 422
    assert db.query(WebhookEvent).count() == 0


def test_a_time_that_nobody_signed_cannot_be_in_the_future(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission
) -> None:
    """A captured message sent again with a later X-Timestamp must not outlast what the panel says next."""
    now = int(time.time())
    post(client, prolific, prolific.message("s1", PID, "ACTIVE", now + 10**6))
    time.sleep(1.1)
    assert post(client, prolific, prolific.message("s1", PID, "RETURNED")) == "followed"


def test_a_study_without_a_secret_takes_no_messages(
    client: TestClient, db: Session, panel: Panel, prolific: Prolific
) -> None:
    panel.webhook_secret = None
    db.commit()
    message = prolific.message("s1", PID, "RETURNED")
    assert client.post(URL, content=message.body, headers=prolific.headers(message)).status_code == 404


def test_a_message_is_sent_again_until_it_is_taken(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given up half way left nothing: the next attempt is the first that counts."""
    real, tries = panels.follow_events, itertools.count()

    def fail_once(*args: object) -> object:
        if next(tries) == 0:
            raise RuntimeError("the disk is full")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(panels, "follow_events", fail_once)

    def send(url: str, body: bytes, headers: dict[str, str]) -> int:
        return int(client.post(url, content=body, headers=headers).status_code)

    assert prolific.deliver(send, URL, prolific.message("s1", PID, "RETURNED")) == [500, 200]
    assert status(db) == "returned" and db.query(WebhookEvent).count() == 1


def test_messages_are_removed_when_they_are_old(
    client: TestClient, db: Session, prolific: Prolific, submission: PanelSubmission
) -> None:
    for said in ("ACTIVE", "RETURNED"):
        post(client, prolific, prolific.message("s1", PID, said))
    first = db.scalars(select(WebhookEvent).order_by(WebhookEvent.id).limit(1)).one()
    first.received_at -= timedelta(days=panel_webhooks.KEPT_DAYS, minutes=1)
    db.flush()
    assert panel_webhooks.clear(db) == 1
    assert [each.status for each in db.scalars(select(WebhookEvent))] == ["returned"]
    assert status(db) == "returned"
