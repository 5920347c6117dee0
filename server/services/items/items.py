"""Items of a queue that people bring themselves: texts to be compared or ranked, or a message to be answered.

With an expert's key an item is a check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from server.db import Base
from server.errors import BadInput, Conflict
from server.models import Campaign, Candidate, Conversation, Person, Turn
from server.services import audit
from server.services.door import checks
from server.services.items import kept
from server.services.working import leases
from server.services.working.kinds import ANSWERS

MOST_CHARS = 200_000
SHAPE = (
    '{"prompt": text or messages} with "a" and "b" to compare, "replies": [texts] to rank, or neither to be answered; and '
    '"expected" for a gold item, and "for": [people] where only these are to answer it'
)
FEWEST_RANKED, MOST_RANKED = 2, 9
MOST_NAMED = 100
MANY = 200  # items at once that change what Postgres should know of its tables


@dataclass(frozen=True)
class Item:
    """Texts that answer the last of the messages: two to compare, more to rank, none to write; with a key it is a check.

    `people` are numbers, e-mail addresses or names of those who alone may answer it; with none, everybody may.
    """

    messages: tuple[dict[str, str], ...]
    texts: tuple[str, ...]
    way: str
    expected: dict[str, Any] | None = None
    attention: bool = False
    people: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The same for the same content, whoever is to answer, so that adding a file twice adds it once and nobody meets it twice."""
        said = json.dumps([self.messages, *self.texts, self.expected, self.attention], ensure_ascii=False)
        return f"item:{hashlib.sha256(said.encode()).hexdigest()[:40]}"


def item_of(record: Any) -> Item:
    """The item that a line's object describes; BadInput says what is wrong with it."""
    if not isinstance(record, dict):
        raise BadInput(f"is not an object; an item is {SHAPE}.")
    unknown = sorted(set(record) - {"prompt", "a", "b", "replies", "expected", "attention", "for"})
    if unknown:
        raise BadInput(f"has the unknown key {unknown[0]!r}; an item is {SHAPE}.")
    way, texts = _texts_of(record)
    if len(set(texts)) < len(texts):
        raise BadInput("has two equal texts, which say nothing.")
    expected = record.get("expected")
    attention = record.get("attention", False)
    if not isinstance(attention, bool) or (attention and expected is None):
        raise BadInput('"attention" is true or false, and true only beside "expected".')
    if expected is not None:
        if way == "demonstration":
            raise BadInput("asks for a reply to be written, which has no expected answer.")
        expected = checks.checked_expected(expected, None if way == "pairs" else len(texts))
    return Item(_messages(record.get("prompt")), texts, way, expected, attention, _people_of(record))


def _people_of(record: dict[str, Any]) -> tuple[str, ...]:
    """The people whom an item names."""
    if "for" not in record:
        return ()
    given = record["for"]
    known = isinstance(given, list) and all(
        (isinstance(who, str) and who.strip()) or (isinstance(who, int) and not isinstance(who, bool)) for who in given
    )
    if not known or not 1 <= len(given) <= MOST_NAMED:
        raise BadInput(f'"for" is a list of 1 to {MOST_NAMED} people, each an e-mail address, a number or a name.')
    return tuple(str(who).strip() for who in given)


