"""At which migration a database stands, and which is the newest of this code. Without Alembic: the web process asks, and migrates nothing."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from sqlalchemy import text

from server.db import engine_for

VERSIONS = Path(__file__).resolve().parent.parent / "migrations" / "versions"
_NAME = re.compile(r"^revision\b.*?= *['\"](.+?)['\"]", re.MULTILINE)
_FOLLOWS = re.compile(r"^down_revision\b.*?= *['\"](.+?)['\"]", re.MULTILINE)


@lru_cache(maxsize=1)
def newest() -> str:
    """The migration that no other follows; they stand in one line (tests/test_house.py)."""
    texts = [path.read_text("utf-8") for path in VERSIONS.glob("*.py")]
    names: set[str] = {name for each in texts for name in _NAME.findall(each)}
    (last,) = names - {name for each in texts for name in _FOLLOWS.findall(each)}
    return last


def revisions(database_url: str) -> tuple[str | None, str]:
    """(the database's revision, the newest revision of this code); the first is None before the first migration."""
    with engine_for(database_url).connect() as connection:
        there = connection.scalar(text("SELECT to_regclass('alembic_version')")) is not None
        current = connection.scalar(text("SELECT version_num FROM alembic_version")) if there else None
    return current, newest()
