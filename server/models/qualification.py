"""Who may work in a campaign: what each person was told and agreed to, the test before the first work, and the checks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Json, Key, Now


class Membership(Base):
    """How a person stands in a campaign.

    `screened_out` did not pass the test or the screening, `left` opted out, `excluded` was taken out by an admin.
    `consent_sha256` is of the text that was agreed to: a changed text asks again. `instructions_id` is the version that was
    last shown and read.
    """

    __tablename__ = "memberships"
    __table_args__ = (
        CheckConstraint("status IN ('active','screened_out','left','excluded')", name="status_known"),
        Index("ix_memberships_campaign_id", "campaign_id"),
    )

    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"), primary_key=True)
    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    instructions_id: Mapped[int | None] = mapped_column(ForeignKey("instructions.id"))
    consent_sha256: Mapped[str | None]
    consented_at: Mapped[datetime | None]
    passed_at: Mapped[datetime | None]  # the test
    screened_at: Mapped[datetime | None]  # agreed enough with the expert key
    reason: Mapped[str | None]  # why the status is what it is
    created_at: Mapped[Now]
    changed_at: Mapped[Now]


class Question(Base):
    """One question of a campaign's test; `answer` is the index of the right option. Retired ones stay for their attempts."""

    __tablename__ = "questions"
    __table_args__ = (
        CheckConstraint("jsonb_array_length(options) BETWEEN 2 AND 10", name="options_number"),
        CheckConstraint("answer >= 0 AND answer < jsonb_array_length(options)", name="answer_is_an_option"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(Integer)
    markdown: Mapped[str]
    options: Mapped[list[Any]] = mapped_column(JSONB)
    answer: Mapped[int] = mapped_column(Integer)
    explanation: Mapped[str] = mapped_column(server_default=text("''"))  # shown after the attempt
    created_at: Mapped[Now]
    retired_at: Mapped[datetime | None]


class TestAttempt(Base):
    """One try at a campaign's test: question id -> chosen option."""

    __test__ = False  # not for pytest to collect
    __tablename__ = "test_attempts"
    __table_args__ = (
        CheckConstraint("correct_count BETWEEN 0 AND question_count", name="counts_fit"),
        UniqueConstraint("person_id", "idempotency_key"),
        Index("ix_test_attempts_person_id_campaign_id", "person_id", "campaign_id"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    answers: Mapped[Json]
    correct_count: Mapped[int] = mapped_column(Integer)
    question_count: Mapped[int] = mapped_column(Integer)
    passed: Mapped[bool]
    idempotency_key: Mapped[str]
    created_at: Mapped[Now]


class CheckResult(Base):
    """What a person answered to a gold item or an attention check. Evidence for admins; it rejects nobody by itself."""

    __tablename__ = "check_results"
    __table_args__ = (
        CheckConstraint("kind IN ('gold','attention')", name="kind_known"),
        UniqueConstraint("turn_id", "person_id"),
        Index("ix_check_results_campaign_id_person_id", "campaign_id", "person_id"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    kind: Mapped[str]
    passed: Mapped[bool]
    expected: Mapped[Json]
    answered: Mapped[Json]
    created_at: Mapped[Now]
