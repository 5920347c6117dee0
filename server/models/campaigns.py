"""Campaigns, their versioned instructions, and the pool of opening prompts."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import CheckConstraint, Double, ForeignKey, Numeric, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Key, Now

MODES = ("helpful", "red_team")
CONTINUATIONS = ("chosen", "less_harmful", "random")


class Campaign(Base):
    """A standing request for feedback and everything that decides what its people see.

    `continuation` says which reply carries the chat on. In `red_team` people pick the MORE harmful reply, so
    `chosen` follows the harmful path and `less_harmful` the other one.
    """

    __tablename__ = "campaigns"
    __table_args__ = (
        CheckConstraint("mode IN ('helpful','red_team')", name="mode_known"),
        CheckConstraint("status IN ('open','paused','closed')", name="status_known"),
        CheckConstraint("continuation IN ('chosen','less_harmful','random')", name="continuation_known"),
        CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name="slug_shape"),
        CheckConstraint("grades BETWEEN 1 AND 4", name="grades_range"),
        CheckConstraint("overlap BETWEEN 1 AND 20", name="overlap_range"),
        CheckConstraint("temperature > 0 AND temperature <= 2", name="temperature_range"),
        CheckConstraint("top_p > 0 AND top_p <= 1", name="top_p_range"),
        CheckConstraint("max_new_tokens BETWEEN 1 AND 4096", name="max_new_tokens_range"),
        CheckConstraint("max_turns BETWEEN 1 AND 100", name="max_turns_range"),
        CheckConstraint("max_message_chars BETWEEN 1 AND 100000", name="max_message_chars_range"),
        CheckConstraint("lease_minutes BETWEEN 1 AND 1440", name="lease_minutes_range"),
        CheckConstraint("quota IS NULL OR quota > 0", name="quota_positive"),
    )

    id: Mapped[Key]
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    mode: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=sql("'open'"))
    continuation: Mapped[str] = mapped_column(server_default=sql("'chosen'"))
    grades: Mapped[int] = mapped_column(server_default=sql("4"))  # strengths on each side of the scale
    overlap: Mapped[int] = mapped_column(server_default=sql("1"))  # people who compare the same turn
    quota: Mapped[int | None]  # comparisons wanted in all; none means no end
    pay_per_hour: Mapped[Decimal | None] = mapped_column(Numeric(8, 2))
    temperature: Mapped[float] = mapped_column(Double, server_default=sql("1.0"))
    top_p: Mapped[float] = mapped_column(Double, server_default=sql("1.0"))
    max_new_tokens: Mapped[int] = mapped_column(server_default=sql("128"))
    max_turns: Mapped[int] = mapped_column(server_default=sql("4"))
    max_message_chars: Mapped[int] = mapped_column(server_default=sql("8000"))
    lease_minutes: Mapped[int] = mapped_column(server_default=sql("60"))
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Now]


class Instructions(Base):
    """One version of what the people of a campaign are told, in Markdown; never changed, only followed by a newer one."""

    __tablename__ = "instructions"
    __table_args__ = (UniqueConstraint("campaign_id", "version"), UniqueConstraint("id", "campaign_id"))

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    version: Mapped[int]
    markdown: Mapped[str]
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Now]


class Prompt(Base):
    """An opening message of a campaign's pool. `held_out` prompts only measure; no policy is trained on them."""

    __tablename__ = "prompts"
    __table_args__ = (
        CheckConstraint("split IN ('train','held_out')", name="split_known"),
        UniqueConstraint("campaign_id", "text"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    text: Mapped[str]
    split: Mapped[str] = mapped_column(server_default=sql("'train'"))
    created_at: Mapped[Now]
