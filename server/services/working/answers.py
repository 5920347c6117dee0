"""What every answer has in common, whatever its way: its provenance, its time, its purpose, and its reason in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from server.errors import AlreadyDone, BadInput, Conflict, TooLarge
from server.language import _
from server.models import Campaign, Deployment, Instructions, Person, Turn, Undone
from server.services.working import signals
from server.services.working.instructions import newest_instructions

MAX_JUSTIFICATION_CHARS = 10_000
# An answer that took longer than this was not being thought about; the bound keeps a broken clock out of the medians.
MAX_MILLISECONDS = 24 * 3600 * 1000
_KEY = re.compile(r"[\x21-\x7e]{8,100}")


@dataclass(frozen=True)
class Sent:
    """What every answer comes with: active milliseconds, its key, the version shown, and the browser's signals."""

    milliseconds: int
    idempotency_key: str
    instructions_id: int | None = None  # without one the newest is taken to have been shown
    noticed: Mapping[str, Any] | None = None


def columns_of(
    db: Session, person: Person, campaign: Campaign, sent: Sent, time: str = "milliseconds"
) -> dict[str, Any]:
    """The columns that every kind of answer has, by name; `time` is what its table calls the time."""
    taken = checked_milliseconds(sent.milliseconds)
    return {
        time: taken,
        "signals": signals.checked(sent.noticed, campaign, taken),
        "instructions_id": instructions_shown(db, campaign, sent.instructions_id),
        "idempotency_key": checked_key(sent.idempotency_key),
    }


def checked_key(key: str) -> str:
    """An idempotency key: made by the page once per intent, so that sending twice stores once."""
    if not _KEY.fullmatch(key):
        raise BadInput(_("idempotency_key has 8 to 100 visible ASCII characters."), field="idempotency_key")
    return key


def earlier(db: Session, table: type[Any], person: Person, turn: Turn, key: str) -> Any | None:
    """The row of `table` that the same request stored before; AlreadyDone when another request answered the turn."""
    found = db.scalars(
        select(table).where(table.person_id == person.id, or_(table.turn_id == turn.id, table.idempotency_key == key))
    ).all()
    for row in found:
        if row.turn_id == turn.id and row.idempotency_key == key:
            return row
    if any(row.turn_id == turn.id for row in found):
        raise AlreadyDone(_("You have already answered this. Reload the page to go on."))
    if found:
        raise BadInput(_("This idempotency_key was used for another turn; make a new one."), field="idempotency_key")
    taken_back = select(Undone.id).where(
        Undone.person_id == person.id, Undone.turn_id == turn.id, Undone.answer["idempotency_key"].astext == key
    )
    if db.scalar(taken_back.limit(1)) is not None:  # a request that came again after its answer was taken back
        raise AlreadyDone(_("You have already answered this. Reload the page to go on."))
    return None


def cleaned(text: str | None) -> str:
    """What a box held, as it is stored: plain line ends, nothing that cannot be stored, nothing around it."""
    return (text or "").replace("\r\n", "\n").replace("\0", "").strip()


def checked_text(text: str, most: int) -> str:
    """What a person wrote, with plain line ends; BadInput when it is empty or longer than `most` characters."""
    text = cleaned(text)
    if not text:
        raise BadInput(_("There is nothing in the box yet. Write something first."), field="text")
    if len(text) > most:
        sentence = _("The text has {length} characters; at most {most} can be sent here.", length=len(text), most=most)
        raise TooLarge(sentence, field="text")
    return text


def purpose_of(person: Person, campaign: Campaign) -> str:
    """What this person's answers here are for; those of the held-out pool only evaluate, wherever they are given."""
    return "evaluation" if person.held_out else campaign.purpose


def checked_milliseconds(milliseconds: int) -> int:
    """The time taken, bounded; BadInput when negative."""
    if milliseconds < 0:
        raise BadInput(_("milliseconds cannot be negative."), field="milliseconds")
    return min(milliseconds, MAX_MILLISECONDS)


def checked_justification(campaign: Campaign, text: str | None, *, required: bool = False) -> str | None:
    """The reason as it is stored; BadInput where one is asked for and none was given."""
    text = cleaned(text)
    if len(text) > MAX_JUSTIFICATION_CHARS:
        raise BadInput(
            _("The reason has at most {most} characters.", most=MAX_JUSTIFICATION_CHARS), field="justification"
        )
    if not text and (required or campaign.justification == "required"):
        raise BadInput(_("Please say why, in a few words."), field="justification")
    return text or None


def instructions_shown(db: Session, campaign: Campaign, shown: int | None) -> int:
    """The version that was on the person's screen; without one the newest is taken to have been."""
    if shown is None:
        newest = newest_instructions(db, campaign)
        if newest is None:
            raise Conflict(
                _("This campaign has no instructions yet, so nothing can be compared. Please tell its admin.")
            )
        return newest.id
    of_campaign = select(Instructions.id).where(Instructions.id == shown, Instructions.campaign_id == campaign.id)
    if db.scalar(of_campaign) is None:
        raise BadInput(_("These are not instructions of this campaign. Reload the page."), field="instructions_id")
    return shown


def round_of(db: Session, campaign: Campaign, turn: Turn) -> int | None:
    """The round of the deployment that was current when the turn was made."""
    return db.scalar(
        select(Deployment.round_id)
        .where(Deployment.campaign_id == campaign.id, Deployment.created_at <= turn.created_at)
        .order_by(Deployment.id.desc())
        .limit(1)
    )
