"""What the page of a ranking shows: the replies in this person's order, and what they have said of each so far."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from server.language import _
from server.models import Campaign, Person, Turn
from server.services.chat import queue
from server.services.ways.ranking import RATINGS
from server.services.working import drafts, leases

LETTERS = "ABCDEFGHI"


@dataclass(frozen=True)
class ReplyCard:
    """One reply, and what the person said of it before a reload."""

    letter: str
    text: str
    place: int | None
    rating: int | None
    flags: list[str]


@dataclass(frozen=True)
class RankingSheet:
    """An item to be ranked."""

    turn_id: int
    message: str
    replies: list[ReplyCard]
    rated: bool
    ratings: list[int]
    flags: list[tuple[str, str]]
    reason: str
    draft_place: str


def ranking_sheet(db: Session, person: Person, campaign: Campaign, turn: Turn) -> RankingSheet:
    """The item as it is lent to this person."""
    shown = queue.as_shown(turn, leases.find(db, person, turn.conversation, turn.id))
    place = drafts.turn_place("ranking", turn)
    said = _said(drafts.load(db, person, place), len(shown))
    return RankingSheet(
        turn_id=turn.id,
        message=turn.message,
        replies=[
            ReplyCard(
                letter=LETTERS[at],
                text=candidate.text or "",
                place=_within(said[at].get("place"), 1, len(shown)),
                rating=_within(said[at].get("rating"), RATINGS[0], RATINGS[-1]),
                flags=[flag for flag in said[at].get("flags") or [] if isinstance(flag, str)],
            )
            for at, candidate in enumerate(shown)
        ],
        rated=campaign.rated,
        ratings=list(RATINGS),
        flags=[(each["key"], _(each["label"])) for each in campaign.flags],
        reason=drafts.load(db, person, drafts.justification_place(turn)),
        draft_place=place,
    )


def _said(draft: str, count: int) -> list[dict[str, Any]]:
    """The draft as far as it fits; the page wrote it, but anybody can write to a draft."""
    try:
        found = json.loads(draft) if draft else []
    except ValueError:
        found = []
    fits = isinstance(found, list) and len(found) == count and all(isinstance(each, dict) for each in found)
    return found if fits else [{} for _each in range(count)]


def _within(value: Any, low: int, high: int) -> int | None:
    return value if type(value) is int and low <= value <= high else None
