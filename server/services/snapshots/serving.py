"""What serves where, by campaign and by snapshot, and changing one snapshot's share by hand."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Campaign, Deployment, Person, Round, Snapshot
from server.services.snapshots import deployments


@dataclass(frozen=True)
class Served:
    """A campaign with what serves it now: (snapshot name, id, share of the traffic) from the largest down."""

    campaign: Campaign
    deployment: Deployment | None
    shares: list[tuple[str, int, float]]
    earlier: list[Deployment]


def by_campaign(db: Session) -> list[Served]:
    """Every campaign that is not closed."""
    found = []
    for campaign in db.scalars(select(Campaign).where(Campaign.status != "closed").order_by(Campaign.id)):
        history = deployments.history(db, campaign, limit=6)
        now = next((item for item in history if item.replaced_at is None), None)
        earlier = [item for item in history if item is not now]
        found.append(Served(campaign, now, shares_of(now), earlier))
    return found


def shares_of(deployment: Deployment | None) -> list[tuple[str, int, float]]:
    """Name, id and share of the traffic of each snapshot, the shares adding up to one."""
    if deployment is None:
        return []
    total = sum(part.share for part in deployment.shares)
    parts = [(part.snapshot.name, part.snapshot_id, part.share / total) for part in deployment.shares]
    return sorted(parts, key=lambda part: -part[2])


def give_share(
    db: Session,
    campaign: Campaign,
    snapshot: Snapshot,
    share: float,
    person: Person | None,
    reason: str,
    *,
    round: Round | None = None,  # noqa: A002 - the glossary's word
) -> Deployment:
    """Deploy the snapshot with this share of the traffic; what serves now keeps the rest in its present proportions."""
    if not 0 < share <= 1:
        raise BadInput("The share must be above 0 and at most 1 (100%).", field="share")
    kept = [part for part in shares_of(deployments.current(db, campaign)) if part[1] != snapshot.id]
    total = sum(part[2] for part in kept)
    parts = [(snapshot, share)]
    if share < 1 and kept:
        parts += [(db.get_one(Snapshot, key), (1 - share) * old / total) for _, key, old in kept]
    return deployments.deploy(
        db, campaign, parts, reason=reason.strip() or "Deployed by hand.", person=person, round=round
    )
