"""`whetstone panel`, against a double of Prolific's API: secret, subscription, confirmation, and then its messages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from server import cli
from server.app import create_app
from server.db import session_factory
from server.models import Panel, PanelSubmission
from server.services.panels import panels, prolific
from server.settings import Settings, load_settings
from tests import factories
from tests.server.prolific_double import TOKEN, Prolific, running

Call = Callable[..., tuple[int, str, str]]
PID = "5f1c0a9b8e7d6c5b4a392817"


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Prolific]:
    with running() as double:
        monkeypatch.setattr(prolific, "API", double.address)
        yield double


@pytest.fixture
def whetstone(
    committed: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WHETSTONE_PUBLIC_URL", "https://lab.example")
    monkeypatch.setenv("PROLIFIC_TOKEN", TOKEN)
    with session_factory(committed).begin() as db:
        campaign = factories.campaign(db, slug="chat")
        for slug in ("may", "june"):
            factories.panel(db, campaign, slug=slug, webhook_secret=None)
        factories.panel(db, campaign, "generic", slug="other")

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def secrets_of(url: str) -> dict[str, str | None]:
    with session_factory(url)() as db:
        return {panel.slug: panel.webhook_secret for panel in db.query(Panel)}


def test_a_study_is_connected_and_its_messages_are_taken(whetstone: Call, committed: str, there: Prolific) -> None:
    code, out, _ = whetstone("panel", "connect", "may", "--workspace", there.workspace)
    assert code == 0 and "https://lab.example/panel/may/webhook" in out
    assert [(each["target_url"], each["is_enabled"]) for each in there.subscriptions.values()] == [
        ("https://lab.example/panel/may/webhook", True)
    ]
    assert secrets_of(committed)["may"] == there.secret
    with session_factory(committed).begin() as db:
        panel = db.query(Panel).filter_by(slug="may").one()
        panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    with TestClient(create_app(load_settings()), base_url="https://lab.example") as client:
        now = int(time.time())
        messages = [there.message("s1", PID, "ACTIVE", now - 20), there.message("s1", PID, "TIMED-OUT", now - 10)]

        def send(url: str, body: bytes, headers: dict[str, str]) -> int:
            return int(client.post(url, content=body, headers=headers).status_code)

        for message in (messages[1], messages[0], messages[1]):
            assert there.deliver(send, "/panel/may/webhook", message) == [200]
    with session_factory(committed)() as db:
        assert db.query(PanelSubmission).one().status == "timed_out"


def test_again_is_no_harm_and_a_workspace_keeps_its_one_secret(
    whetstone: Call, committed: str, there: Prolific
) -> None:
    for slug in ("may", "may", "june"):
        assert whetstone("panel", "connect", slug, "--workspace", there.workspace)[0] == 0
    found = secrets_of(committed)
    assert found["may"] == found["june"] == there.secret
    assert len(there.subscriptions) == 2 and there.asked.count("POST /api/v1/hooks/secrets/") == 1
    before = there.secret
    assert whetstone("panel", "connect", "june", "--workspace", there.workspace, "--new-secret")[0] == 0
    found = secrets_of(committed)
    assert there.secret != before and found["may"] == found["june"] == there.secret


def test_what_cannot_be_connected_says_why(whetstone: Call, there: Prolific, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = whetstone("panel", "connect", "other", "--workspace", "w")
    assert code == 1 and "another panel" in err
    assert whetstone("panel", "connect", "none", "--workspace", "w")[0] == 1
    monkeypatch.setenv("PROLIFIC_TOKEN", "stolen")
    code, _, err = whetstone("panel", "connect", "may", "--workspace", "w")
    assert code == 1 and "does not take this token" in err
    monkeypatch.setenv("PROLIFIC_TOKEN", "")
    assert "PROLIFIC_TOKEN" in whetstone("panel", "connect", "may", "--workspace", "w")[2]
    monkeypatch.setenv("PROLIFIC_TOKEN", TOKEN)
    monkeypatch.setenv("WHETSTONE_PUBLIC_URL", "http://127.0.0.1:8000")
    code, _, err = whetstone("panel", "connect", "may", "--workspace", "w")
    assert code == 1 and "https" in err and not there.asked[1:]


def test_studies_are_listed(whetstone: Call, committed: str) -> None:
    with session_factory(committed).begin() as db:
        panel = db.query(Panel).filter_by(slug="may").one()
        panels.enter(db, panel, panels.Arrival(PID, "s1", None, {}))
    lines = [json.loads(line) for line in whetstone("panel", "list", "--json")[1].splitlines()]
    assert {line["panel"]: line["submissions"] for line in lines} == {"may": {"active": 1}, "june": {}, "other": {}}
    assert "1 active" in whetstone("panel", "list")[1]
