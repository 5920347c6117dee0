"""The schedule with fixed clocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, NotFound
from server.models import Round, Schedule
from server.services.data.dataset_selection import DatasetSelection
from server.services.rounds import schedules
from tests import factories

SUNDAY = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MONDAY = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def comparisons(db: Session, count: int) -> None:
    campaign, person = factories.campaign(db), factories.person(db)
    for _ in range(count):
        chat = factories.conversation(db, campaign, person, status="finished")
        factories.comparison(db, factories.turn(db, chat), person)


def weekly(db: Session, minimum: int = 1, zone: str = "UTC", cron: str = schedules.DEFAULT_CRON) -> Schedule:
    return schedules.save_schedule(db, None, cron=cron, time_zone=zone, minimum=minimum, enabled=True, now=SUNDAY)


def test_times_are_those_of_the_zone_through_the_change_of_clocks():
    assert schedules.next_time("0 3 * * 1", "UTC", SUNDAY) == MONDAY
    assert schedules.next_time("0 3 * * 1", "Europe/Berlin", SUNDAY) == datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
    # Berlin goes back to winter time on 25 October 2026: three o'clock moves from 01:00 to 02:00 UTC.
    before = datetime(2026, 10, 24, 0, 0, tzinfo=UTC)
    assert schedules.next_time("0 3 * * *", "Europe/Berlin", before) == datetime(2026, 10, 24, 1, 0, tzinfo=UTC)
    after = datetime(2026, 10, 26, 0, 0, tzinfo=UTC)
    assert schedules.next_time("0 3 * * *", "Europe/Berlin", after) == datetime(2026, 10, 26, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "field"),
    [
        ("often", "UTC", "cron"),
        ("0 3 * *", "UTC", "cron"),
        ("0 0 3 * * 1", "UTC", "cron"),
        ("99 3 * * 1", "UTC", "cron"),
        ("0 3 31 2 *", "UTC", "cron"),
        ("0 3 * * 1", "Mars/Olympus", "time_zone"),
        ("0 3 * * 1", "../etc/passwd", "time_zone"),
    ],
)
def test_unusable_schedules_name_the_field(cron: str, zone: str, field: str):
    with pytest.raises(BadInput) as refused:
        schedules.next_time(cron, zone, SUNDAY)
    assert refused.value.field == field


def test_a_due_schedule_starts_a_round_once(db: Session):
    comparisons(db, 20)
    row = weekly(db)
    assert schedules.run_due(db, row.id, SUNDAY) is None
    outcome = schedules.run_due(db, row.id, MONDAY)
    assert outcome == "2026-11-23 03:00 UTC: round 1 started with 20 new comparisons."
    assert schedules.run_due(db, row.id, MONDAY) is None
    db.refresh(row)
    assert row.next_at == datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
    assert row.last_outcome == outcome
    assert db.scalars(select(Round)).one().trigger == "schedule"


def test_times_missed_while_down_are_made_up_for_once(db: Session):
    comparisons(db, 20)
    row = weekly(db)
    later = datetime(2026, 12, 16, 9, 30, tzinfo=UTC)  # three Mondays and two days on
    assert schedules.due_schedules(db, later) == [row.id]
    assert "round 1 started" in str(schedules.run_due(db, row.id, later))
    db.refresh(row)
    assert row.next_at == datetime(2026, 12, 21, 3, 0, tzinfo=UTC)
    assert schedules.due_schedules(db, later) == []


def test_too_few_new_comparisons_say_so(db: Session):
    comparisons(db, 20)
    row = weekly(db, minimum=21)
    assert "20 new comparisons of the 21 wanted" in str(schedules.run_due(db, row.id, MONDAY))
    assert db.scalar(select(func.count()).select_from(Round)) == 0


def test_what_refuses_a_round_is_written_down(db: Session):
    comparisons(db, 3)
    row = weekly(db, minimum=0)
    assert "needs at least 20 usable comparisons and there are 3" in str(schedules.run_due(db, row.id, MONDAY))


def test_only_what_came_after_the_last_finished_round_is_new(db: Session):
    from server.services.data import datasets
    from server.services.rounds import rounds

    comparisons(db, 20)
    made = rounds.start(db, trigger="command")
    made.dataset_version_id = datasets.freeze(db, DatasetSelection()).id
    db.flush()
    assert schedules.new_comparisons(db) == 20  # not learnt from before the round is done
    made.status = "done"
    db.flush()
    assert schedules.new_comparisons(db) == 0
    comparisons(db, 2)
    assert schedules.new_comparisons(db) == 2


def test_two_beats_start_one_round(committed: str):
    sessions = session_factory(committed)
    with sessions.begin() as db:
        comparisons(db, 20)
        schedule_id = weekly(db).id

    def beat(_: int) -> str | None:
        with sessions.begin() as db:
            return schedules.run_due(db, schedule_id, MONDAY)

    with ThreadPoolExecutor(6) as pool:
        assert len([outcome for outcome in pool.map(beat, range(6)) if outcome]) == 1
    with sessions.begin() as db:
        assert db.scalar(select(func.count()).select_from(Round)) == 1


def test_a_row_without_a_time_gets_one_and_starts_nothing(db: Session):
    comparisons(db, 20)
    row = weekly(db)
    row.next_at = None
    db.flush()
    assert schedules.due_schedules(db, SUNDAY) == [row.id]
    assert schedules.run_due(db, row.id, SUNDAY) is None
    db.refresh(row)
    assert row.next_at == MONDAY


def test_switched_off_it_is_never_due(db: Session):
    row = weekly(db)
    schedules.save_schedule(
        db, None, cron=row.cron, time_zone="UTC", minimum=1, enabled=False, schedule_id=row.id, now=SUNDAY
    )
    assert schedules.due_schedules(db, datetime(2030, 1, 1, tzinfo=UTC)) == []
    assert schedules.first_time(db) is None
    with pytest.raises(NotFound):
        schedules.save_schedule(db, None, cron="0 3 * * 1", time_zone="UTC", minimum=1, enabled=True, schedule_id=999)


def test_a_schedule_that_can_no_longer_be_read_is_turned_off_and_says_so(db: Session):
    row = weekly(db)
    row.time_zone = "Europe/Atlantis"  # was one when it was saved
    db.flush()
    assert "Turned off. There is no time zone 'Europe/Atlantis'" in str(schedules.run_due(db, row.id, MONDAY))
    db.flush()
    assert schedules.due_schedules(db, MONDAY) == []
