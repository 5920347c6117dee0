"""One transaction a migration, short timeouts, and an advisory lock so that two processes never migrate at once."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

import server.models  # noqa: F401 - registers every table
from server.db import Base

# Any constant does, as long as nothing else in this database uses it.
ADVISORY_LOCK = 7_220_405_862


def run(connection: Connection) -> None:
    """Run the migrations asked for over an open connection."""
    # A migration that cannot get its lock fails quickly instead of queueing every reader behind it.
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.execute(text("SET statement_timeout = '300s'"))
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            compare_type=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
        connection.commit()


if context.is_offline_mode():
    raise SystemExit("Offline SQL is not supported: run the migrations against a database.")
given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.config.get_main_option("sqlalchemy.url") or os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit("Set DATABASE_URL, or use `whetstone migrate`.")
    # urls are usually written postgres:// or postgresql://; the driver is psycopg 3
    url = "postgresql+psycopg://" + url.split("://", 1)[1]
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        run(connection)
