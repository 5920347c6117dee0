"""Asking again for everything that waits although nobody is at it: lost messages, dead workers, a Redis that was emptied."""

from __future__ import annotations

import logging
from functools import partial

from server.services import lost
from server.services.panels import panel_webhooks
from server.services.people import people, sign_in_mails
from server.services.rounds import rounds
from server.services.working import leases, work_time
from server.settings import Settings
from server.transaction import transaction
from workers.context import connected_settings, is_dead

log = logging.getLogger("whetstone.sweep")


def sweep(settings: Settings | None = None) -> dict[str, list[int]]:
    """Queue again and ask; returns the ids by kind. Several sweeps at once do no harm."""
    settings = settings or connected_settings()
    found: dict[str, list[int]] = {}
    for kind, ask in (
        ("turns", lost.ask_for_replies),
        ("jobs", lost.ask_for_jobs),
        ("sign-in mails", sign_in_mails.ask_again),
        ("rounds", partial(rounds.requeue_stale, is_dead=is_dead)),
    ):
        with transaction(str(settings.database_url), str(settings.redis_url)) as db:
            found[kind] = ask(db)
        if found[kind]:
            log.info("Asked again for %s %s.", kind, found[kind])
    return found


def tidy(settings: Settings | None = None) -> dict[str, int]:
    """Close conversations and work sessions that were left, remove sign-ins that have ended and old messages of panels; how many of each."""
    settings = settings or connected_settings()
    found: dict[str, int] = {}
    for what, put_away in (
        ("conversations", leases.abandon_expired),
        ("sign-ins", people.clear_expired),
        ("requests for a link", sign_in_mails.clear),
        ("messages of panels", panel_webhooks.clear),
        ("work sessions", work_time.end_idle),
    ):
        with transaction(str(settings.database_url), str(settings.redis_url)) as db:
            found[what] = put_away(db)
        if found[what]:
            log.info("Put away %d %s.", found[what], what)
    return found
