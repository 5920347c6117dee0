"""The engine, the naming of constraints, and the base of every table."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from math import inf
from time import monotonic
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, Engine, Identity, MetaData, create_engine, event, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.types import Text

# Named constraints let a migration drop exactly the one it means, on every installation.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Key = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]
Now = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
Json = dict[str, Any]


class Base(DeclarativeBase):
    """Every table: `text` for strings, `timestamptz` for times, JSONB for free-form detail."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {
        str: Text,
        datetime: DateTime(timezone=True),
        Json: JSONB,
        list[str]: ARRAY(Text),
        int: BigInteger,
    }


# A connection that answered this lately is taken for alive: asking before every use would be a fifth of a short request.
TRUSTED_SECONDS = 2.0
CONNECTIONS = 40  # of a process at most; PostgreSQL as it comes allows 100, and the workers have theirs
LOCK_TIMEOUT_MS = 10_000  # a statement that waits longer for somebody else's row gives up


@lru_cache(maxsize=4)
def engine_for(database_url: str) -> Engine:
    """One pool per process and database; a connection that has been idle is asked whether it lives before it is used."""
    engine = create_engine(
        database_url,
        # All are kept once opened. An overflow, closed after each use, cost 16 people at once half of what their answers cost:
        # a new session of Postgres is a process that knows no statement yet.
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=10,
        pool_use_lifo=True,  # the few that are used stay trusted, and the rest can go
        connect_args={"connect_timeout": 5, "options": f"-c timezone=utc -c lock_timeout={LOCK_TIMEOUT_MS}"},
    )

    @event.listens_for(engine, "checkin")
    def note(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["seen"] = monotonic()

    @event.listens_for(engine, "checkout")
    def look(connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        if monotonic() - record.info.get("seen", -inf) < TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the connection died while it was idle") from error  # the pool takes another

    return engine


@lru_cache(maxsize=4)
def session_factory(database_url: str) -> sessionmaker[Session]:
    """New sessions on `database_url`; rows stay readable after the commit. One factory per process: each is a class of its own."""
    return sessionmaker(engine_for(database_url), expire_on_commit=False)
