"""Keeping each campaign's store of openings and items full, so that the next one is there at once."""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.models import Campaign
from server.services.chat import dialogue
from server.services.items import openings, pool_items
from server.settings import Settings
from server.transaction import transaction_of
from workers.context import connected_settings
from workers.one_by_one import one_by_one

log = logging.getLogger("whetstone.openings")


def prepare(campaign_id: int | None = None, settings: Settings | None = None) -> dict[int, list[int]]:
    """Sample what is missing in one campaign or in all; the new turns by campaign. Several at once do no harm."""
    settings = settings or connected_settings()
    with transaction_of(settings) as db:
        wanted = select(Campaign.id).order_by(Campaign.id)
        ids = list(db.scalars(wanted if campaign_id is None else wanted.where(Campaign.id == campaign_id)))
    # A transaction each: the lock of one campaign must not be held while others are looked at.
    return one_by_one(settings, ids, _made_ahead, _told)


def _made_ahead(db: Session, campaign_id: int) -> list[int]:
    campaign = db.get_one(Campaign, campaign_id)
    refusal = dialogue.why_not(db, campaign)
    return openings.prepare(db, campaign, refusal) + pool_items.refill(db, campaign, refusal)


def _told(campaign_id: int, turns: list[int]) -> None:
    if turns:
        log.info("Made ahead for campaign %d: turns %s.", campaign_id, turns)
