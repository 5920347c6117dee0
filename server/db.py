"""The engine, the naming of constraints, and the base of every table."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, Engine, Identity, MetaData, create_engine, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, sessionmaker
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


@lru_cache(maxsize=4)
def engine_for(database_url: str) -> Engine:
    """One pool per process and database; a dead connection is noticed before it is used."""
    return create_engine(
        database_url,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
        pool_timeout=10,
        connect_args={"connect_timeout": 5, "options": "-c timezone=utc -c lock_timeout=10000"},
    )


def session_factory(database_url: str) -> sessionmaker[Session]:
    """New sessions on `database_url`; rows stay readable after the commit."""
    return sessionmaker(engine_for(database_url), expire_on_commit=False)
