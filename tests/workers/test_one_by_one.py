"""Work in a transaction each: one that fails is rolled back and told of, and the others are done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db import session_factory
from server.models import Person
from server.settings import OperatorError, Settings
from server.transaction import transaction_of
from tests import factories
from workers import sweep as sweeps
from workers.one_by_one import one_by_one


def test_one_that_fails_is_rolled_back_and_the_others_are_done(
    committed: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int]] = []

    def work(db: Session, name: str) -> int:
        factories.person(db, name)
        if name == "Bob":
            raise ValueError("out of luck")
        return len(name)

    with pytest.raises(ExceptionGroup) as failed:
        one_by_one(settings, ["Alice", "Bob", "Carol"], work, lambda name, found: told.append((name, found)))
    assert [str(error) for error in failed.value.exceptions] == ["out of luck"]
    assert "Bob could not be done" in caplog.text and "out of luck" in caplog.text
    assert told == [("Alice", 5), ("Carol", 5)]
    with session_factory(committed)() as db:
        assert sorted(db.scalars(select(Person.name))) == ["Alice", "Carol"]


def test_a_kind_that_fails_keeps_no_other_from_being_swept(
    committed: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_db: Session) -> list[int]:
        raise ValueError("out of luck")

    asked: list[str] = []
    monkeypatch.setitem(sweeps.ASKING, "turns", broken)
    for kind in ("jobs", "sign-in mails", "rounds"):
        monkeypatch.setitem(sweeps.ASKING, kind, lambda _db, kind=kind: asked.append(kind) or [])
    with pytest.raises(ExceptionGroup):  # so that Celery marks the task as failed
        sweeps.sweep(settings)
    assert asked == ["jobs", "sign-in mails", "rounds"]


def test_a_transaction_without_services_is_refused(settings: Settings) -> None:
    for nowhere in (replace(settings, database_url=None), replace(settings, redis_url=None)):
        with pytest.raises(OperatorError, match="DATABASE_URL and REDIS_URL are needed"):
            transaction_of(nowhere)
