"""Commit, then send: the only way a row becomes work for a Celery worker.

A task message holds ids, never objects, and leaves only after its rows are committed. If Redis is away at that moment
the commit stands and the message is lost; the sweep (`workers.sweep`) asks again from the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import cast

from celery import Celery
from kombu.exceptions import OperationalError
from psycopg import Connection
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from server.db import engine_for, session_factory
from server.settings import OperatorError, Settings

log = logging.getLogger("whetstone.transaction")

# Which queue a task goes to: replies must never wait behind training.
QUEUES = {
    "reply": "reply",
    "advance_round": "train",
    "run_job": "train",
    "sweep": "tick",
    "tidy": "tick",
    "prepare_openings": "tick",
    "tick_schedule": "tick",
    "send_sign_in_link": "tick",
}


@lru_cache(maxsize=2)
def celery_client(redis_url: str) -> Celery:
    """A sending-only Celery application; it knows no task bodies."""
    client = Celery("whetstone", broker=celery_broker_url(redis_url))
    client.conf.update(
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 2, "max_retries": 1},
        task_publish_retry=False,
    )
    return client


def celery_broker_url(redis_url: str) -> str:
    """Celery names a unix socket `redis+socket://`, redis-py `unix://`; we keep redis-py's form in settings."""
    return redis_url.replace("unix://", "redis+socket://", 1) if redis_url.startswith("unix://") else redis_url


def ask_for(db: Session, task: str, **ids: int) -> None:
    """Remember to send `task` once `db` has committed; a rollback forgets it."""
    if task not in QUEUES:
        raise ValueError(f"no queue is named for task {task!r}; add it to server.transaction.QUEUES")
    wanted: list[tuple[str, dict[str, int]]] = db.info.setdefault("tasks", [])
    if (task, ids) not in wanted:
        wanted.append((task, ids))


@contextmanager
def transaction(database_url: str, redis_url: str) -> Iterator[Session]:
    """One transaction: commit at the end and send what was asked for; any exception rolls both back."""
    with session_factory(database_url).begin() as db:
        yield db
        wanted: list[tuple[str, dict[str, int]]] = db.info.pop("tasks", [])
    for task, ids in wanted:
        send(redis_url, task, ids)


def transaction_of(settings: Settings) -> AbstractContextManager[Session]:
    """One transaction on the services that `settings` name; OperatorError where they name none."""
    if settings.database_url is None or settings.redis_url is None:
        raise OperatorError("DATABASE_URL and REDIS_URL are needed; `whetstone up` starts everything with both.")
    return transaction(settings.database_url, settings.redis_url)


@contextmanager
def driver_transaction(database_url: str) -> Iterator[Connection]:
    """One transaction on a connection of the pool, without SQLAlchemy's session around it, which costs as much as a statement.

    For what asks for no task. The connection goes back to the pool, which rolls back what an exception left.
    """
    pooled = engine_for(database_url).raw_connection()
    try:
        yield cast("Connection", pooled.driver_connection)
        pooled.commit()
    finally:
        pooled.close()


def send(redis_url: str, task: str, ids: dict[str, int]) -> bool:
    """Send one task message now; False (and a warning) when the broker is away, since the sweep will ask again."""
    try:
        celery_client(redis_url).send_task(task, kwargs=ids, queue=QUEUES[task])
    except (OperationalError, RedisError, OSError) as error:
        log.warning("Redis did not take %s %s (%s); the sweep will ask again.", task, ids, error)
        return False
    return True
