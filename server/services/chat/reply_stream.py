"""What a page hears while its replies are written: the worker's Redis stream, with the rows behind it.

The stream `turn:<id>` is only a nudge that carries text. Whether a turn is ready or failed is asked of the rows, so an
old stream (a retry), an expired one, or a Redis that is away changes how much is seen on the way, never how it ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from anyio import CancelScope
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.services.people.limits import redis_client

log = logging.getLogger("whetstone.replies")

BLOCK_MILLISECONDS = 1000
ROWS_EVERY_SECONDS = 2.0
# Proxies close connections that are silent for long; a comment keeps them open.
HEARTBEAT_SECONDS = 10.0
# A page that is still open after this asks again by itself; a forgotten one does not hold a connection for ever.
LONGEST_SECONDS = 900.0
_ENTRY_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
TERMINAL = {"ready": "ready", "compared": "ready", "failed": "failed"}


@dataclass(frozen=True)
class Event:
    """One server-sent event; without a name it is a heartbeat."""

    name: str | None
    fields: dict[str, Any]
    entry_id: str | None = None


def stream_key(turn_id: int) -> str:
    """Where the reply worker writes about a turn."""
    return f"turn:{turn_id}"


def forget(redis_url: str, turn_id: int) -> None:
    """Drop what was heard of an attempt that failed, before the next one; a Redis that is away has nothing to show."""
    try:
        redis_client(redis_url).delete(stream_key(turn_id))
    except RedisError as error:
        log.warning("Redis did not drop the stream of turn %s (%s).", turn_id, error)


async def follow(
    redis_url: str, turn_id: int, last_entry_id: str, read_status: Callable[[], Awaitable[str]]
) -> AsyncGenerator[Event]:
    """The events of a turn after `last_entry_id`, ending with `ready` or `failed` once the rows say so.

    `read_status` reads the turn's status in a transaction of its own; between its calls no database connection is held.
    """
    place = last_entry_id if _ENTRY_ID.fullmatch(last_entry_id) else "0"
    started = heard = time.monotonic()
    looked = 0.0
    async with _own_connection(redis_url) as redis:
        while time.monotonic() - started < LONGEST_SECONDS:
            entries = await _read(redis, turn_id, place)
            ended = False
            for entry_id, fields in entries:
                place = entry_id
                event = _as_event(entry_id, fields)
                if event is None:
                    ended = True
                else:
                    yield event
            now = time.monotonic()
            if entries:
                heard = now
            if ended or now - looked >= ROWS_EVERY_SECONDS:
                looked = now
                end = TERMINAL.get(await read_status())
                if end is not None:
                    yield Event(end, {})
                    return
            if now - heard >= HEARTBEAT_SECONDS:
                heard = now
                yield Event(None, {})


@asynccontextmanager
async def _own_connection(redis_url: str) -> AsyncIterator[Redis]:
    """One connection a page: a blocking read occupies it. Its time-out must outlast the blocking."""
    redis = Redis.from_url(
        redis_url, decode_responses=True, socket_timeout=BLOCK_MILLISECONDS / 1000 + 5, socket_connect_timeout=2
    )
    try:
        yield redis
    finally:
        # A page that has left cancels every further await; unshielded, the client would be dropped with its socket open.
        with CancelScope(shield=True):
            await redis.aclose()


async def _read(redis: Redis, turn_id: int, place: str) -> list[tuple[str, dict[str, str]]]:
    try:
        found: Any = await redis.xread({stream_key(turn_id): place}, count=500, block=BLOCK_MILLISECONDS)
    except (RedisError, OSError) as error:
        log.warning("Redis does not answer (%s); turn %s is followed by its rows.", error, turn_id)
        await asyncio.sleep(BLOCK_MILLISECONDS / 1000)
        return []
    if isinstance(found, dict):  # RESP3 answers with a map
        pages = [entries for batches in found.values() for entries in batches]
    else:
        pages = [entries for _, entries in found]
    return [(entry_id, fields) for entries in pages for entry_id, fields in entries]


def _as_event(entry_id: str, fields: dict[str, str]) -> Event | None:
    """An event of one reply; None for those about the whole turn, which the rows have to confirm."""
    name = fields.get("event", "")
    if name not in ("text", "restart", "done"):
        return None
    told: dict[str, Any] = {"position": int(fields.get("position", "0"))}
    if name == "text":
        told["text"] = fields.get("text", "")
    return Event(name, told, entry_id)
