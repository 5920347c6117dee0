"""What people say about their work instead of, or beside, an answer: skips and reports; and notices to a person."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Key, Now


class Skip(Base):
    """A turn that a person did not want to answer, and why. It does not come to them again."""

    __tablename__ = "skips"
    __table_args__ = (
        Index("uq_skips_turn_id_person_id", "turn_id", "person_id", unique=True),
        Index("ix_skips_person_id", "person_id"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    reason: Mapped[str]  # a key of a closed list
    note: Mapped[str | None]
    created_at: Mapped[Now]


class Report(Base):
    """Something that is wrong with a turn or one of its candidates, for an admin to look at."""

    __tablename__ = "reports"
    __table_args__ = (
        ForeignKeyConstraint(["candidate_id", "turn_id"], ["candidates.id", "candidates.turn_id"]),
        Index("ix_reports_person_id", "person_id"),
        Index("ix_reports_open", "id", postgresql_where=sql("closed_at IS NULL")),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"))
    candidate_id: Mapped[int | None]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    reason: Mapped[str]  # a key of a closed list
    note: Mapped[str | None]
    created_at: Mapped[Now]
    closed_at: Mapped[datetime | None]
    closed_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))


class Notice(Base):
    """A word from those who run a campaign to one person."""

    __tablename__ = "notices"
    __table_args__ = (
        CheckConstraint("char_length(text) BETWEEN 1 AND 10000", name="text_length"),
        UniqueConstraint("person_id", "idempotency_key"),
    )

    id: Mapped[Key]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    sender_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    text: Mapped[str]
    idempotency_key: Mapped[str | None]
    created_at: Mapped[Now]
    read_at: Mapped[datetime | None]
