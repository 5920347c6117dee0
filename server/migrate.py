"""Bring a database to the newest revision, or say at which it is."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from server.db import engine_for

_INI = Path(__file__).resolve().parent.parent / "migrations" / "alembic.ini"


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run all migrations up to `revision`; safe to call from several processes at once (advisory lock)."""
    with engine_for(database_url).connect() as connection:
        config = Config(str(_INI))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def revisions(database_url: str) -> tuple[str | None, str | None]:
    """(the database's revision, the newest revision of this code); the first is None before the first migration."""
    with engine_for(database_url).connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(Config(str(_INI))).get_current_head()
