"""Which snapshots serve a campaign: replaced in one transaction, rolled back by deploying again what served before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict
from server.language import _
from server.models import Campaign, Deployment, DeploymentShare, Person, Round, Snapshot
from server.services import audit
from server.transaction import ask_for


def deploy(
    db: Session,
    campaign: Campaign,
    shares: Sequence[tuple[Snapshot, float]],
    *,
    reason: str,
    person: Person | None = None,
    round: Round | None = None,  # noqa: A002 - the glossary's word
) -> Deployment:
    """Let `shares` serve the campaign from now on; turns already made keep the snapshots they were given.

    Shares are relative weights. Whoever deploys at the same time waits, and the later one stays.
    """
    _check(shares)
    # The row lock orders deployments of one campaign; the unique index on the current one would else fail the second.
    db.execute(select(Campaign.id).where(Campaign.id == campaign.id).with_for_update())
    db.execute(
        update(Deployment)
        .where(Deployment.campaign_id == campaign.id, Deployment.replaced_at.is_(None))
        .values(replaced_at=func.now())
    )
    deployment = Deployment(
        campaign_id=campaign.id,
        reason=reason,
        created_by_id=person.id if person else None,
        round_id=round.id if round else None,
        shares=[DeploymentShare(snapshot=snapshot, share=share) for snapshot, share in shares],
    )
    db.add(deployment)
    db.flush()
    ask_for(db, "prepare_openings", campaign_id=campaign.id)  # what the last one wrote ahead is not shown any more
    audit.record(
        db,
        person,
        "snapshot.deploy",
        "campaign",
        campaign.id,
        reason=reason,
        deployment=deployment.id,
        shares={snapshot.name: share for snapshot, share in shares},
    )
    return deployment


def _check(shares: Sequence[tuple[Snapshot, float]]) -> None:
    if not shares:
        raise BadInput("Name at least one snapshot to deploy.")
    names = [snapshot.name for snapshot, _ in shares]
    for snapshot, share in shares:
        if snapshot.kind != "policy":
            raise BadInput(f"{snapshot.name} is a preference model; only a policy can answer people.")
        if snapshot.retired_at is not None:
            raise Conflict(f"{snapshot.name} was retired; choose another snapshot.")
        if not (math.isfinite(share) and share > 0):
            raise BadInput(f"The share of {snapshot.name} must be above 0, not {share:g}.", field="share")
        if names.count(snapshot.name) > 1:
            raise BadInput(f"{snapshot.name} is named twice; give it one share.")


def current(db: Session, campaign: Campaign) -> Deployment | None:
    """What serves the campaign now; None before its first deployment."""
    return db.scalar(select(Deployment).where(Deployment.campaign_id == campaign.id, Deployment.replaced_at.is_(None)))


def history(db: Session, campaign: Campaign, limit: int = 20) -> list[Deployment]:
    """The newest deployments of the campaign, newest first."""
    return list(
        db.scalars(
            select(Deployment).where(Deployment.campaign_id == campaign.id).order_by(Deployment.id.desc()).limit(limit)
        )
    )


def rollback(db: Session, campaign: Campaign, person: Person | None, *, to: Deployment | None = None) -> Deployment:
    """Deploy again what served before the current deployment (a second rollback undoes the first), or what `to` served.

    Conflict when nothing else has served, or when what served has been retired.
    """
    now = current(db, campaign)
    if to is None:
        to = next((old for old in history(db, campaign, limit=1000) if now and _shares(old) != _shares(now)), None)
    if to is None or to.campaign_id != campaign.id:
        raise Conflict(f"Nothing else has served {campaign.name} yet, so there is nothing to roll back to.")
    return deploy(
        db, campaign, [(part.snapshot, part.share) for part in to.shares], reason=f"Rolled back to deployment {to.id}.",
        person=person,
    )  # fmt: skip


def _shares(deployment: Deployment) -> dict[int, float]:
    return {part.snapshot_id: part.share for part in deployment.shares}


def draw_snapshots(db: Session, campaign: Campaign, count: int, rng: Random) -> list[Snapshot]:
    """A snapshot for each of `count` candidates, as the campaign pairs them.

    `shares`: each is drawn alone by its share, so that two may come from different snapshots or from one. `one`: all from
    one. `two`: all from different ones, drawn by their shares; Conflict when fewer serve the campaign.
    """
    deployment = current(db, campaign)
    if deployment is None:
        raise Conflict(_("No model serves {campaign} yet. Please tell its admin.", campaign=campaign.name))
    parts = list(deployment.shares)
    if campaign.pairing == "two":
        if len(parts) < count:
            sentence = _(
                "{campaign} compares different models, and only {serving} of {wanted} serve it now. Please tell its admin.",
                campaign=campaign.name, serving=len(parts), wanted=count,
            )  # fmt: skip
            raise Conflict(sentence)
        drawn: list[Snapshot] = []
        for _each in range(count):
            part = rng.choices(parts, [each.share for each in parts])[0]
            parts.remove(part)
            drawn.append(part.snapshot)
        return drawn
    drawn = rng.choices([part.snapshot for part in parts], [part.share for part in parts], k=count)
    return drawn[:1] * count if campaign.pairing == "one" else drawn


def serving(db: Session) -> list[Snapshot]:
    """Every snapshot that answers in some campaign now, closed ones aside."""
    return list(
        db.scalars(
            select(Snapshot)
            .join(DeploymentShare)
            .join(Deployment)
            .join(Campaign)
            .where(Deployment.replaced_at.is_(None), Campaign.status != "closed")
            .distinct()
            .order_by(Snapshot.id)
        )
    )
