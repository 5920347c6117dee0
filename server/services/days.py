"""Where a day begins: at midnight UTC, for everybody the same."""

from __future__ import annotations

from datetime import UTC, datetime


def midnight() -> datetime:
    """The beginning of the present UTC day."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
