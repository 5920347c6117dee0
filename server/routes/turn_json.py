"""A turn and a conversation as a person may see them: never a snapshot's name, a seed or a log-probability."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from server.language import _
from server.markdown import to_html
from server.models import Campaign, Candidate, Conversation, Person, Turn
from server.services.chat import dialogue, queue
from server.services.working import leases


def describe_turn(turn: Turn) -> dict[str, Any]:
    """A turn with its candidates in the order shown; text only once all of it is there, so that speed biases nobody.

    Until then each candidate has the turn's status: which of them is done would tell which model is the slower one.
    """
    complete = turn.status in ("ready", "compared")
    until_then = "failed" if turn.status == "failed" else "sampling"
    continued_by = next((each.position for each in turn.candidates if each.id == turn.continued_by_id), None)
    return {
        "id": turn.id,
        "position": turn.position,
        "message": turn.message,
        "status": turn.status,
        "candidates": [
            _describe_candidate(candidate, complete) | ({} if complete else {"status": until_then})
            for candidate in turn.candidates
        ],
        "continued_by": continued_by,
        "compared": turn.status == "compared",
        "failure": _(turn.failure) if turn.failure else None,
    }


def describe_for(db: Session, person: Person, turn: Turn) -> dict[str, Any]:
    """The turn as its own person may see it, or as one it is lent to: in their order, and not how others chose."""
    if turn.conversation.person_id == person.id:
        return describe_turn(turn)
    lease = leases.find(db, person, turn.conversation, turn.id)
    shown = [_describe_candidate(each, complete=True) for each in queue.as_shown(turn, lease)]
    return describe_turn(turn) | {
        "continued_by": None,
        "compared": False,
        "status": "ready",
        "candidates": [each | {"position": place} for place, each in enumerate(shown)],
    }


def describe_next(db: Session, person: Person, answered: Turn, *, check: bool | None = None) -> dict[str, Any] | None:
    """Where the work is a queue of items: the next one, leased already, so that it is there at once.

    None may come although there is one: the row of the answered turn may be locked, so others' rows are not waited for.
    """
    campaign = db.get_one(Campaign, answered.conversation.campaign_id)
    if campaign.way == "chat":
        return None
    found = queue.offer(db, person, campaign, wait=False, check=check)
    if found is None:
        return None
    return {"turn": describe_for(db, person, found), "transcript": dialogue.transcript(db, found)}


def _describe_candidate(candidate: Candidate, complete: bool) -> dict[str, Any]:
    text = candidate.text if complete else None
    return {
        "position": candidate.position,
        "text": text,
        "html": None if text is None else to_html(text),
        "status": candidate.status,
    }


def describe_conversation(conversation: Conversation | None) -> dict[str, Any] | None:
    """A conversation with its turns."""
    if conversation is None:
        return None
    return {
        "id": conversation.id,
        "status": conversation.status,
        "turns": [describe_turn(turn) for turn in conversation.turns],
    }
