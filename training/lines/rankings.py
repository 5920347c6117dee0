r"""Rankings of several replies, and single replies marked good or bad, as lines of text.  No torch here.

    ranking     {"prompt": …, "replies": ["…", "…", "…"], "ranks": [2, 1, 2]}    1 is best; equal ranks are a tie
    marked      {"prompt": …, "reply": "…", "good": true}

"prompt" is a text, an hh-rlhf transcript or messages that end with the user's; a reply is a text or a list of one message
of the assistant. "mode", "conversation", "person", "round" and any provenance may stand beside them, as in records.py.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from training.lines.records import Message, Reason, prompt_messages, provenance, reply_text

MOST_REPLIES = 9  # of one prompt (IG 3.5: K = 4 to 9)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """K replies to one prompt with the rank of each: 1 is best, equal ranks are a tie."""

    prompt: tuple[Message, ...]
    replies: tuple[str, ...]
    ranks: tuple[int, ...]
    mode: str | None = None
    conversation: str | None = None
    person: str | None = None
    round: int | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    line: int | None = dataclasses.field(default=None, compare=False)  # of its file, from 1


@dataclasses.dataclass(frozen=True)
class Marked:
    """One reply that somebody called good or bad."""

    prompt: tuple[Message, ...]
    reply: str
    good: bool
    mode: str | None = None
    conversation: str | None = None
    person: str | None = None
    round: int | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    line: int | None = dataclasses.field(default=None, compare=False)  # of its file, from 1


def ranking_of(record: dict[str, Any], _line: str = "") -> Ranking:
    """Build the ranking of a parsed line; Reason says what is wrong with it."""
    replies, ranks = record.get("replies"), record.get("ranks")
    if not isinstance(replies, list):
        raise Reason("'replies' must be a list of replies")
    if not isinstance(ranks, list) or not all(type(rank) is int and rank >= 1 for rank in ranks):
        raise Reason("'ranks' must be a list of whole numbers from 1, the rank of each reply")
    if len(ranks) != len(replies):
        raise Reason(f"there are {len(replies)} replies and {len(ranks)} ranks")
    if not 2 <= len(replies) <= MOST_REPLIES:
        raise Reason(f"a ranking holds 2 to {MOST_REPLIES} replies, not {len(replies)}")
    texts = tuple(reply_text("replies", reply) for reply in replies)
    twice = next((place for place, text in enumerate(texts) if text in texts[:place]), None)
    if twice is not None:
        raise Reason(f"reply {twice + 1} is the same as one before it")
    return Ranking(prompt_messages(record.get("prompt")), texts, tuple(ranks), **provenance(record, "replies", "ranks"))


def marked_of(record: dict[str, Any], _line: str = "") -> Marked:
    """Build the marked reply of a parsed line; Reason says what is wrong with it."""
    good = record.get("good")
    if not isinstance(good, bool):
        raise Reason(f"'good' must be true or false, not {good!r}")
    if record.get("reply") is None:
        raise Reason("has no 'reply'")
    reply = reply_text("reply", record["reply"])
    return Marked(prompt_messages(record.get("prompt")), reply, good, **provenance(record, "reply", "good"))


def to_line(record: Ranking | Marked) -> str:
    """Return the line, without newline, that reads as `record`."""
    if isinstance(record, Ranking):
        said: dict[str, Any] = {"replies": list(record.replies), "ranks": list(record.ranks)}
    else:
        said = {"reply": record.reply, "good": record.good}
    beside = {key: getattr(record, key) for key in ("mode", "conversation", "person", "round")}
    known = {key: value for key, value in beside.items() if value is not None}
    return json.dumps({"prompt": list(record.prompt), **said, **known, **record.extra}, ensure_ascii=False)


def ranked_by(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the rank of each score, the highest first: 1 and one more for every higher score, equal ones tie."""
    return tuple(1 + sum(other > score for other in scores) for score in scores)
