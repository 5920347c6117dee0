"""The few numbers of the start page."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.models import Campaign, Comparison, Conversation, Person, Round, RoundStep
from server.services import days
from server.services.campaigns import campaigns
from server.services.working import kinds


@dataclass(frozen=True)
class CampaignCard:
    """A campaign as a crowdworker sees it at the start."""

    slug: str
    name: str
    red_team: bool
    way: str
    mine: int
    under_way: bool
    pay_per_hour: Decimal | None
    currency: str


@dataclass(frozen=True)
class Numbers:
    """The state of the whole, for researchers and admins."""

    comparisons: int
    today: int
    people_today: int
    campaigns_open: int
    round_number: int | None
    round_status: str
    round_step: str


def campaign_cards(db: Session, person: Person) -> list[CampaignCard]:
    """The open campaigns with this person's own count in each."""
    counts = kinds.counts_of(db, person)
    under_way = set(
        db.scalars(
            select(Conversation.campaign_id).where(
                Conversation.person_id == person.id, Conversation.status == "open", Conversation.source == "chat"
            )
        )
    )
    return [
        CampaignCard(
            each.slug,
            each.name,
            each.mode == "red_team",
            each.way,
            counts.get(each.id, 0),
            each.id in under_way,
            each.pay_per_hour,
            each.currency,
        )
        for each in campaigns.open_campaigns(db, person)
    ]


def numbers(db: Session) -> Numbers:
    """Counts since midnight UTC, and the newest round."""
    midnight = days.midnight()
    comparisons = db.scalar(select(func.count()).select_from(Comparison)) or 0
    today, people_today = db.execute(
        select(func.count(), func.count(Comparison.person_id.distinct())).where(
            Comparison.created_at >= midnight, Comparison.import_id.is_(None)
        )
    ).one()
    newest = db.scalar(select(Round).order_by(Round.number.desc()).limit(1))
    step = newest and db.scalar(
        select(RoundStep.name)
        .where(RoundStep.round_id == newest.id, RoundStep.status != "done")
        .order_by(RoundStep.position)
        .limit(1)
    )
    return Numbers(
        comparisons=comparisons,
        today=today,
        people_today=people_today,
        campaigns_open=db.scalar(select(func.count()).where(Campaign.status == "open")) or 0,
        round_number=newest.number if newest else None,
        round_status=newest.status if newest else "",
        round_step=(step or "").replace("_", " "),
    )
