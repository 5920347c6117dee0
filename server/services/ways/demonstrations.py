"""Demonstrations: storing the reply that a person wrote to an item's message."""

from __future__ import annotations

from sqlalchemy.orm import Session

from server.models import Demonstration, Person
from server.services.chat import queue
from server.services.ways import handing_in
from server.services.working import answers, drafts
from server.services.working.answers import Sent

MAX_CHARS = 50_000


def store_demonstration(
    db: Session,
    person: Person,
    turn_id: int,
    text: str,
    sent: Sent,
) -> tuple[Demonstration, bool]:
    """Store a written reply; returns the row and whether it is new (the same key again gives the first row).

    Raises NotFound for a turn that was not lent to this person, Conflict when the time for it is over, BadInput for an
    empty text and TooLarge above MAX_CHARS.
    """
    handed = handing_in.take(db, person, turn_id, sent.idempotency_key, "demonstration", Demonstration)
    if handed.earlier is not None:
        return handed.earlier, False
    turn, campaign = handed.turn, handed.campaign
    row = Demonstration(
        campaign_id=campaign.id,
        turn_id=turn.id,
        person_id=person.id,
        purpose=answers.purpose_of(person, campaign),
        text=answers.checked_text(text, MAX_CHARS),
        **answers.columns_of(db, person, campaign, sent),
    )
    db.add(row)
    db.flush()
    queue.answered(db, person, campaign, turn)
    drafts.clear(db, person, drafts.turn_place("demonstration", turn))
    return row, True
