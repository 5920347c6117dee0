"""Bring a database to the newest revision."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from server.db import engine_for

_INI = Path(__file__).resolve().parent.parent / "migrations" / "alembic.ini"


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run all migrations up to `revision`; safe to call from several processes at once (advisory lock)."""
    with engine_for(database_url).connect() as connection:
        config = Config(str(_INI))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
