"""Asking again for everything that waits although nobody is at it: lost messages, dead workers, a Redis that was emptied."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from server.services import lost
from server.services.panels import panel_webhooks
from server.services.people import people, sign_in_mails
from server.services.rounds import rounds
from server.services.working import leases, work_time
from server.settings import Settings
from workers.context import connected_settings, is_dead
from workers.one_by_one import one_by_one

log = logging.getLogger("whetstone.sweep")


# What each asks for again.
ASKING: dict[str, Callable[[Session], list[int]]] = {
    "turns": lost.ask_for_replies,
    "jobs": lost.ask_for_jobs,
    "sign-in mails": sign_in_mails.ask_again,
    "rounds": partial(rounds.requeue_stale, is_dead=is_dead),
}
# What each puts away.
TIDYING: dict[str, Callable[[Session], int]] = {
    "conversations": leases.abandon_expired,
    "sign-ins": people.clear_expired,
    "requests for a link": sign_in_mails.clear,
    "messages of panels": panel_webhooks.clear,
    "work sessions": work_time.end_idle,
}


def sweep(settings: Settings | None = None) -> dict[str, list[int]]:
    """Queue again and ask; returns the ids by kind. Several sweeps at once do no harm."""

    def told(kind: str, ids: list[int]) -> None:
        if ids:
            log.info("Asked again for %s %s.", kind, ids)

    return one_by_one(settings or connected_settings(), ASKING, lambda db, kind: ASKING[kind](db), told)


def tidy(settings: Settings | None = None) -> dict[str, int]:
    """Close conversations and work sessions that were left, remove sign-ins that have ended and old messages of panels; how many of each."""

    def told(what: str, count: int) -> None:
        if count:
            log.info("Put away %d %s.", count, what)

    return one_by_one(settings or connected_settings(), TIDYING, lambda db, what: TIDYING[what](db), told)
