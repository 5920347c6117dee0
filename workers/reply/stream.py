"""Text into the Redis stream `turn:<id>` that the page follows, from one thread for all replies of the process.

Fields of an entry: event (text, restart, done, ready, failed), position, text, reason. Rows are the truth: when Redis is away the
writing goes on, and the next entry that arrives is a `restart` with all text so far.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from server.services.chat.reply_stream import stream_key
from workers.reply.asks import Ask, Failed, Outcome, Written
from workers.reply.threads import start_essential

log = logging.getLogger("whetstone.reply")

FLUSH_SECONDS = 0.03  # between two entries; the eye does not see more, and 64 replies share one round trip
KEPT_SECONDS = 3600  # a page that comes back within the hour replays the stream; later it reads the rows
MAX_ENTRIES = 20_000  # of one turn: two replies of 4,096 tokens never reach it

Entry = tuple[int, dict[str, str | int]]


def stream_redis(redis_url: str) -> Redis:
    """A client that fails at once: the text must not wait for a Redis that is away."""
    return Redis.from_url(
        redis_url, decode_responses=True, socket_timeout=2, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )


@dataclass(frozen=True)
class _Grow:
    piece: Any


@dataclass(frozen=True)
class _Again:
    pass


@dataclass(frozen=True)
class _End:
    make: Callable[[], Outcome]


class Ends(Protocol):
    """Where the ends of replies go: a queue, or what chooses among several."""

    def put(self, item: tuple[Ask, Outcome], /) -> None: ...


class Pen:
    """Writes one candidate's reply; a backend calls it from any thread, `end` exactly once.

    `withheld`: its rival cannot be streamed, so nothing is shown before both are done. `spell` makes text of the pieces that a
    backend adds (text itself by default). `sample_of`: the pen of the candidate that this is one of several replies for.
    """

    def __init__(
        self, writer: StreamWriter, ask: Ask, ended: Ends, *, withheld: bool, sample_of: Pen | None = None
    ) -> None:
        self.ask = ask
        self.withheld = withheld
        self.spell: Callable[[Sequence[Any]], str] = "".join
        self._sample_of = sample_of
        self._dropped = False
        self._writer = writer
        self.ended = ended
        # Of the writer's thread:
        self.pending: list[Any] = []
        self.shown = ""
        self.torn = False  # an entry was lost

    @property
    def dropped(self) -> bool:
        """Nobody wants the reply any more."""
        return self._dropped or (self._sample_of is not None and self._sample_of.dropped)

    def drop(self) -> None:
        """Say that nobody wants the reply any more; whoever writes it ends it when it sees that."""
        self._dropped = True

    def add(self, piece: Any) -> None:
        """A further piece of the reply."""
        self._writer.take([(self, _Grow(piece))])

    def begin_again(self) -> None:
        """What was written so far is void (a crash, or a stream that broke off)."""
        self._writer.take([(self, _Again())])

    def end(self, outcome: Outcome) -> None:
        """The reply is whole, or will not come."""
        self._writer.take([(self, _End(lambda: outcome))])


class StreamWriter:
    """The thread that turns pieces into text and text into entries."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._inbox: SimpleQueue[Iterable[tuple[Pen, Any]]] = SimpleQueue()

    def start(self) -> None:
        """Begin to write."""
        start_essential("stream-writer", self._run)

    def take(self, items: Iterable[tuple[Pen, Any]]) -> None:
        """Queue what happened; never waits."""
        self._inbox.put(items)

    def grown(self, pen: Pen, piece: Any) -> tuple[Pen, Any]:
        """An item for `take`: a further piece."""
        return pen, _Grow(piece)

    def finished(self, pen: Pen, make: Callable[[], Outcome]) -> tuple[Pen, Any]:
        """An item for `take`: the end; `make` is called in the writer's thread, which spares the engine's."""
        return pen, _End(make)

    def send(self, turn_id: int, event: str, position: int | None = None, **fields: str) -> None:
        """One entry now, from the caller's thread: for what follows a commit."""
        place = {} if position is None else {"position": position}
        self._add([(turn_id, {"event": event, **place, **fields})])

    def has_entries(self, turn_id: int) -> bool:
        """Whether a page may have seen text of this turn before."""
        try:
            return bool(self._redis.exists(stream_key(turn_id)))
        except RedisError:
            return False  # then it cannot be told either

    def _run(self) -> None:
        while True:
            self._flush(self._gather())
            time.sleep(FLUSH_SECONDS)  # after, not before: the first words leave at once

    def _gather(self) -> list[tuple[Pen, Any]]:
        items = list(self._inbox.get())
        while True:
            try:
                items += self._inbox.get_nowait()
            except Empty:
                return items

    def _flush(self, items: list[tuple[Pen, Any]]) -> None:
        grown: dict[Pen, None] = {}
        entries: list[Entry] = []
        ends: list[tuple[Pen, Outcome]] = []
        for pen, item in items:
            match item:
                case _Grow(piece):
                    pen.pending.append(piece)
                    grown[pen] = None
                case _Again():
                    grown.pop(pen, None)
                    pen.pending.clear()
                    pen.shown, pen.torn = "", False
                    entries += [_entry(pen, "restart")]
                case _End(make):
                    grown.pop(pen, None)
                    outcome = make()
                    ends.append((pen, outcome))
                    entries += _rest(pen, outcome)
        for pen in grown:
            text = pen.spell(pen.pending)
            pen.pending.clear()
            if text:
                entries += _show(pen, pen.shown + text)
        if not self._add(entries):
            for pen in {pen for pen, _ in items}:
                pen.torn = True
        for pen, outcome in ends:
            pen.ended.put((pen.ask, outcome))

    def _add(self, entries: Sequence[Entry]) -> bool:
        if not entries:
            return True
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for turn_id, fields in entries:
                    pipeline.xadd(stream_key(turn_id), fields, maxlen=MAX_ENTRIES, approximate=True)  # type: ignore[arg-type]
                for turn_id in {turn_id for turn_id, _ in entries}:
                    pipeline.expire(stream_key(turn_id), KEPT_SECONDS)
                pipeline.execute()
        except RedisError as error:
            log.warning("Redis did not take %d stream entries (%s); the rows are kept.", len(entries), error)
            return False
        return True


def _entry(pen: Pen, event: str, **fields: str) -> Entry:
    return pen.ask.turn_id, {"event": event, "position": pen.ask.position, **fields}


def _rest(pen: Pen, outcome: Outcome) -> list[Entry]:
    """What of a whole reply is not shown yet."""
    match outcome:
        case Written(text=text):
            return _show(pen, text)
        case Failed():
            return []


def _show(pen: Pen, text: str) -> list[Entry]:
    """The entries after which the page has `text`."""
    before, pen.shown = pen.shown, text
    if pen.withheld or (text == before and not pen.torn):
        return []
    if text.startswith(before) and not pen.torn:
        return [_entry(pen, "text", text=text[len(before) :])]
    pen.torn = False
    return [_entry(pen, "restart"), *([_entry(pen, "text", text=text)] if text else [])]