def _texts_of(record: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The way of giving feedback that the keys of an item fit, and its texts."""
    if "replies" in record:
        replies = record["replies"]
        if "a" in record or "b" in record or not isinstance(replies, list):
            raise BadInput(f"has no list of replies, or texts beside it; an item is {SHAPE}.")
        if not FEWEST_RANKED <= len(replies) <= MOST_RANKED:
            raise BadInput(f"has {len(replies)} replies; {FEWEST_RANKED} to {MOST_RANKED} can be ranked.")
        return "ranking", tuple(_checked_text(text, f"replies[{place}]") for place, text in enumerate(replies))
    if "a" in record or "b" in record:
        return "pairs", tuple(_checked_text(record.get(name), name) for name in ("a", "b"))
    return "demonstration", ()


def _checked_text(text: Any, name: str) -> str:
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
        if not fits or not message["content"].strip():
            raise BadInput(sentence)
        if not _storable(message["content"]):
            raise BadInput('the "prompt" holds U+0000 or half a surrogate pair, which the database cannot store.')
    return tuple({"role": each["role"], "content": each["content"]} for each in prompt)


def add_items(db: Session, campaign: Campaign, given: Iterable[Item], person: Person | None = None) -> int:
    """Put items into the campaign's queue; those that are there already are passed over. Returns how many are new.

    Conflict unless the campaign's way takes items and theirs is its own.
    """
    if campaign.way not in ("pairs", "ranking", "demonstration"):
        raise Conflict(
            f"{campaign.name} has the way {campaign.way!r}, which takes no items; pairs, ranking and demonstration do."
        )
    # A form that is sent twice at once: the second waits here, then finds what the first has added.
    leases.lock(db, f"items:{campaign.id}")
    known = set(
        db.scalars(
            select(Turn.idempotency_key)
            .join(Conversation)
            .where(Conversation.campaign_id == campaign.id, Conversation.source == "item")
        )
    )
    fresh: dict[str, Item] = {}
    for number, item in enumerate(given, 1):
        if item.way != campaign.way:
            raise BadInput(
                f"Item {number} is for the way {item.way!r}, and {campaign.name} has the way {campaign.way!r}; an item is {SHAPE}.",
                field="lines",
            )
        key = item.key
        if key not in known:
            fresh.setdefault(key, item)
    kept_for = _named(db, campaign, fresh)
    asked = add(db, campaign, fresh)
    for turn, item in zip(asked, fresh.values(), strict=True):
        turn.kept_for = sorted({kept_for[who] for who in item.people}) or None
    db.flush()
    if len(fresh) >= MANY:
        # What autovacuum does within a minute. Until then Postgres takes the queue for short, and every offer of an item would
        # read and sort all of it. Without SKIP LOCKED two large files at once would wait for each other's end.
        db.execute(text("ANALYZE (SKIP_LOCKED) turns, conversations, candidates"))
    if fresh:
        audit.record(db, person, "campaign.items", "campaign", campaign.id, added=len(fresh))
    return len(fresh)


def _named(db: Session, campaign: Campaign, given: Mapping[str, Item]) -> dict[str, int]:
    """The numbers of all people whom the items name; BadInput for one who could not answer here."""
    found: dict[str, int] = {}
    for number, item in enumerate(given.values(), 1):
        for who in item.people:
            if who not in found:
                try:
                    found[who] = kept.able(db, campaign, who).id
                except BadInput as error:
                    raise BadInput(f"Item {number}: {error.message}", field="lines") from error
    return found


def add(db: Session, campaign: Campaign, given: dict[str, Item]) -> list[Turn]:
    """Write the items, by their keys, and return the turns that ask. Each table in one go: a flush an item would make minutes of a large file."""
    now = datetime.now(UTC)
    talks = [Conversation(campaign_id=campaign.id, source="item") for _ in given]
    _write(db, talks)
    asked: list[Turn] = []
    earlier: list[tuple[Turn, str]] = []
    for talk, (key, item) in zip(talks, given.items(), strict=True):
        before = list(zip(item.messages[:-1:2], item.messages[1::2], strict=True))
        for place, (said, replied) in enumerate(before, 1):
            turn = Turn(
                conversation_id=talk.id, position=place, message=said["content"], status="compared", ready_at=now,
                idempotency_key=f"{key}:{place}",
            )  # fmt: skip
            earlier.append((turn, replied["content"]))
        kind = None if item.expected is None else "attention" if item.attention else "gold"
        asked.append(Turn(
            conversation_id=talk.id, position=len(before) + 1, message=item.messages[-1]["content"], status="ready",
            ready_at=now, idempotency_key=key, queue_id=campaign.id, check_kind=kind, expected=item.expected,
        ))  # fmt: skip
    _write(db, [turn for turn, _ in earlier] + asked)
    replies = [
        Candidate(turn_id=turn.id, position=0, status="done", text=text, finished_at=now) for turn, text in earlier
    ]
    texts = [
        Candidate(turn_id=turn.id, position=place, status="done", text=text, finished_at=now)
        for turn, item in zip(asked, given.values(), strict=True)
        for place, text in enumerate(item.texts)
    ]
    _write(db, replies + texts)
    for (turn, _), reply in zip(earlier, replies, strict=True):
        turn.continued_by_id = reply.id
    db.flush()
    return asked


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
    table: type[Any] = ANSWERS[campaign.way]
    last = (
        select(Turn.check_kind, Turn.queue_id)
        .join(Conversation)
        .where(
            Conversation.campaign_id == campaign.id,
            Conversation.source == "item",
            (Turn.queue_id.is_not(None)) | (Turn.id.in_(select(table.turn_id))),
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
        .select_from(table)
        .join(Turn, Turn.id == table.turn_id)
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .where(table.campaign_id == campaign.id, Conversation.source == "item", Turn.check_kind.is_(None))
    )
    return Standing(items, gold, answered, given or 0)
