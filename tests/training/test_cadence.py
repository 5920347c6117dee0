"""Checkpoints by the clock: never before their time, and never so often that they take it."""

import pytest

from training.runs import cadence


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [100.0]
    monkeypatch.setattr(cadence.time, "monotonic", lambda: moment[0])
    return moment


def test_a_short_checkpoint_is_due_after_the_seconds(now: list[float]) -> None:
    every = cadence.Cadence(30.0)
    assert not every.due()
    now[0] += 30
    assert every.due()
    with every.saving():
        now[0] += 1
    assert not every.due()
    now[0] += 30
    assert every.due()


def test_a_long_one_puts_off_the_next_until_it_was_a_twentieth_of_the_time(now: list[float]) -> None:
    every = cadence.Cadence(30.0)
    with every.saving():
        now[0] += 4
    now[0] += 75
    assert not every.due()
    now[0] += 1
    assert every.due()
    with every.saving():
        now[0] += 0.5
    now[0] += 30
    assert every.due()  # the disk was slow once, not for ever


def test_who_asks_for_every_checkpoint_gets_every_one(now: list[float]) -> None:
    every = cadence.Cadence(0.0)
    assert every.due()
    with every.saving():
        now[0] += 9
    assert every.due()
