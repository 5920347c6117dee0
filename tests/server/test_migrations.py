"""The migrations build what the models say, go down to nothing, and up again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect, text
from sqlalchemy.engine import make_url

import server.models  # noqa: F401 - registers every table
from server.db import Base, engine_for
from server.migrate import _INI, upgrade
from server.revision import revisions


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """A database of its own beside the tests' one."""
    url = make_url(database_url).set(database="migration_test")
    with engine_for(database_url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS migration_test"))
        connection.execute(text("CREATE DATABASE migration_test"))
    address = url.render_as_string(hide_password=False)
    yield address
    engine_for(address).dispose()
    with engine_for(database_url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE migration_test WITH (FORCE)"))


def test_up_matches_the_models_and_down_leaves_nothing(empty_database: str) -> None:
    assert revisions(empty_database)[0] is None
    upgrade(empty_database)
    current, newest = revisions(empty_database)
    assert current == newest == ScriptDirectory.from_config(Config(str(_INI))).get_current_head()
    with engine_for(empty_database).connect() as connection:
        drift = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True}),
            Base.metadata,
        )
        assert not drift
        checks = {
            (table, check["name"])
            for table in Base.metadata.tables
            for check in inspect(connection).get_check_constraints(table)
        }
        wanted = {
            (table.name, constraint.name)
            for table in Base.metadata.sorted_tables
            for constraint in table.constraints
            if isinstance(constraint, CheckConstraint)
        }
        assert checks == wanted  # autogenerate does not compare these
        connection.rollback()
        config = Config(str(_INI))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        left = set(inspect(connection).get_table_names()) - {"alembic_version"}
        assert not left
    upgrade(empty_database)
    assert revisions(empty_database)[0] == newest


def test_the_web_process_loads_nothing_that_it_never_uses() -> None:
    """Each of these would be some megabytes of every web process."""
    needless = {
        "alembic",
        "mako",
        "pygments",
        "torch",
        "transformers",
        "matplotlib",
        "numpy",
        "pyarrow",
        "httpx",
        "rich",
    }
    program = f"import sys, server.app; print(sorted({needless!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
