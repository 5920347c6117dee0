"""Prompts that people write for a pool: proposed by crowdworkers, drawn only once an admin has accepted them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import Conflict, NotFound
from server.language import _
from server.models import Campaign, Person, Prompt, Undone
from server.services.chat import dialogue
from server.services.door import door
from server.services.ways import undo
from server.services.working import answers, drafts
from server.services.working.answers import Sent

SHOWN = 10  # of a person's own, newest first


def propose(
    db: Session,
    person: Person,
    campaign: Campaign,
    text: str,
    sent: Sent,
) -> tuple[Prompt, bool]:
    """Store a written prompt; returns the row and whether it is new (the same key again gives the first row).

    Conflict when the campaign is over or the pool has this text already.
    """
    key = answers.checked_key(sent.idempotency_key)
    if campaign.way != "prompts":
        raise Conflict(_("This campaign asks for something else. Reload the page to go on."))
    earlier = db.scalar(select(Prompt).where(Prompt.author_id == person.id, Prompt.idempotency_key == key))
    if earlier is not None:
        return earlier, False
    refusal = dialogue.why_not(db, campaign)
    if refusal is not None:
        raise Conflict(refusal)
    door.check(db, person, campaign)
    made = db.scalar(
        insert(Prompt)
        .values(
            campaign_id=campaign.pool_id or campaign.id,
            text=answers.checked_text(text, campaign.max_message_chars),
            status="proposed",
            author_id=person.id,
            written_in_id=campaign.id,
            **answers.columns_of(db, person, campaign, sent),
        )
        .on_conflict_do_nothing()
        .returning(Prompt)
    )
    if made is None:
        # Sent twice at once, or the pool has it: after the insert waited, which of both can be seen.
        earlier = db.scalar(select(Prompt).where(Prompt.author_id == person.id, Prompt.idempotency_key == key))
        if earlier is not None:
            return earlier, False
        raise Conflict(_("This prompt is there already. Please write another one."), field="text")
    drafts.clear(db, person, drafts.prompt_place(campaign))
    return made, True


def own(db: Session, person: Person, campaign: Campaign) -> list[Prompt]:
    """The newest prompts that this person wrote here."""
    mine = select(Prompt).where(Prompt.author_id == person.id, Prompt.written_in_id == campaign.id)
    return list(db.scalars(mine.order_by(Prompt.id.desc()).limit(SHOWN)))


def can_withdraw(campaign: Campaign, prompt: Prompt) -> bool:
    """Whether its author can take it back: nobody has decided on it, and it is young enough."""
    youngest = datetime.now(UTC) - timedelta(seconds=campaign.undo_seconds)
    return prompt.status == "proposed" and prompt.created_at > youngest


def withdraw(db: Session, person: Person, campaign: Campaign, prompt_id: int) -> str:
    """Take an own prompt back; returns its text. The whole row moves into `undone`. Conflict when it is too late."""
    prompt = db.scalar(
        select(Prompt)
        .where(Prompt.id == prompt_id, Prompt.author_id == person.id, Prompt.written_in_id == campaign.id)
        .with_for_update()
    )
    if prompt is None:
        raise NotFound(_("There is no such prompt among yours."))
    if not can_withdraw(campaign, prompt):
        raise Conflict(_("There is nothing that can be taken back any more."))
    db.add(Undone(person_id=person.id, campaign_id=campaign.id, kind="prompt", answer=undo.whole(prompt)))
    db.delete(prompt)
    drafts.save(db, person, drafts.prompt_place(campaign), prompt.text)
    db.flush()
    return prompt.text
