"""Demonstrations: storing the reply that a person wrote to an item's message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from server.models import Demonstration, Person
from server.services import answers, drafts, handing_in, queue, signals

MAX_CHARS = 50_000


def store_demonstration(
    db: Session,
    person: Person,
    turn_id: int,
    text: str,
    milliseconds: int,
    idempotency_key: str,
    instructions_id: int | None = None,
    *,
    noticed: Mapping[str, Any] | None = None,
) -> tuple[Demonstration, bool]:
    """Store a written reply; returns the row and whether it is new (the same key again gives the first row).

    Raises NotFound for a turn that was not lent to this person, Conflict when the time for it is over, BadInput for an
    empty text and TooLarge above MAX_CHARS.
    """
    handed = handing_in.take(db, person, turn_id, idempotency_key, "demonstration", Demonstration)
    if handed.earlier is not None:
        return handed.earlier, False
    turn, campaign = handed.turn, handed.campaign
    taken = answers.checked_milliseconds(milliseconds)
    row = Demonstration(
        campaign_id=campaign.id,
        turn_id=turn.id,
        person_id=person.id,
        purpose=answers.purpose_of(person, campaign),
        text=answers.checked_text(text, MAX_CHARS),
        milliseconds=taken,
        signals=signals.checked(noticed, campaign, taken),
        instructions_id=answers.instructions_shown(db, campaign, instructions_id),
        idempotency_key=handed.key,
    )
    db.add(row)
    db.flush()
    queue.answered(db, person, campaign, turn)
    drafts.clear(db, person, drafts.turn_place("demonstration", turn))
    return row, True
