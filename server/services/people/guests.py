"""People whom a panel sent and who have no account of their own: the panel pays for its studies, so these are all that they see."""

from __future__ import annotations

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from server.models import Membership, Panel, PanelSubmission, Person


def only_campaigns(db: Session, person: Person) -> set[int] | None:
    """The numbers of the campaigns of a guest: of their studies, and where an admin let them in. None for everybody else."""
    if person.email is not None or person.password_hash is not None:
        return None
    if not db.scalar(select(exists().where(PanelSubmission.person_id == person.id))):
        return None
    studies = (
        select(Panel.campaign_id)
        .join(PanelSubmission, PanelSubmission.panel_id == Panel.id)
        .where(PanelSubmission.person_id == person.id)
    )
    return set(db.scalars(studies.union(select(Membership.campaign_id).where(Membership.person_id == person.id))))


def is_elsewhere(db: Session, person: Person, campaign_id: int) -> bool:
    """Whether the campaign is none of those that a guest may work in."""
    theirs = only_campaigns(db, person)
    return theirs is not None and campaign_id not in theirs
