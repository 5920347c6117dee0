"""What one reply worker process keeps while it lives: the writer, the backends, the heartbeat of what it has claimed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from server.settings import Settings
from server.transaction import transaction
from workers.context import connected_settings, process_name
from workers.reply import rows
from workers.reply.endpoint import EndpointBackend
from workers.reply.local import LocalBackend
from workers.reply.stream import Pen, StreamWriter, stream_redis
from workers.reply.threads import start_essential

log = logging.getLogger("whetstone.reply")

HEARTBEAT_SECONDS = 5.0
# Redis key with an expiry that says a reply worker lives; the health page looks for `reply_worker:*`.
SEEN_SECONDS = 15


class Backend(Protocol):
    """Writes replies of the snapshots of one kind."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def write(self, pens: Sequence[Pen]) -> None:
        """Write these replies of one turn; each pen's `end` is called once."""


class ReplyWorker:
    """The parts of one process. Everything it knows is also in Postgres: it may be killed at any moment."""

    def __init__(self, settings: Settings, name: str | None = None) -> None:
        self.database_url = str(settings.database_url)
        self.redis_url = str(settings.redis_url)
        self.name = name or process_name()
        self._redis = stream_redis(self.redis_url)
        self.writer = StreamWriter(self._redis)
        self.local = LocalBackend(self.writer, Path(settings.artifacts))
        self._backends: dict[str, Backend] = {"local": self.local, "openai": EndpointBackend()}
        self._held: dict[int, Pen] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the threads, load what is deployed, and ask again for what dead workers of this host left."""
        self.writer.start()
        for backend in self._backends.values():
            backend.start()
        try:
            with transaction(self.database_url, self.redis_url) as db:
                left = rows.ask_again_for_the_dead(db)
            if left:
                log.warning("Asked again for %d turns that a dead worker had begun.", len(left))
        except SQLAlchemyError as error:
            log.warning("Postgres did not answer at the start (%s); the sweep finds what was left.", error)
        start_essential("keeper", self._keep)

    def write(self, pens: Sequence[Pen]) -> None:
        """Hand the replies of one turn to the backends of their snapshots."""
        for kind, backend in self._backends.items():
            mine = [pen for pen in pens if pen.ask.source.backend == kind]
            if mine:
                backend.write(mine)

    @contextmanager
    def holding(self, pens: Sequence[Pen]) -> Iterator[None]:
        """Renew the heartbeat of these candidates meanwhile; a pen whose candidate was lost is dropped."""
        with self._lock:
            self._held.update({pen.ask.candidate_id: pen for pen in pens})
        try:
            yield
        finally:
            with self._lock:
                for pen in pens:
                    if self._held.get(pen.ask.candidate_id) is pen:
                        del self._held[pen.ask.candidate_id]

    def stop(self) -> None:
        """Say that this process answers no more; call it when nothing is being written."""
        self._stopped.set()
        for backend in self._backends.values():
            backend.stop()
        try:
            self._redis.delete(self._seen_key)
            self._redis.close()
        except RedisError as error:
            log.info("Redis does not answer (%s); the key expires by itself.", error)

    @property
    def _seen_key(self) -> str:
        return f"reply_worker:{self.name}"

    def _keep(self) -> None:
        while not self._stopped.is_set():
            self._beat()
            self._stopped.wait(HEARTBEAT_SECONDS)

    def _beat(self) -> None:
        with self._lock:
            held = dict(self._held)
        try:
            with transaction(self.database_url, self.redis_url) as db:
                lost = rows.renew(db, {number: pen.ask.claim for number, pen in held.items()})
                wanted = [source for source in rows.serving(db) if source.backend == "local"]
        except SQLAlchemyError as error:
            log.warning("Postgres did not answer (%s); the next heartbeat tries again.", type(error).__name__)
            return
        for number in lost:
            held[number].drop()  # settled this instant, or claimed by another worker
        self.local.keep(wanted)
        try:
            self._redis.set(self._seen_key, ",".join(self.local.names()), ex=SEEN_SECONDS)
        except RedisError as error:
            log.warning("Redis did not answer (%s); the next heartbeat tries again.", error)


_making = threading.Lock()


def resident_worker() -> ReplyWorker:
    """This process's worker, started on first use: once, however many threads of the pool ask for it at the same time."""
    with _making:
        return _made()


@lru_cache(maxsize=1)
def _made() -> ReplyWorker:
    worker = ReplyWorker(connected_settings())
    worker.start()
    return worker
