"""The instructions of a campaign: Markdown in versions, each kept, so that every answer can name the one that was shown."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import BadInput
from server.models import Campaign, Instructions, Person
from server.services import audit

MAX_INSTRUCTIONS_CHARS = 50_000


def new_instructions(db: Session, campaign: Campaign, markdown: str, person: Person | None) -> Instructions:
    """Follow the newest instructions by another version; the same text again is the version that is there."""
    text = markdown.replace("\r\n", "\n").strip()
    if not text:
        raise BadInput("The instructions are empty; say what people are asked to do.", field="instructions")
    if len(text) > MAX_INSTRUCTIONS_CHARS:
        raise BadInput(f"The instructions are longer than {MAX_INSTRUCTIONS_CHARS:,} characters.", field="instructions")
    # two admins who save at once get two versions in turn, not an error
    db.scalar(select(Campaign.id).where(Campaign.id == campaign.id).with_for_update(key_share=True))
    newest = newest_instructions(db, campaign)
    if newest is not None and newest.markdown == text:
        return newest
    made = Instructions(
        campaign_id=campaign.id,
        version=newest.version + 1 if newest else 1,
        markdown=text,
        created_by_id=person.id if person else None,
    )
    db.add(made)
    db.flush()
    audit.record(db, person, "campaign.instructions", "campaign", campaign.id, version=made.version)
    return made


def newest_instructions(db: Session, campaign: Campaign) -> Instructions | None:
    """What the people of this campaign are told now."""
    return db.scalar(
        select(Instructions)
        .where(Instructions.campaign_id == campaign.id)
        .order_by(Instructions.version.desc())
        .limit(1)
    )


def instructions_versions(db: Session, campaign: Campaign) -> list[Instructions]:
    """All versions, newest first."""
    return list(
        db.scalars(
            select(Instructions).where(Instructions.campaign_id == campaign.id).order_by(Instructions.version.desc())
        )
    )
