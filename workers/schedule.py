"""Looking at the schedules, once a minute."""

from __future__ import annotations

from datetime import UTC, datetime

from server.services.rounds import schedules
from server.settings import Settings
from server.transaction import transaction_of
from workers.context import connected_settings
from workers.one_by_one import one_by_one


def tick(settings: Settings | None = None, now: datetime | None = None) -> list[str]:
    """Start the rounds that are due; returns what came of each schedule that was."""
    settings = settings or connected_settings()
    now = now or datetime.now(UTC)
    with transaction_of(settings) as db:
        due = schedules.due_schedules(db, now)
    outcomes = one_by_one(settings, due, lambda db, schedule_id: schedules.run_due(db, schedule_id, now))
    return [outcome for outcome in outcomes.values() if outcome is not None]
