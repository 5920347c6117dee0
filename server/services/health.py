"""Whether the parts of an installation answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.migrate import revisions
from server.services.limits import redis_client
from server.settings import Settings

# A reply worker sets this key (to its time, seconds since 1970) at least every REPLY_WORKER_SECONDS.
REPLY_WORKER_KEY = "alive:reply"
REPLY_WORKER_SECONDS = 15.0


def check(settings: Settings, open_transaction: Callable[[], AbstractContextManager[Session]]) -> dict[str, bool | str]:
    """What answers: database, revision_at_head, redis, reply_worker; `status` is ok, degraded or down.

    Without a database nothing works (down). Without Redis or a reply worker messages are kept, but wait (degraded).
    """
    database, at_head = _database(settings, open_transaction)
    redis, reply_worker = _redis(settings)
    status = "down" if not (database and at_head) else "ok" if redis and reply_worker else "degraded"
    return {
        "status": status,
        "database": database,
        "revision_at_head": at_head,
        "redis": redis,
        "reply_worker": reply_worker,
    }


def _database(
    settings: Settings, open_transaction: Callable[[], AbstractContextManager[Session]]
) -> tuple[bool, bool]:
    try:
        with open_transaction() as db:
            db.execute(text("SELECT 1"))
        assert settings.database_url is not None
        current, newest = revisions(settings.database_url)
    except SQLAlchemyError:
        return False, False
    return True, current == newest


def _redis(settings: Settings) -> tuple[bool, bool]:
    assert settings.redis_url is not None
    try:
        seen = redis_client(settings.redis_url).get(REPLY_WORKER_KEY)
    except RedisError:
        return False, False
    return True, seen is not None and time.time() - float(str(seen)) < REPLY_WORKER_SECONDS
