"""Paid time: the sessions of work measured by the server's clock, what is owed for them, appeals, and payrolls."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Double, ForeignKey, Index, Numeric, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Key, Now


class WorkSession(Base):
    """A stretch of one person's work in one campaign. `active_seconds` grows with each sign of work, by the server's clock.

    It is paid however it ended: `finished`, `returned` to the panel, `timed_out`, or broken off (`idle`).
    """

    __tablename__ = "work_sessions"
    __table_args__ = (
        CheckConstraint("ended_as IN ('finished','returned','timed_out','idle')", name="ended_as_known"),
        CheckConstraint("active_seconds >= 0", name="active_seconds_not_negative"),
        Index(
            "uq_work_sessions_open",
            "person_id",
            "campaign_id",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_work_sessions_campaign_id", "campaign_id"),
        Index("ix_work_sessions_person_id_started_at", "person_id", "started_at"),
    )

    id: Mapped[Key]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    submission_id: Mapped[int | None] = mapped_column(ForeignKey("panel_submissions.id"))
    started_at: Mapped[Now]
    seen_at: Mapped[Now]
    active_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))
    answers: Mapped[int] = mapped_column(server_default=text("0"))
    ended_at: Mapped[datetime | None]
    ended_as: Mapped[str | None]


class Payroll(Base):
    """What was handed over for payment in one go: the approved entries of a period in one currency, paid by being in it."""

    __tablename__ = "payrolls"
    __table_args__ = (
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_shape"),
        CheckConstraint("entries > 0", name="entries_positive"),
        UniqueConstraint("created_by_id", "idempotency_key"),
    )

    id: Mapped[Key]
    currency: Mapped[str]
    since: Mapped[datetime | None]
    until: Mapped[datetime | None]  # the first moment that is not in it
    entries: Mapped[int]
    total: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    idempotency_key: Mapped[str | None]
    created_at: Mapped[Now]


class LedgerEntry(Base):
    """Money owed to a person: for the time of a session, a bonus with its reason, or a correction. Never changed but in status.

    A `rejected` entry has its reason and may be appealed; `paid` ones are in a payroll.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        CheckConstraint("kind IN ('time','bonus','correction')", name="kind_known"),
        CheckConstraint("status IN ('pending','approved','rejected','paid')", name="status_known"),
        CheckConstraint("kind = 'time' OR reason IS NOT NULL", name="reason_given"),
        CheckConstraint("status <> 'rejected' OR status_reason IS NOT NULL", name="rejection_has_reason"),
        CheckConstraint("(status = 'paid') = (payroll_id IS NOT NULL)", name="paid_in_a_payroll"),
        UniqueConstraint("work_session_id", "kind"),
        UniqueConstraint("created_by_id", "idempotency_key"),
        Index("ix_ledger_entries_person_id", "person_id"),
        Index("ix_ledger_entries_status", "status"),
        Index("ix_ledger_entries_payroll_id", "payroll_id"),
    )

    id: Mapped[Key]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    work_session_id: Mapped[int | None] = mapped_column(ForeignKey("work_sessions.id"))
    kind: Mapped[str]
    minutes: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    rate_per_hour: Mapped[Decimal | None] = mapped_column(Numeric(8, 2))
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str]
    reason: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    status_reason: Mapped[str | None]
    status_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    status_at: Mapped[datetime | None]
    payroll_id: Mapped[int | None] = mapped_column(ForeignKey("payrolls.id"))
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    idempotency_key: Mapped[str | None]
    created_at: Mapped[Now]


class Appeal(Base):
    """A person's objection to a rejected entry, and what came of it."""

    __tablename__ = "appeals"
    __table_args__ = (
        CheckConstraint("outcome IN ('upheld','granted')", name="outcome_known"),
        CheckConstraint("(outcome IS NULL) = (answered_at IS NULL)", name="outcome_with_answer"),
        CheckConstraint("char_length(text) BETWEEN 1 AND 10000", name="text_length"),
    )

    id: Mapped[Key]
    ledger_entry_id: Mapped[int] = mapped_column(ForeignKey("ledger_entries.id"), unique=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    text: Mapped[str]
    outcome: Mapped[str | None]
    answer: Mapped[str | None]
    answered_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    answered_at: Mapped[datetime | None]
    created_at: Mapped[Now]
