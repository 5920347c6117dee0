"""What the next round would learn from, and what stands in its way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from server.errors import BadInput
from server.services.data import datasets
from server.services.rounds import rounds, schedules
from server.services.rounds.round_settings import parse_settings


@dataclass(frozen=True)
class Outlook:
    """`obstacle` is the sentence that starting a round now would answer; None when it would start."""

    usable: int
    wanted: int
    new: int
    initial: str | None
    campaigns: list[str]
    obstacle: str | None
    active_id: int | None
    next_at: datetime | None


def outlook(db: Session) -> Outlook:
    """Look at a round with default settings, without starting it."""
    settings = parse_settings({})
    usable = datasets.count_usable(db, settings.dataset)
    active = rounds.active_round(db)
    initial, campaigns, obstacle = None, [], None
    try:
        found = rounds.initial_snapshot(db)
        initial = found.name
        campaigns = [campaign.name for campaign in rounds.campaigns_to_serve(db, found)]
    except BadInput as missing:
        obstacle = missing.message
    if usable < settings.minimum_comparisons:
        obstacle = f"A round needs at least {settings.minimum_comparisons} usable comparisons; there are {usable}."
    if active is not None:
        obstacle = f"Round {active.number} is {active.status}."
    return Outlook(
        usable=usable,
        wanted=settings.minimum_comparisons,
        new=schedules.new_comparisons(db),
        initial=initial,
        campaigns=campaigns,
        obstacle=obstacle,
        active_id=active.id if active else None,
        next_at=schedules.first_time(db),
    )
