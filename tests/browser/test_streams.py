"""Many pages that listen at once, on a real server."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from server.db import engine_for
from tests.browser.conftest import Live

pytestmark = pytest.mark.slow
STREAMS = 60  # more than the pool's 10 + 30 connections


def test_open_streams_hold_no_database_connection(live: Live) -> None:
    with ThreadPoolExecutor(1) as another_thread:  # playwright's loop may occupy this one
        another_thread.submit(asyncio.run, listen_and_ask(live)).result()


async def listen_and_ask(live: Live) -> None:
    link = live.link_for("Alice").rsplit("/", 1)[1]
    limits = httpx.Limits(max_connections=STREAMS + 5)
    async with httpx.AsyncClient(base_url=live.url, limits=limits, timeout=20) as http:
        token = (await http.post("/api/session", json={"link": link})).json()["csrf_token"]
        http.headers["X-CSRF-Token"] = token
        body = {"text": "Hello", "idempotency_key": "key-of-the-page"}
        turn = (await http.post("/api/campaigns/helpful/messages", json=body)).json()["turn"]
        everybody_listens = asyncio.Barrier(STREAMS + 1)

        async def listen() -> None:
            async with http.stream("GET", f"/api/turns/{turn['id']}/events") as stream:
                assert stream.status_code == 200
                async for line in stream.aiter_lines():
                    if line.startswith("retry:"):
                        break
                await everybody_listens.wait()
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(listen()) for _ in range(STREAMS)]
        await everybody_listens.wait()
        answers = await asyncio.gather(*(http.get(f"/api/turns/{turn['id']}") for _ in range(4)))
        assert [each.status_code for each in answers] == [200] * 4
        # Each stream looks at the rows now and then; between the looks it holds nothing.
        assert engine_for(str(live.settings.database_url)).pool.checkedout() < STREAMS / 2
        await asyncio.gather(*tasks)
