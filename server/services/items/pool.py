"""Which prompts of a pool a campaign may draw."""

from __future__ import annotations

from sqlalchemy import ColumnElement

from server.models import Campaign, Prompt


def drawable(campaign: Campaign) -> tuple[ColumnElement[bool], ...]:
    """Accepted ones of the campaign's pool, its own or another's; never held-out ones, which only measure."""
    return (
        Prompt.campaign_id == (campaign.pool_id or campaign.id),
        Prompt.split == "train",
        Prompt.status == "accepted",
    )
