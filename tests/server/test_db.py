"""The pool: connections that died while nobody used them are replaced before anybody meets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, text

from server import db
from server.db import engine_for


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A pool of its own: the option at the end of the address makes it another."""
    separate = f"{database_url}{'&' if '?' in database_url else '?'}application_name=pool-test"
    found = engine_for(separate)
    yield found
    found.dispose()


def backend(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def kill(database_url: str, pid: int) -> None:
    with engine_for(database_url).connect() as other:
        assert other.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def test_an_idle_connection_that_died_is_replaced_unseen(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backend(engine)
    kill(database_url, first)
    monkeypatch.setattr(db, "TRUSTED_SECONDS", 0.0)
    assert backend(engine) != first


def test_a_connection_that_was_just_used_is_not_asked_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = backend(engine)

    def ask(_connection: object) -> bool:
        raise AssertionError("asked again")

    monkeypatch.setattr(engine.dialect, "do_ping", ask)
    assert backend(engine) == first
    monkeypatch.setattr(db, "TRUSTED_SECONDS", 0.0)
    with pytest.raises(AssertionError, match="asked again"):
        backend(engine)


def test_after_an_error_of_a_trusted_connection_the_next_is_new(engine: Engine, database_url: str) -> None:
    first = backend(engine)
    kill(database_url, first)
    with pytest.raises(Exception, match=r"terminat|closed"):
        backend(engine)
    assert backend(engine) != first


def test_connections_that_a_crowd_needed_are_kept_for_the_next(engine: Engine) -> None:
    opened: list[object] = []
    event.listen(engine, "connect", lambda connection, _record: opened.append(connection))
    for _ in range(3):
        crowd = [engine.connect() for _ in range(25)]
        for connection in crowd:
            connection.close()
    assert len(opened) <= 25
