"""What was said before a turn, as training and exports read it: the messages with the replies that carried the chat on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from server.models import Candidate, Conversation, Edit, Turn


def with_turns(
    db: Session, rows_after: Callable[[int], Select[Any]], key: str
) -> Iterator[tuple[Sequence[Row[Any]], dict[int, list[Any]]]]:
    """Batches of rows in the order of their number `key`, each with the turns of the rows' conversations.

    `rows_after(n)` selects the next batch beyond number n: a batch is in memory at a time, however many there are.
    """
    after = 0
    while rows := db.execute(rows_after(after)).all():
        after = getattr(rows[-1], key)
        yield rows, turns_of(db, sorted({row.conversation_id for row in rows}))


def turns_of(db: Session, conversations: list[int]) -> dict[int, list[Any]]:
    """The turns of these conversations in order: position, message, and the reply that carried each one on, if one did.

    Where its person improved the reply, the chat went on with the improved one.
    """
    rows = db.execute(_turns(), {"conversations": conversations})
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row.conversation_id, []).append(row)
    return found


@cache
def _turns() -> Select[*tuple[Any, ...]]:
    # Made once: putting it together takes longer than it runs, and every page of the chat asks for it.
    carried, edited = aliased(Candidate), aliased(Edit)
    return (
        select(
            Turn.conversation_id, Turn.position, Turn.message, func.coalesce(edited.text, carried.text).label("reply")
        )
        .join(Conversation, Conversation.id == Turn.conversation_id)
        .outerjoin(carried, carried.id == Turn.continued_by_id)
        .outerjoin(
            edited,
            and_(
                edited.turn_id == Turn.id,
                edited.original_id == Turn.continued_by_id,
                edited.person_id == Conversation.person_id,
            ),
        )
        .where(Turn.conversation_id.in_(bindparam("conversations", expanding=True)))
        .order_by(Turn.conversation_id, Turn.position)
    )


def prompt_before(row: Any, turns: list[Any]) -> list[dict[str, str]]:
    """The messages up to the turn of `row` (its `position` and `message`), as a model is given them."""
    prompt = []
    for turn in turns:
        if turn.position < row.position:
            prompt.append({"role": "user", "content": turn.message})
            prompt.append({"role": "assistant", "content": turn.reply or ""})
    return [*prompt, {"role": "user", "content": row.message}]
