"""Items of a queue that people bring themselves: two given texts to a message, to be compared by others; with a key, a check."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.db import Base
from server.errors import BadInput, Conflict
from server.models import Campaign, Candidate, Comparison, Conversation, Person, Turn
from server.services import audit, checks, leases

MOST_CHARS = 200_000
SHAPE = '{"prompt": text or messages, "a": text, "b": text}, with "expected" for a gold item'


@dataclass(frozen=True)
class Pair:
    """Two texts that answer the last of the messages; with an expert's key it is a check."""

    messages: tuple[dict[str, str], ...]
    a: str
    b: str
    expected: dict[str, Any] | None = None
    attention: bool = False

    @property
    def key(self) -> str:
        """The same for the same content, so that adding a file twice adds it once."""
        said = json.dumps([self.messages, self.a, self.b, self.expected, self.attention], ensure_ascii=False)
        return f"item:{hashlib.sha256(said.encode()).hexdigest()[:40]}"


def pair_of(record: Any) -> Pair:
    """The pair that a line's object describes; BadInput says what is wrong with it."""
    if not isinstance(record, dict):
        raise BadInput(f"is not an object; an item is {SHAPE}.")
    unknown = sorted(set(record) - {"prompt", "a", "b", "expected", "attention"})
    if unknown:
        raise BadInput(f"has the unknown key {unknown[0]!r}; an item is {SHAPE}.")
    a, b = _text(record, "a"), _text(record, "b")
    if a == b:
        raise BadInput("has two equal texts, which say nothing.")
    expected = record.get("expected")
    attention = record.get("attention", False)
    if not isinstance(attention, bool) or (attention and expected is None):
        raise BadInput('"attention" is true or false, and true only beside "expected".')
    return Pair(
        messages=_messages(record.get("prompt")),
        a=a,
        b=b,
        expected=None if expected is None else checks.checked_expected(expected),
        attention=attention,
    )


def _text(record: dict[str, Any], name: str) -> str:
    text = record.get(name)
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"needs the text {name!r}; an item is {SHAPE}.")
    if not _storable(text) or len(text) > MOST_CHARS:
        raise BadInput(
            f"the text {name!r} holds U+0000, half a surrogate pair, or more than {MOST_CHARS:,} characters."
        )
    return text


def _storable(text: str) -> bool:
    """Whether Postgres can hold it: JSON may spell U+0000 and halves of surrogate pairs."""
    return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)


def _messages(prompt: Any) -> tuple[dict[str, str], ...]:
    """Messages that begin with the user's, take turns, and end with the user's."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    sentence = (
        f'"prompt" is a text, or messages of user and assistant in turn that begin and end with the user; {SHAPE}.'
    )
    if not isinstance(prompt, list) or not prompt or len(prompt) % 2 == 0:
        raise BadInput(sentence)
    for place, message in enumerate(prompt):
        role = ("user", "assistant")[place % 2]
        fits = isinstance(message, dict) and message.get("role") == role and isinstance(message.get("content"), str)
        if not fits or not message["content"].strip() or not _storable(message["content"]):
            raise BadInput(sentence)
    return tuple({"role": each["role"], "content": each["content"]} for each in prompt)


def add_pairs(db: Session, campaign: Campaign, pairs: Iterable[Pair], person: Person | None = None) -> int:
    """Put pairs into the campaign's queue; those that are there already are passed over. Returns how many are new.

    Conflict unless the campaign's way is `pairs`.
    """
    if campaign.way != "pairs":
        raise Conflict(f"{campaign.name} has the way {campaign.way!r}; items are for a campaign of the way 'pairs'.")
    # A form that is sent twice at once: the second waits here, then finds what the first has added.
    leases.lock(db, f"items:{campaign.id}")
    known = set(
        db.scalars(
            select(Turn.idempotency_key)
            .join(Conversation)
            .where(Conversation.campaign_id == campaign.id, Conversation.source == "item")
        )
    )
    fresh: dict[str, Pair] = {}
    for pair in pairs:
        key = pair.key
        if key not in known:
            fresh.setdefault(key, pair)
    _add(db, campaign, fresh)
    if fresh:
        audit.record(db, person, "campaign.items", "campaign", campaign.id, added=len(fresh))
    return len(fresh)


def _add(db: Session, campaign: Campaign, pairs: dict[str, Pair]) -> None:
    """Write the pairs, by their keys. Each table in one go: a flush an item would make minutes of a large file."""
    now = datetime.now(UTC)
    talks = [Conversation(campaign_id=campaign.id, source="item") for _ in pairs]
    _write(db, talks)
    asked: list[Turn] = []
    earlier: list[tuple[Turn, str]] = []
    for talk, (key, pair) in zip(talks, pairs.items(), strict=True):
        before = list(zip(pair.messages[:-1:2], pair.messages[1::2], strict=True))
        for place, (said, replied) in enumerate(before, 1):
            turn = Turn(
                conversation_id=talk.id, position=place, message=said["content"], status="compared", ready_at=now,
                idempotency_key=f"{key}:{place}",
            )  # fmt: skip
            earlier.append((turn, replied["content"]))
        kind = None if pair.expected is None else "attention" if pair.attention else "gold"
        asked.append(Turn(
            conversation_id=talk.id, position=len(before) + 1, message=pair.messages[-1]["content"], status="ready",
            ready_at=now, idempotency_key=key, queue_id=campaign.id, check_kind=kind, expected=pair.expected,
        ))  # fmt: skip
    _write(db, [turn for turn, _ in earlier] + asked)
    replies = [
        Candidate(turn_id=turn.id, position=0, status="done", text=text, finished_at=now) for turn, text in earlier
    ]
    texts = [
        Candidate(turn_id=turn.id, position=place, status="done", text=text, finished_at=now)
        for turn, pair in zip(asked, pairs.values(), strict=True)
        for place, text in enumerate((pair.a, pair.b))
    ]
    _write(db, replies + texts)
    for (turn, _), reply in zip(earlier, replies, strict=True):
        turn.continued_by_id = reply.id
    db.flush()


def _write(db: Session, rows: Sequence[Base]) -> None:
    db.add_all(rows)
    db.flush()


@dataclass(frozen=True)
class Standing:
    """How far the items of a campaign are."""

    items: int
    checks: int
    answered: int  # with all the answers that are wanted
    answers: int


def standing(db: Session, campaign: Campaign) -> Standing:
    """Counts of the campaign's items; checks stand apart, since they are never done."""
    last = (
        select(Turn.check_kind, Turn.queue_id)
        .join(Conversation)
        .where(
            Conversation.campaign_id == campaign.id,
            Conversation.source == "item",
            (Turn.queue_id.is_not(None)) | (Turn.id.in_(select(Comparison.turn_id))),
        )
        .subquery()
    )
    plain = last.c.check_kind.is_(None)
    items, gold, answered = db.execute(
        select(
            func.count().filter(plain),
            func.count().filter(~plain),
            func.count().filter(plain & last.c.queue_id.is_(None)),
        ).select_from(last)
    ).one()
    given = db.scalar(
        select(func.count())
        .select_from(Comparison)
        .join(Turn, Turn.id == Comparison.turn_id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(Comparison.campaign_id == campaign.id, Conversation.source == "item", Turn.check_kind.is_(None))
    )
    return Standing(items, gold, answered, given or 0)
