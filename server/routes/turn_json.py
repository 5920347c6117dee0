"""A turn and a conversation as a person may see them: never a snapshot's name, a seed or a log-probability."""

from __future__ import annotations

from typing import Any

from server.language import _
from server.markdown import to_html
from server.models import Candidate, Conversation, Turn


def describe_turn(turn: Turn) -> dict[str, Any]:
    """A turn with its candidates in the order shown; text only once all of it is there, so that speed biases nobody."""
    complete = turn.status in ("ready", "compared")
    continued_by = next((each.position for each in turn.candidates if each.id == turn.continued_by_id), None)
    return {
        "id": turn.id,
        "position": turn.position,
        "message": turn.message,
        "status": turn.status,
        "candidates": [_describe_candidate(candidate, complete) for candidate in turn.candidates],
        "continued_by": continued_by,
        "compared": turn.status == "compared",
        "failure": _(turn.failure) if turn.failure else None,
    }


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
