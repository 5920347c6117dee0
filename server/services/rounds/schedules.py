"""The schedule rows that start rounds by themselves. Beat looks each minute; times are those of the row's time zone.

A time that was missed while everything was down is made up for once, not once for each time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotFound
from server.models import Person, Schedule
from server.services import audit
from server.services.data import datasets
from server.services.rounds import rounds
from server.services.rounds.round_settings import parse_settings

DEFAULT_CRON = "0 3 * * 1"  # Monday at three in the morning: few people chat, and the week's comparisons are in
DEFAULT_MINIMUM = 100


def next_time(cron: str, time_zone: str, after: datetime) -> datetime:
    """The first time after `after` (aware) that the five fields name, in UTC; BadInput for fields that name none."""
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadInput(
            f"There is no time zone {time_zone!r}; give a name such as UTC or Europe/Berlin.", field="time_zone"
        ) from error
    if len(cron.split()) != 5:
        raise BadInput(
            "A schedule has five fields: minute, hour, day of month, month, day of week; "
            f"{DEFAULT_CRON!r} is Monday at 03:00.",
            field="cron",
        )
    try:
        due: datetime = next(CronSim(cron, after.astimezone(zone)))
        return due.astimezone(UTC)
    except (CronSimError, StopIteration) as error:
        raise BadInput(f"{cron!r} names no time ({error}).", field="cron") from error


def all_schedules(db: Session) -> list[Schedule]:
    """Every schedule, oldest first."""
    return list(db.scalars(select(Schedule).order_by(Schedule.id)))


def save_schedule(
    db: Session,
    person: Person | None,
    *,
    cron: str,
    time_zone: str,
    minimum: int,
    enabled: bool,
    schedule_id: int | None = None,
    now: datetime | None = None,
) -> Schedule:
    """Make or change a schedule; an unusable field is a BadInput that names it."""
    due = next_time(cron, time_zone, now or datetime.now(UTC))
    if not 0 <= minimum <= 10**9:
        raise BadInput("The minimum of new comparisons must be 0 or more.", field="minimum")
    row = Schedule() if schedule_id is None else db.get(Schedule, schedule_id)
    if row is None:
        raise NotFound("There is no such schedule; it may have been removed.")
    row.cron, row.time_zone = " ".join(cron.split()), time_zone
    row.minimum_new_comparisons, row.enabled = minimum, enabled
    row.next_at = due if enabled else None
    row.updated_by_id, row.updated_at = person.id if person else None, now or datetime.now(UTC)
    db.add(row)
    db.flush()
    audit.record(
        db, person, "schedule.save", "schedule", row.id,
        cron=row.cron, time_zone=time_zone, minimum=minimum, enabled=enabled,
    )  # fmt: skip
    return row


def due_schedules(db: Session, now: datetime) -> list[int]:
    """The ids of the schedules that are due, or that do not know yet when they will be."""
    wanted = select(Schedule.id).where(Schedule.enabled, (Schedule.next_at <= now) | Schedule.next_at.is_(None))
    return list(db.scalars(wanted.order_by(Schedule.id)))


def run_due(db: Session, schedule_id: int, now: datetime) -> str | None:
    """Start the round of a due schedule, or write down why not; None when another beat was first or it is not due."""
    row = db.get(Schedule, schedule_id)
    if row is None or not row.enabled:
        return None
    try:
        following = next_time(row.cron, row.time_zone, now)
    except BadInput as unusable:  # a time zone that this system knows no more; the other schedules go on
        row.enabled, row.next_at, row.last_outcome = False, None, f"Turned off. {unusable.message}"
        return row.last_outcome
    due = row.next_at
    unchanged = Schedule.next_at.is_(None) if due is None else Schedule.next_at == due
    if due is not None and due > now:
        return None
    claimed = db.execute(
        update(Schedule)
        .where(Schedule.id == schedule_id, Schedule.enabled, unchanged)
        .values(next_at=following)
        .returning(Schedule.id)
        .execution_options(synchronize_session=False)
    )
    if claimed.one_or_none() is None or due is None:  # a row without a time has just got its first one
        return None
    outcome = _start(db, row, due)
    db.execute(update(Schedule).where(Schedule.id == schedule_id).values(last_outcome=outcome))
    return outcome


def _start(db: Session, row: Schedule, due: datetime) -> str:
    at = due.astimezone(ZoneInfo(row.time_zone)).strftime("%Y-%m-%d %H:%M ") + row.time_zone
    new = new_comparisons(db)
    if new < row.minimum_new_comparisons:
        return f"{at}: no round, {new} new comparisons of the {row.minimum_new_comparisons} wanted."
    try:
        with db.begin_nested():
            started = rounds.start(db, trigger="schedule")
    except (Conflict, BadInput) as refused:
        return f"{at}: no round. {refused.message}"
    return f"{at}: round {started.number} started with {new} new comparisons."


def new_comparisons(db: Session) -> int:
    """Usable comparisons that came in since those that the last finished round learnt from."""
    return datasets.count_usable(db, parse_settings({}).dataset, after=datasets.last_used(db))


def first_time(db: Session) -> datetime | None:
    """When the next round starts by itself; None when no schedule is enabled."""
    return db.scalar(select(func.min(Schedule.next_at)).where(Schedule.enabled))
