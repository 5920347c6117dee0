"""The stream of a turn: replayed from where one left off, confirmed by the rows, alive without Redis."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import pytest

from server.edge import short_transactions
from server.services.chat import reply_stream
from tests import factories


async def gather(redis_url: str, after: str, statuses: list[str], turn_id: int = 1) -> list[tuple]:
    async def read_status() -> str:
        return statuses.pop(0) if len(statuses) > 1 else statuses[0]

    return [
        (event.name, event.fields.get("text"), event.entry_id)
        async for event in reply_stream.follow(redis_url, turn_id, after, read_status)
    ]


def write(redis, event: str, text: str = "", position: int = 0) -> str:
    return redis.xadd("turn:1", {"event": event, "position": position, "text": text})


def test_all_is_replayed_and_the_end_comes_from_the_rows(redis, redis_url) -> None:
    ids = [write(redis, "text", "Hel"), write(redis, "text", "lo"), write(redis, "done")]
    write(redis, "ready")
    found = asyncio.run(gather(redis_url, "", ["ready"]))
    assert found == [("text", "Hel", ids[0]), ("text", "lo", ids[1]), ("done", None, ids[2]), ("ready", None, None)]


def test_it_goes_on_after_the_last_event_heard(redis, redis_url) -> None:
    first, second = write(redis, "text", "Hel"), write(redis, "text", "lo")
    found = asyncio.run(gather(redis_url, first, ["compared"]))
    assert found == [("text", "lo", second), ("ready", None, None)]
    assert len(asyncio.run(gather(redis_url, "nonsense; DEL turn:1", ["ready"]))) == 3


def test_an_old_failure_does_not_end_a_retry(redis, redis_url) -> None:
    write(redis, "failed")
    second = write(redis, "restart")
    found = asyncio.run(gather(redis_url, "", ["sampling", "ready"]))
    assert found == [("restart", None, second), ("ready", None, None)]


def test_without_redis_the_rows_say_how_it_ends() -> None:
    found = asyncio.run(gather("redis://127.0.0.1:1/0", "", ["sampling", "failed"]))
    assert found == [("failed", None, None)]


def test_silence_is_broken_by_heartbeats(redis, redis_url, monkeypatch) -> None:
    monkeypatch.setattr(reply_stream, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(reply_stream, "ROWS_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(reply_stream, "BLOCK_MILLISECONDS", 50)
    found = asyncio.run(gather(redis_url, "", ["sampling", "sampling", "ready"]))
    assert found == [(None, None, None), (None, None, None), ("ready", None, None)]


@pytest.fixture
def share_rows(client, db):
    """Let the stream read the test's own transaction."""

    @contextmanager
    def same():
        yield db

    client.app.dependency_overrides[short_transactions] = lambda: same


def test_the_route_speaks_server_sent_events(client, db, cast, redis, sign_in, share_rows) -> None:
    turn = factories.turn(db, factories.conversation(db, factories.campaign(db), cast.alice), replies=("**Hi**", "Ho"))
    db.commit()
    redis.xadd(f"turn:{turn.id}", {"event": "text", "position": 1, "text": "Ho\n<b>"})
    sign_in(cast.alice)
    answer = client.get(f"/api/turns/{turn.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    blocks = answer.text.strip().split("\n\n")
    assert blocks[0] == "retry: 1000"
    assert blocks[1].endswith('event: text\ndata: {"position": 1, "text": "Ho\\n<b>"}')
    assert blocks[2].startswith("event: ready\ndata: ")
    assert "<strong>Hi</strong>" in blocks[2]


def test_health_names_what_is_away(client, redis, share_rows, db, settings) -> None:
    found = client.get("/health").json()
    assert found == {
        "status": "degraded",
        "database": True,
        "revision_at_head": True,
        "redis": True,
        "reply_worker": False,
    }
    redis.set("reply_worker:a-host-1", "1", ex=20)
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/ready").json() == {"ready": True}
