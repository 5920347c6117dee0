"""What people write themselves: demonstrations, and edits of a reply."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Json, Key, Now


class Demonstration(Base):
    """A reply that a person wrote to a turn's message."""

    __tablename__ = "demonstrations"
    __table_args__ = (
        CheckConstraint("char_length(text) > 0", name="text_not_empty"),
        CheckConstraint("purpose IN ('training','evaluation')", name="purpose_known"),
        CheckConstraint("milliseconds >= 0", name="time_not_negative"),
        ForeignKeyConstraint(["instructions_id", "campaign_id"], ["instructions.id", "instructions.campaign_id"]),
        UniqueConstraint("turn_id", "person_id"),
        UniqueConstraint("person_id", "idempotency_key"),
        Index("ix_demonstrations_campaign_id_created_at", "campaign_id", "created_at"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    purpose: Mapped[str] = mapped_column(server_default=sql("'training'"))
    text: Mapped[str]
    milliseconds: Mapped[int]  # of active writing
    signals: Mapped[Json] = mapped_column(server_default=sql("'{}'::jsonb"))
    instructions_id: Mapped[int]
    idempotency_key: Mapped[str]
    created_at: Mapped[Now]


class Edit(Base):
    """A person's improvement of a candidate: what is learned is the edited text over the original."""

    __tablename__ = "edits"
    __table_args__ = (
        CheckConstraint("char_length(text) > 0", name="text_not_empty"),
        CheckConstraint("purpose IN ('training','evaluation')", name="purpose_known"),
        CheckConstraint("milliseconds >= 0", name="time_not_negative"),
        ForeignKeyConstraint(["original_id", "turn_id"], ["candidates.id", "candidates.turn_id"]),
        ForeignKeyConstraint(["instructions_id", "campaign_id"], ["instructions.id", "instructions.campaign_id"]),
        UniqueConstraint("turn_id", "person_id"),
        UniqueConstraint("person_id", "idempotency_key"),
        Index("ix_edits_campaign_id_created_at", "campaign_id", "created_at"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id"))
    original_id: Mapped[int]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    mode: Mapped[str]
    purpose: Mapped[str] = mapped_column(server_default=sql("'training'"))
    text: Mapped[str]
    milliseconds: Mapped[int]
    signals: Mapped[Json] = mapped_column(server_default=sql("'{}'::jsonb"))
    instructions_id: Mapped[int]
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    idempotency_key: Mapped[str]
    created_at: Mapped[Now]
