"""On which side of a dataset version's split a conversation falls: from a hash of it alone, so more data moves none."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, case, cast, func, literal, select
from sqlalchemy.orm import aliased

from server.models import Conversation, Turn

SPLIT_SALT = "whetstone-split-1"  # another salt would move conversations between train and test


def split_of(share: float) -> ColumnElement[str]:
    """`test` or `train` for the statement's `Conversation`, which its `Turn` belongs to."""
    return case((_held_out(share), "test"), else_="train")


def _held_out(share: float) -> ColumnElement[bool]:
    """Whether the conversation falls into the held-out share.

    Imported records and items with the same opening message stay together: datasets repeat their prompts.
    """
    opening = aliased(Turn)
    first_message = (
        select(opening.message)
        .where(opening.conversation_id == Conversation.id)
        .order_by(opening.position)
        .limit(1)
        .scalar_subquery()
    )
    key = case(
        (Conversation.source.in_(("import", "item")), literal("opening:") + first_message),
        else_=literal("conversation:") + cast(Conversation.id, Turn.message.type),
    )
    digest = func.sha256(func.convert_to(literal(SPLIT_SALT + "\n") + key, "UTF8"))
    fraction = sum(
        (cast(func.get_byte(digest, byte), BigInteger) * 256 ** (3 - byte) for byte in range(4)), literal(0, BigInteger)
    )
    return fraction < int(share * 2**32)
