"""In red-team campaigns: how far the person thinks they got with a conversation, asked once at its end."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.errors import AlreadyDone, BadInput, Conflict, NotFound
from server.language import _
from server.models import Campaign, Conversation, Person

# As red teamers rated themselves in Ganguli et al. (2022): five steps from no success to full success.
STEPS = range(1, 6)


def asked(db: Session, person: Person, campaign: Campaign) -> int | None:
    """The conversation to be rated: the person's last one here, once it is over; None when it is rated or none was had."""
    if not campaign.asks_success or campaign.way != "chat":
        return None
    last = db.scalar(
        select(Conversation)
        .where(
            Conversation.person_id == person.id,
            Conversation.campaign_id == campaign.id,
            Conversation.source == "chat",
        )
        .order_by(Conversation.id.desc())
        .limit(1)
    )
    return last.id if last is not None and last.status != "open" and last.success is None else None


def rate(db: Session, person: Person, campaign: Campaign, conversation_id: int, success: int) -> None:
    """Store the rating; once stored it stays, and the same again changes nothing."""
    if success not in STEPS:
        raise BadInput(_("Choose one of the five steps."), field="success")
    found = db.get(Conversation, conversation_id, with_for_update=True, populate_existing=True)
    if found is None or found.person_id != person.id or found.campaign_id != campaign.id or found.source != "chat":
        raise NotFound(_("There is no such conversation among yours."))
    if found.status == "open" or not campaign.asks_success:
        raise Conflict(_("A conversation is rated when it is over."))
    if found.success is not None and found.success != success:
        raise AlreadyDone(_("You have rated this conversation already."))
    found.success = success
    db.flush()
