"""Checkpoints by the clock: never before their time, and never so often that they take it. Or by steps; and at the end."""

import pytest

from training.runs import cadence


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [100.0]
    monkeypatch.setattr(cadence.time, "monotonic", lambda: moment[0])
    return moment


def test_a_short_checkpoint_is_due_after_the_seconds(now: list[float]) -> None:
    every = cadence.Cadence(30.0)
    assert not every.due(1, 9)
    now[0] += 30
    assert every.due(1, 9)
    with every.saving():
        now[0] += 1
    assert not every.due(1, 9)
    now[0] += 30
    assert every.due(1, 9)


def test_a_long_one_puts_off_the_next_until_it_was_a_twentieth_of_the_time(now: list[float]) -> None:
    every = cadence.Cadence(30.0)
    with every.saving():
        now[0] += 4
    now[0] += 75
    assert not every.due(1, 9)
    now[0] += 1
    assert every.due(1, 9)
    with every.saving():
        now[0] += 0.5
    now[0] += 30
    assert every.due(1, 9)  # the disk was slow once, not for ever


def test_who_asks_for_every_checkpoint_gets_every_one(now: list[float]) -> None:
    every = cadence.Cadence(0.0)
    assert every.due(1, 9)
    with every.saving():
        now[0] += 9
    assert every.due(1, 9)


def test_by_steps_the_clock_is_not_asked(now: list[float]) -> None:
    every = cadence.Cadence(30.0, 4)
    now[0] += 1000
    assert [step for step in range(1, 11) if every.due(step, 10)] == [4, 8, 10]


def test_the_last_step_has_one_however_early(now: list[float]) -> None:
    assert cadence.Cadence(30.0).due(9, 9)


def test_together_the_first_process_decides(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cadence.distributed, "said_first", lambda due: not due)  # its clock shows another time
    assert cadence.Cadence(30.0, together=True).due(1, 9)
    assert not cadence.Cadence(30.0).due(1, 9)
