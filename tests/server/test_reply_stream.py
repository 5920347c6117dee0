"""The stream of a turn: replayed from where one left off, confirmed by the rows, alive without Redis."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager

import pytest
from anyio import create_task_group, sleep

from server.edge import short_transactions
from server.routes.event_stream import EventStream
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


async def leave(redis, redis_url: str, where: str) -> int:
    """How many connections are left of a page that left while the stream waited for Redis, for the rows, or for the page."""
    there = asyncio.Event()
    others = {client["id"] for client in redis.client_list()}

    def of_the_page() -> list[str]:
        """What Redis was last asked on each connection that was not there before."""
        return [client["cmd"] for client in redis.client_list() if client["id"] not in others]

    async def read_status() -> str:
        if where == "rows":
            there.set()
            await sleep(60)
        return "sampling"

    async with create_task_group() as page:

        async def listen() -> None:
            async with aclosing(reply_stream.follow(redis_url, 1, "", read_status)) as events:
                async for _ in events:
                    if where == "page":
                        there.set()
                        await sleep(60)

        page.start_soon(listen)
        while not there.is_set():
            await sleep(0.01)
            if where == "redis" and "xread" in of_the_page():
                there.set()
        assert len(of_the_page()) == 1
        page.cancel_scope.cancel()
    return len(of_the_page())


@pytest.mark.parametrize("where", ["redis", "rows", "page"])
def test_a_page_that_leaves_takes_its_connection_with_it(redis, redis_url, monkeypatch, where) -> None:
    if where == "rows":  # no waiting for Redis before it
        monkeypatch.setattr(reply_stream, "BLOCK_MILLISECONDS", 10)
    write(redis, "text", "Hel")
    assert asyncio.run(leave(redis, redis_url, where)) == 0


def test_events_are_closed_when_their_page_cannot_be_told_any_more() -> None:
    closed = []

    async def events():
        try:
            yield "data: 1\n\n"
        finally:
            await sleep(0.01)
            closed.append(True)

    async def send(message) -> None:
        if message["type"] == "http.response.body":
            page.cancel_scope.cancel()
            await sleep(60)

    async def answer() -> None:
        nonlocal page
        async with create_task_group() as page:
            await EventStream(events()).stream_response(send)
        assert closed == [True]  # here, and not when the collector comes by

    page = None
    asyncio.run(answer())


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
