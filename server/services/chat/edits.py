"""Edits: a person's improvement of the reply that they chose in their chat, which then goes on with the improved one."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from server.errors import BadInput, Conflict, NotFound
from server.language import _
from server.models import Campaign, Candidate, Comparison, Conversation, Edit, Person, Turn
from server.services.working import answers, drafts, leases
from server.services.working.answers import Sent

MAX_CHARS = 50_000


def wanted(db: Session, campaign: Campaign, turn: Turn) -> Candidate | None:
    """The reply that the turn's own person may improve now: the one they chose, until the chat goes on; else None."""
    if campaign.edits == "off" or campaign.way != "chat" or turn.status != "compared":
        return None
    later = aliased(Turn)
    return db.scalar(
        select(Candidate)
        .join(Comparison, Comparison.chosen_id == Candidate.id)
        .join(Conversation, Conversation.id == turn.conversation_id)
        .where(
            Comparison.turn_id == turn.id,
            Comparison.person_id == Conversation.person_id,
            Conversation.status == "open",
            ~exists().where(Edit.turn_id == turn.id, Edit.person_id == Comparison.person_id),
            ~exists().where(later.conversation_id == turn.conversation_id, later.position > turn.position),
        )
    )


def store_edit(
    db: Session,
    person: Person,
    turn_id: int,
    text: str,
    sent: Sent,
) -> tuple[Edit, bool]:
    """Store an improved reply; returns the row and whether it is new (the same key again gives the first row).

    Raises NotFound for a turn of nobody's or somebody else's chat, Conflict once the chat has gone on, BadInput for a text
    that is empty or the same as the reply.
    """
    key = answers.checked_key(sent.idempotency_key)
    turn = db.scalar(
        select(Turn)
        .join(Conversation)
        .where(Turn.id == turn_id, Conversation.person_id == person.id, Conversation.source == "chat")
        .with_for_update(of=Turn, key_share=True)
    )
    if turn is None:
        raise NotFound(_("There is no such turn among your conversations."))
    earlier: Edit | None = answers.earlier(db, Edit, person, turn, key)
    if earlier is not None:
        return earlier, False
    campaign = db.get_one(Campaign, turn.conversation.campaign_id)
    original = wanted(db, campaign, turn)
    if original is None:
        raise Conflict(_("This reply cannot be improved any more. Reload the page to go on."))
    improved = answers.checked_text(text, MAX_CHARS)
    if improved == (original.text or "").strip():
        raise BadInput(_("This is the reply as it was. Change it, or leave it as it is."), field="text")
    row = Edit(
        campaign_id=campaign.id,
        turn_id=turn.id,
        original_id=original.id,
        person_id=person.id,
        mode=campaign.mode,
        purpose=answers.purpose_of(person, campaign),
        text=improved,
        **answers.columns_of(db, person, campaign, sent),
        round_id=answers.round_of(db, campaign, turn),
    )
    db.add(row)
    drafts.clear(db, person, drafts.turn_place("edit", turn))
    conversation = turn.conversation
    if turn.position >= campaign.max_turns:
        conversation.status, conversation.finished_at = "finished", datetime.now(UTC)
        leases.release(db, person, conversation)
    else:
        leases.hold(db, person, campaign, conversation)
    db.flush()
    return row, True
