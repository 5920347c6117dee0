"""Whether the parts of an installation answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.revision import revisions
from server.services.people.limits import redis_client
from server.settings import Settings

# Each reply worker renews a key of its own, which expires when it stops (`workers.reply.worker`).
REPLY_WORKER_KEYS = "reply_worker:*"


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


def _database(settings: Settings, open_transaction: Callable[[], AbstractContextManager[Session]]) -> tuple[bool, bool]:
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
        seen = any(True for _ in redis_client(settings.redis_url).scan_iter(match=REPLY_WORKER_KEYS, count=1000))
    except RedisError:
        return False, False
    return True, seen
