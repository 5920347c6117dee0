"""Keeping each campaign's store of openings and items full, so that the next one is there at once."""

from __future__ import annotations

import logging

from sqlalchemy import select

from server.models import Campaign
from server.services.chat import dialogue
from server.services.items import openings, pool_items
from server.settings import Settings
from server.transaction import transaction
from workers.context import connected_settings

log = logging.getLogger("whetstone.openings")


def prepare(campaign_id: int | None = None, settings: Settings | None = None) -> dict[int, list[int]]:
    """Sample what is missing in one campaign or in all; the new turns by campaign. Several at once do no harm."""
    settings = settings or connected_settings()
    found: dict[int, list[int]] = {}
    with transaction(str(settings.database_url), str(settings.redis_url)) as db:
        wanted = select(Campaign.id).order_by(Campaign.id)
        ids = list(db.scalars(wanted if campaign_id is None else wanted.where(Campaign.id == campaign_id)))
    for one in ids:
        # A transaction each: the lock of one campaign must not be held while others are looked at.
        with transaction(str(settings.database_url), str(settings.redis_url)) as db:
            campaign = db.get_one(Campaign, one)
            refusal = dialogue.why_not(db, campaign)
            found[one] = openings.prepare(db, campaign, refusal) + pool_items.refill(db, campaign, refusal)
        if found[one]:
            log.info("Made ahead for campaign %d: turns %s.", one, found[one])
    return found
