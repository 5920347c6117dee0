"""Looking at the schedules, once a minute."""

from __future__ import annotations

from datetime import UTC, datetime

from server.services.rounds import schedules
from server.settings import Settings
from server.transaction import transaction
from workers.context import connected_settings


def tick(settings: Settings | None = None, now: datetime | None = None) -> list[str]:
    """Start the rounds that are due; returns what came of each schedule that was."""
    settings = settings or connected_settings()
    now = now or datetime.now(UTC)
    database_url, redis_url = str(settings.database_url), str(settings.redis_url)
    with transaction(database_url, redis_url) as db:
        due = schedules.due_schedules(db, now)
    outcomes = []
    for schedule_id in due:  # a transaction each: one that fails does not take the others with it
        with transaction(database_url, redis_url) as db:
            outcome = schedules.run_due(db, schedule_id, now)
        if outcome is not None:
            outcomes.append(outcome)
    return outcomes
