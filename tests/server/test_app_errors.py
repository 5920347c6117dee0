"""What people are told when something under the application fails: one sentence, one shape, no traceback."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from starlette.testclient import TestClient

from server.app import create_app
from server.edge import SESSION_COOKIE
from server.settings import Settings

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
HTML = {"Accept": "text/html"}


def failing(settings: Settings, error: Exception) -> TestClient:
    """An application with a route that raises `error`."""
    app: FastAPI = create_app(settings)

    @app.get("/api/fails")
    def fail() -> None:
        raise error

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OperationalError("", {}, psycopg.errors.DiskFull("no space left")), 503, "disk is full"),
        (OperationalError("", {}, psycopg.OperationalError("gone")), 503, "database is away"),
        (InterfaceError("", {}, psycopg.InterfaceError("the connection is closed")), 503, "database is away"),
        (IntegrityError("", {}, psycopg.errors.UniqueViolation("twice")), 409, "at this moment"),
        (RuntimeError("a secret of the inside"), 500, "unexpected error"),
    ],
)
def test_each_failure_has_a_sentence_and_hides_the_inside(settings, error, status, words) -> None:
    answer = failing(settings, error).get("/api/fails")
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert "secret of the inside" not in answer.text
    assert answer.headers["content-security-policy"]


def test_without_postgres_pages_say_so_and_health_is_down(settings: Settings) -> None:
    away = TestClient(create_app(replace(settings, database_url=NOWHERE)), raise_server_exceptions=False)
    away.cookies.set(SESSION_COOKIE, "x" * 43)
    page = away.get("/chat/helpful", headers=HTML)
    assert page.status_code == 503
    assert "The database is away" in page.text
    assert page.headers["retry-after"] == "3"
    assert (away.get("/health").status_code, away.get("/ready").status_code) == (503, 503)
    assert away.get("/health").json()["database"] is False


def test_without_redis_pages_work_and_health_says_what_is_missing(settings: Settings) -> None:
    gone = TestClient(create_app(replace(settings, redis_url="redis://127.0.0.1:1/0")), raise_server_exceptions=False)
    assert gone.get("/", headers=HTML).status_code == 200
    assert gone.get("/ready").status_code == 200
    assert gone.get("/health").json() | {"revision_at_head": True} == {
        "status": "degraded",
        "database": True,
        "revision_at_head": True,
        "redis": False,
        "reply_worker": False,
    }
    refused = gone.post("/api/session", json={"email": "a@example.org", "password": "nonsense12"})
    assert refused.status_code == 503
    assert "message service is away" in refused.json()["error"]["message"]


def test_a_body_that_is_not_json_is_called_that(client):
    answer = client.post("/api/session", content='{"link": ', headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "body")
    assert "not JSON" in answer.json()["error"]["message"]
