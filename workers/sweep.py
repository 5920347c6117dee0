"""Asking again for everything that waits although nobody is at it: lost messages, dead workers, a Redis that was emptied."""

from __future__ import annotations

import logging
import os

from server.services import lost, rounds
from server.settings import Settings, load_settings
from server.transaction import transaction

log = logging.getLogger("whetstone.sweep")


def sweep(settings: Settings | None = None) -> dict[str, list[int]]:
    """Queue again and ask; returns the ids by kind. Several sweeps at once do no harm."""
    settings = settings or load_settings(os.environ)
    found = {}
    for kind, ask in (
        ("turns", lost.ask_for_replies),
        ("jobs", lost.ask_for_jobs),
        ("rounds", rounds.requeue_stale),
    ):
        with transaction(str(settings.database_url), str(settings.redis_url)) as db:
            found[kind] = ask(db)
        if found[kind]:
            log.info("Asked again for %s %s.", kind, found[kind])
    return found
