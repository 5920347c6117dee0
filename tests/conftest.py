"""One migrated database and one Redis for the run; each test in a transaction that is rolled back; a named cast.

The servers are the embedded ones, or those of WHETSTONE_TEST_DATABASE_URL and WHETSTONE_TEST_REDIS_URL when both are set (that
database is emptied by the tests that need committed rows).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from redis import Redis
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server.app import create_app
from server.db import Base, engine_for
from server.edge import SESSION_COOKIE
from server.embedded import services
from server.migrate import upgrade
from server.models import Person
from server.services.people import people
from server.settings import Settings, load_settings
from tests import factories

ORIGIN = "http://testserver"


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Connected settings of a throw-away home with a migrated database."""
    home = tmp_path_factory.mktemp("home")
    environ = {"WHETSTONE_HOME": str(home), "WHETSTONE_SECRET": secrets.token_urlsafe(48), "WHETSTONE_DEMO": "1"}
    given = os.environ.get("WHETSTONE_TEST_DATABASE_URL"), os.environ.get("WHETSTONE_TEST_REDIS_URL")
    if all(given):
        environ |= {"DATABASE_URL": str(given[0]), "REDIS_URL": str(given[1])}
    with services(load_settings(environ)) as urls:
        connected = load_settings(environ).connected(urls.database_url, urls.redis_url)
        upgrade(str(connected.database_url))
        yield connected
        engine_for(str(connected.database_url)).dispose()


@pytest.fixture(scope="session")
def database_url(settings: Settings) -> str:
    """SQLAlchemy's address of the test database."""
    return str(settings.database_url)


@pytest.fixture(scope="session")
def redis_url(settings: Settings) -> str:
    """redis-py's address of the test Redis."""
    return str(settings.redis_url)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """An emptied Redis."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def db(database_url: str) -> Iterator[Session]:
    """A session whose commits are savepoints of one transaction that is rolled back at the end."""
    with engine_for(database_url).connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False) as session:
            yield session
        outer.rollback()


@pytest.fixture
def committed(database_url: str, settings: Settings) -> Iterator[str]:
    """The database's address for tests with several connections or processes; every table is emptied afterwards.

    Numbers begin anew with the tables, so folders of the artifacts that are named by them must go first.
    """
    shutil.rmtree(settings.artifacts, ignore_errors=True)
    yield database_url
    names = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
    with engine_for(database_url).begin() as connection:
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))


@dataclass
class Cast:
    """Alice and Bob compare, Rosa researches, Ada administers; Mallory compares too and has no business with the others' work."""

    alice: Person
    bob: Person
    mallory: Person
    rosa: Person
    ada: Person


@pytest.fixture
def cast(db: Session) -> Cast:
    """The five people, stored."""
    return Cast(
        alice=factories.person(db, "Alice", "crowdworker"),
        bob=factories.person(db, "Bob", "crowdworker"),
        mallory=factories.person(db, "Mallory", "crowdworker"),
        rosa=factories.person(db, "Rosa", "researcher"),
        ada=factories.person(db, "Ada", "admin"),
    )


@pytest.fixture
def sent_tasks() -> list[tuple[str, dict[str, int]]]:
    """The tasks that `client` would have sent after its commits."""
    return []


@pytest.fixture
def client(
    settings: Settings, db: Session, redis: Redis, sent_tasks: list[tuple[str, dict[str, int]]]
) -> Iterator[TestClient]:
    """The application on the test's own transaction: what a request commits, `db` sees; what it rolls back is gone."""
    app = create_app(settings)

    def share() -> Iterator[Session]:
        try:
            yield db
        except BaseException:
            db.info.pop("tasks", None)
            db.rollback()
            raise
        db.commit()
        sent_tasks.extend(db.info.pop("tasks", []))

    def share_driver() -> Iterator[object]:
        with contextmanager(share)() as session:
            yield session.connection().connection.driver_connection

    app.state.transactions = contextmanager(share)
    app.state.connections = contextmanager(share_driver)
    with TestClient(app, base_url=ORIGIN, raise_server_exceptions=False, follow_redirects=False) as test_client:
        yield test_client


@pytest.fixture
def sign_in(client: TestClient, db: Session) -> Callable[[Person | None], str]:
    """Make `client` act as a person (or nobody); returns the CSRF token, which is also sent with every request."""

    def act_as(person: Person | None) -> str:
        client.cookies.clear()
        client.headers.pop("X-CSRF-Token", None)
        if person is None:
            return ""
        token, csrf = people.start_session(db, person)
        db.commit()
        client.cookies.set(SESSION_COOKIE, token)
        client.headers["X-CSRF-Token"] = csrf
        return csrf

    return act_as
