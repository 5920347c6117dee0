"""Screening: a person's first items are gold items, and too little agreement with the experts ends their work.

The one rule that acts by itself, and only where an admin has asked for it (`screening_items`, `screening_agreement`). It
looks at the first answers and no further; what later checks tell is evidence for admins.
"""

from __future__ import annotations

from sqlalchemy import Integer, cast, false, func, select, union_all
from sqlalchemy.orm import Session

from server.models import Campaign, CheckResult, Membership, Person, Skip, Turn
from server.services.door import door


def goes_on(db: Session, person: Person, campaign: Campaign, membership: Membership | None) -> bool:
    """Whether this person's next item is one of their screening."""
    if not campaign.screening_items or (membership is not None and membership.screened_at is not None):
        return False
    return _first(db, person, campaign)[1] < campaign.screening_items


def _first(db: Session, person: Person, campaign: Campaign) -> tuple[int, int]:
    """(agreed, met) of the person's first gold items here, as many as the screening has; one that was skipped did not agree."""
    answered_items = select(CheckResult.passed, CheckResult.created_at.label("at")).where(
        CheckResult.person_id == person.id, CheckResult.campaign_id == campaign.id, CheckResult.kind == "gold"
    )
    # Who could pass by the hard ones would be judged by the easy ones alone, or by none.
    skipped = select(false(), Skip.created_at).join(Turn, Turn.id == Skip.turn_id).where(
        Skip.person_id == person.id, Skip.campaign_id == campaign.id, Turn.check_kind == "gold"
    )  # fmt: skip
    every = union_all(answered_items, skipped).subquery()
    first = select(every.c.passed).order_by(every.c.at).limit(campaign.screening_items).subquery()
    agreed, answered = db.execute(
        select(func.coalesce(func.sum(cast(first.c.passed, Integer)), 0), func.count()).select_from(first)
    ).one()
    return agreed, answered


def judge(db: Session, person: Person, campaign: Campaign) -> None:
    """After a check was answered or skipped: when the screening is complete, it is passed, or the work is over."""
    if not campaign.screening_items:
        return
    membership = db.get(Membership, (person.id, campaign.id))
    if membership is not None and (membership.screened_at is not None or membership.status != "active"):
        return
    agreed, answered = _first(db, person, campaign)
    if answered < campaign.screening_items:
        return
    if agreed >= campaign.screening_agreement * answered - 1e-9:
        door.screened(db, person, campaign)
    else:
        door.screen_out(db, person, campaign, "screening")
