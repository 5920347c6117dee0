"""Campaigns, their versioned instructions, and the pool of opening prompts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, Double, ForeignKey, Numeric, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Json, Key, Now

MODES = ("helpful", "red_team")
CONTINUATIONS = ("chosen", "less_harmful", "random")
# What people do here. In every way but the first the work is items of a queue.
WAYS = ("chat", "pairs", "ranking", "demonstration", "prompts")
PURPOSES = ("training", "evaluation")
PAIRINGS = ("shares", "one", "two")
ASKED = ("off", "optional", "required")
ACCESS = ("everyone", "members")


class Campaign(Base):
    """A standing request for feedback and everything that decides what its people see.

    `continuation` says which reply carries the chat on. In `red_team` people pick the MORE harmful reply, so
    `chosen` follows the harmful path and `less_harmful` the other one.

    `way` says what people do: `chat` (talk, and compare two replies a turn), `pairs` (compare two given texts), `ranking`
    (rate and order `candidates` replies to a prompt), `demonstration` (write the reply), `prompts` (write openings).
    `purpose` is what the answers are for: nothing of an `evaluation` is ever trained on. `pairing` says whether the two
    replies of a turn are drawn by the deployment's shares each, from one snapshot, or from two different ones.
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
        CheckConstraint("way IN ('chat','pairs','ranking','demonstration','prompts')", name="way_known"),
        CheckConstraint("purpose IN ('training','evaluation')", name="purpose_known"),
        CheckConstraint("pairing IN ('shares','one','two')", name="pairing_known"),
        CheckConstraint("candidates BETWEEN 2 AND 9", name="candidates_range"),
        CheckConstraint("justification IN ('off','optional','required')", name="justification_known"),
        CheckConstraint("edits IN ('off','optional','required')", name="edits_known"),
        CheckConstraint("access IN ('everyone','members')", name="access_known"),
        CheckConstraint("undo_seconds BETWEEN 0 AND 86400", name="undo_seconds_range"),
        CheckConstraint("daily_limit IS NULL OR daily_limit > 0", name="daily_limit_positive"),
        CheckConstraint("check_rate BETWEEN 0 AND 0.5", name="check_rate_range"),
        CheckConstraint("pass_mark IS NULL OR pass_mark BETWEEN 0 AND 1", name="pass_mark_range"),
        CheckConstraint("test_attempts BETWEEN 1 AND 100", name="test_attempts_range"),
        CheckConstraint("screening_items BETWEEN 0 AND 1000", name="screening_items_range"),
        CheckConstraint("screening_agreement BETWEEN 0 AND 1", name="screening_agreement_range"),
        CheckConstraint("too_fast_seconds BETWEEN 0 AND 600", name="too_fast_seconds_range"),
        CheckConstraint("prepared BETWEEN 0 AND 100", name="prepared_range"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_shape"),
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
    way: Mapped[str] = mapped_column(server_default=sql("'chat'"))
    purpose: Mapped[str] = mapped_column(server_default=sql("'training'"))
    pairing: Mapped[str] = mapped_column(server_default=sql("'shares'"))
    candidates: Mapped[int] = mapped_column(server_default=sql("2"))  # replies to a prompt; a chat shows two
    ties: Mapped[bool] = mapped_column(server_default=sql("false"))  # "about the same" may be chosen
    both_bad: Mapped[bool] = mapped_column(server_default=sql("false"))  # "both are bad" may be, with a reason
    justification: Mapped[str] = mapped_column(server_default=sql("'optional'"))
    edits: Mapped[str] = mapped_column(server_default=sql("'off'"))  # may the picked reply be improved
    rated: Mapped[bool] = mapped_column(server_default=sql("false"))  # 1 to 7 and flags before a ranking
    flags: Mapped[list[Any]] = mapped_column(JSONB, server_default=sql("'[]'::jsonb"))  # of {"key", "label"}
    undo_seconds: Mapped[int] = mapped_column(server_default=sql("120"))
    daily_limit: Mapped[int | None]  # answers a person may give in a day: what one can bear to read has an end
    consent: Mapped[str | None]  # Markdown that has to be agreed to before anything is shown
    blurred: Mapped[bool] = mapped_column(server_default=sql("false"))  # replies are shown when asked for
    asks_success: Mapped[bool] = mapped_column(server_default=sql("false"))  # the person's own rating at the end
    access: Mapped[str] = mapped_column(server_default=sql("'everyone'"))
    check_rate: Mapped[float] = mapped_column(Double, server_default=sql("0"))  # share of items that are checks
    shares_checks: Mapped[bool] = mapped_column(server_default=sql("false"))  # people see how they did
    pass_mark: Mapped[float | None] = mapped_column(Double)  # of the test before the first work; none means no test
    test_attempts: Mapped[int] = mapped_column(server_default=sql("3"))
    screening_items: Mapped[int] = mapped_column(server_default=sql("0"))  # first answers held against the expert key
    screening_agreement: Mapped[float] = mapped_column(Double, server_default=sql("0.75"))
    too_fast_seconds: Mapped[float] = mapped_column(Double, server_default=sql("2"))
    leaderboard: Mapped[bool] = mapped_column(server_default=sql("false"))
    prepared: Mapped[int] = mapped_column(server_default=sql("4"))  # openings whose replies are kept in store
    currency: Mapped[str] = mapped_column(server_default=sql("'USD'"))
    pool_id: Mapped[int | None] = mapped_column(
        ForeignKey("campaigns.id")
    )  # whose prompts are used; none means its own
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
    """An opening message of a campaign's pool. `held_out` prompts only measure; no policy is trained on them.

    One that a person wrote here names its author and waits as `proposed` until an admin accepts or declines it; only
    accepted ones are drawn.
    """

    __tablename__ = "prompts"
    __table_args__ = (
        CheckConstraint("split IN ('train','held_out')", name="split_known"),
        CheckConstraint("status IN ('proposed','accepted','declined')", name="status_known"),
        UniqueConstraint("campaign_id", "text"),
        UniqueConstraint("author_id", "idempotency_key"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    text: Mapped[str]
    split: Mapped[str] = mapped_column(server_default=sql("'train'"))
    status: Mapped[str] = mapped_column(server_default=sql("'accepted'"))
    author_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    written_in_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))  # the campaign that asked for it
    instructions_id: Mapped[int | None] = mapped_column(ForeignKey("instructions.id"))
    milliseconds: Mapped[int | None]  # of active writing
    signals: Mapped[Json] = mapped_column(server_default=sql("'{}'::jsonb"))
    idempotency_key: Mapped[str | None]
    created_at: Mapped[Now]
