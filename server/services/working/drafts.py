"""What a person has typed and not yet sent, so that a reload, a crash or a deploy loses none of it."""

from __future__ import annotations

import re

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound, TooLarge
from server.language import _
from server.models import Campaign, Draft, Person, Turn

MAX_CHARS = 100_000
_OF_CAMPAIGN = ("message", "prompt")
_OF_TURN = ("justification", "ranking", "demonstration", "edit")
_PLACE = re.compile(rf"({'|'.join(_OF_CAMPAIGN + _OF_TURN)}):([1-9][0-9]{{0,17}})")


def message_place(campaign: Campaign) -> str:
    """The message box of a campaign."""
    return f"message:{campaign.id}"


def justification_place(turn: Turn) -> str:
    """The box for why one reply is better."""
    return f"justification:{turn.id}"


def prompt_place(campaign: Campaign) -> str:
    """The box for a prompt of one's own."""
    return f"prompt:{campaign.id}"


def turn_place(kind: str, turn: Turn) -> str:
    """A box of a turn: its demonstration, its edit, or the ranking as far as it is (JSON)."""
    return f"{kind}:{turn.id}"


def place_of(db: Session, place: str) -> Campaign | int:
    """The campaign of a box, or the number of the turn that it belongs to; who may have it is asked there."""
    match = _PLACE.fullmatch(place)
    if match is None:
        raise BadInput(
            _("A draft's place is one of {kinds}, a colon, and a number.", kinds=", ".join(_OF_CAMPAIGN + _OF_TURN)),
            field="place",
        )
    kind, number = match.group(1), int(match.group(2))
    if kind in _OF_TURN:
        return number
    of = db.get(Campaign, number)
    if of is None:
        raise NotFound(_("There is no such box to type into."))
    return of


def save(db: Session, person: Person, place: str, text: str) -> None:
    """Keep `text` for `place`; an empty text clears it."""
    if len(text) > MAX_CHARS:
        sentence = _("The draft has {length} characters; at most {most} are kept.", length=len(text), most=MAX_CHARS)
        raise TooLarge(sentence, field="text")
    text = text.replace("\0", "")
    if not text:
        clear(db, person, place)
    else:
        statement = insert(Draft).values(person_id=person.id, place=place, text=text)
        db.execute(
            statement.on_conflict_do_update(
                index_elements=["person_id", "place"], set_={"text": text, "updated_at": func.now()}
            )
        )


def load(db: Session, person: Person, place: str) -> str:
    """What was kept for `place`, or nothing."""
    found = db.get(Draft, (person.id, place), populate_existing=True)
    return found.text if found is not None else ""


def clear(db: Session, person: Person, place: str) -> None:
    """Forget a draft once it has been sent."""
    db.execute(delete(Draft).where(Draft.person_id == person.id, Draft.place == place))
