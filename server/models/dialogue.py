"""Conversations, their turns, and the candidates that answered each turn."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.db import Base, Json, Key, Now


class Conversation(Base):
    """A chat of one person in one campaign; or one that was imported, an item of a queue, or an opening kept in store.

    An `item` has one turn that several people may answer; it is nobody's. A `prepared` one is an opening prompt whose
    replies were sampled ahead of need: it becomes a `chat` when a person takes that prompt.
    """

    __tablename__ = "conversations"
    __table_args__ = (
        CheckConstraint("source IN ('chat','import','item','prepared')", name="source_known"),
        CheckConstraint("status IN ('open','finished','abandoned')", name="status_known"),
        CheckConstraint("source <> 'chat' OR person_id IS NOT NULL", name="chat_has_person"),
        CheckConstraint("success BETWEEN 1 AND 5", name="success_range"),
        # A person has one chat at a time in a campaign: opening a second tab finds the first.
        Index(
            "uq_conversations_open",
            "person_id",
            "campaign_id",
            unique=True,
            postgresql_where=sql("status = 'open' AND source = 'chat'"),
        ),
        Index("ix_conversations_campaign_id_id", "campaign_id", "id"),
        Index("ix_conversations_prepared", "campaign_id", "prompt_id", postgresql_where=sql("source = 'prepared'")),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    prompt_id: Mapped[int | None] = mapped_column(ForeignKey("prompts.id", ondelete="SET NULL"))
    import_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    source: Mapped[str] = mapped_column(server_default=sql("'chat'"))
    status: Mapped[str] = mapped_column(server_default=sql("'open'"))
    success: Mapped[int | None] = mapped_column(Integer)  # red team: how far the person got, 1 not at all .. 5
    started_at: Mapped[Now]
    finished_at: Mapped[datetime | None]

    turns: Mapped[list[Turn]] = relationship(back_populates="conversation", order_by="Turn.position")


class Turn(Base):
    """One human message and what answered it.

    `status` goes sampling -> ready -> compared; `failed` when no reply could be made, from where a retry leads back
    to sampling. `idempotency_key` makes a message that is sent twice one turn. While `queue_id` is set, the turn wants
    answers of more people in that campaign; where `kept_for` names people by their numbers, of these alone.
    A check has the `expected` answer of an expert: what it says is evidence for admins, and no more.
    """

    __tablename__ = "turns"
    __table_args__ = (
        CheckConstraint("status IN ('sampling','ready','compared','failed')", name="status_known"),
        CheckConstraint("char_length(message) > 0", name="message_not_empty"),
        UniqueConstraint("conversation_id", "position"),
        UniqueConstraint("conversation_id", "idempotency_key"),
        CheckConstraint("check_kind IN ('gold','attention')", name="check_kind_known"),
        CheckConstraint("cardinality(kept_for) > 0", name="kept_for_somebody"),
        CheckConstraint("(check_kind IS NULL) = (expected IS NULL)", name="check_has_expected"),
        Index("ix_turns_sampling", "id", postgresql_where=sql("status = 'sampling'")),
        Index("ix_turns_queue", "queue_id", "id", postgresql_where=sql("queue_id IS NOT NULL")),
    )

    id: Mapped[Key]
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)  # 1, 2, 3 ...
    message: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=sql("'sampling'"))
    # The candidate that carries the chat on; set when the turn's first comparison is stored.
    continued_by_id: Mapped[int | None] = mapped_column(
        ForeignKey("candidates.id", use_alter=True, name="fk_turns_continued_by_id_candidates")
    )
    idempotency_key: Mapped[str]
    failure: Mapped[str | None]
    queue_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    check_kind: Mapped[str | None]
    expected: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    kept_for: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    created_at: Mapped[Now]
    ready_at: Mapped[datetime | None]

    conversation: Mapped[Conversation] = relationship(back_populates="turns")
    candidates: Mapped[list[Candidate]] = relationship(
        back_populates="turn", order_by="Candidate.position", foreign_keys="Candidate.turn_id"
    )


class Candidate(Base):
    """One sampled reply with all that is needed to sample it again.

    `position` is where it was shown (0 is left or first); it is drawn at random when the turn is made. `log_probability`
    is the sum over its tokens in nats, at the sampling temperature; absent for the best of k replies, whose choice is told by
    `sampling["best_of"]`. `snapshot_id` is absent for imported text and for a
    reply that a person wrote, which names its demonstration.
    """

    __tablename__ = "candidates"
    __table_args__ = (
        CheckConstraint("status IN ('queued','sampling','done','failed')", name="status_known"),
        CheckConstraint("status <> 'done' OR text IS NOT NULL", name="done_has_text"),
        CheckConstraint("position >= 0", name="position_not_negative"),
        UniqueConstraint("turn_id", "position", deferrable=True, initially="DEFERRED"),
        UniqueConstraint("id", "turn_id"),
        Index("ix_candidates_waiting", "id", postgresql_where=sql("status IN ('queued','sampling')")),
        Index("ix_candidates_snapshot_id", "snapshot_id"),
    )

    id: Mapped[Key]
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    demonstration_id: Mapped[int | None] = mapped_column(
        ForeignKey("demonstrations.id", use_alter=True, name="fk_candidates_demonstration_id_demonstrations")
    )
    status: Mapped[str] = mapped_column(server_default=sql("'queued'"))
    text: Mapped[str | None]
    seed: Mapped[int | None]
    sampling: Mapped[Json] = mapped_column(server_default=sql("'{}'::jsonb"))  # temperature, top_p, max_new_tokens
    log_probability: Mapped[float | None] = mapped_column(Double)
    token_count: Mapped[int | None] = mapped_column(Integer)
    finish_reason: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default=sql("0"))
    claimed_by: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]
    failure: Mapped[str | None]
    created_at: Mapped[Now]
    finished_at: Mapped[datetime | None]

    turn: Mapped[Turn] = relationship(back_populates="candidates", foreign_keys=[turn_id])
