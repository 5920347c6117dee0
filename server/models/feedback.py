"""Comparisons, what was taken back, and what protects a person's work in progress: leases and drafts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Integer, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Json, Key, Now


class Comparison(Base):
    """One person's choice between two candidates of a turn: one of them, neither (a `tie`), or `both_bad`.

    What the person did is `scale_position` (1 .. 2 x grades, left to right) and from it `picked_id` and `strength`
    (1 weakest). What it teaches is `chosen_id` over `rejected_id`: in red-team campaigns the picked reply is the more
    harmful one, so there `rejected_id` is the picked one. Both candidates are of `turn_id`: the database checks it.
    A tie and "both are bad" pick, choose and reject nothing, so that no join can take them for a preference.
    `purpose` is the campaign's, or `evaluation` for a person of the held-out pool. `milliseconds_to_decide` counts only
    while the page was in sight and somebody was active; `signals` is evidence (pasted, too fast, ...), never a verdict.
    The provenance of each side (snapshot, seed, settings, position shown) stands in its candidate row, which never
    changes once it is compared.
    """

    __tablename__ = "comparisons"
    __table_args__ = (
        CheckConstraint("chosen_id <> rejected_id", name="two_candidates"),
        CheckConstraint("picked_id IN (chosen_id, rejected_id)", name="picked_is_one_of_both"),
        CheckConstraint("verdict IN ('picked','tie','both_bad')", name="verdict_known"),
        CheckConstraint(
            "(verdict = 'picked') = (picked_id IS NOT NULL AND chosen_id IS NOT NULL AND rejected_id IS NOT NULL)"
            " AND (verdict = 'picked' OR (picked_id IS NULL AND chosen_id IS NULL AND rejected_id IS NULL"
            " AND strength IS NULL AND scale_position IS NULL))",
            name="verdict_fits",
        ),
        CheckConstraint("purpose IN ('training','evaluation')", name="purpose_known"),
        CheckConstraint("strength IS NULL OR strength BETWEEN 1 AND 4", name="strength_range"),
        CheckConstraint("scale_position IS NULL OR scale_position BETWEEN 1 AND 8", name="scale_position_range"),
        CheckConstraint("mode IN ('helpful','red_team')", name="mode_known"),
        CheckConstraint("milliseconds_to_decide IS NULL OR milliseconds_to_decide >= 0", name="time_not_negative"),
        # Only imports may lack a person; everything judged here has its provenance.
        CheckConstraint(
            "import_id IS NOT NULL OR (person_id IS NOT NULL AND instructions_id IS NOT NULL"
            " AND milliseconds_to_decide IS NOT NULL"
            " AND (verdict <> 'picked' OR (strength IS NOT NULL AND scale_position IS NOT NULL)))",
            name="compared_here_is_complete",
        ),
        ForeignKeyConstraint(["chosen_id", "turn_id"], ["candidates.id", "candidates.turn_id"]),
        ForeignKeyConstraint(["rejected_id", "turn_id"], ["candidates.id", "candidates.turn_id"]),
        ForeignKeyConstraint(["instructions_id", "campaign_id"], ["instructions.id", "instructions.campaign_id"]),
        UniqueConstraint("turn_id", "person_id"),
        UniqueConstraint("person_id", "idempotency_key"),
        Index("ix_comparisons_campaign_id_created_at", "campaign_id", "created_at"),
        Index("ix_comparisons_created_at", "created_at"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id"))
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    mode: Mapped[str]
    purpose: Mapped[str] = mapped_column(server_default=sql("'training'"))
    verdict: Mapped[str] = mapped_column(server_default=sql("'picked'"))
    picked_id: Mapped[int | None] = mapped_column(ForeignKey("candidates.id"))
    chosen_id: Mapped[int | None]
    rejected_id: Mapped[int | None]
    scale_position: Mapped[int | None] = mapped_column(Integer)
    # The two were shown the other way round than their candidates' positions say: each person of an item gets a side drawn.
    mirrored: Mapped[bool] = mapped_column(server_default=sql("false"))
    strength: Mapped[int | None] = mapped_column(Integer)
    justification: Mapped[str | None]
    milliseconds_to_decide: Mapped[int | None]
    signals: Mapped[Json] = mapped_column(server_default=sql("'{}'::jsonb"))
    instructions_id: Mapped[int | None]
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))  # the round whose deployment served the turn
    import_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    # The imported line, kept only when our rendering of the record would differ from it by a byte.
    source_line: Mapped[str | None]
    details: Mapped[Json] = mapped_column(server_default=sql("'{}'::jsonb"))  # imported keys that have no column
    idempotency_key: Mapped[str | None]
    created_at: Mapped[Now]


class Undone(Base):
    """An answer that its person took back within the campaign's window: the whole row as it stood."""

    __tablename__ = "undone"
    __table_args__ = (Index("ix_undone_person_id", "person_id"),)

    id: Mapped[Key]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    turn_id: Mapped[int | None] = mapped_column(ForeignKey("turns.id"))
    kind: Mapped[str]  # comparison, ranking, demonstration, prompt
    answer: Mapped[Json]
    undone_at: Mapped[Now]


class Lease(Base):
    """What a person is working on, until when. An expired or released lease holds nothing.

    With `turn_id` it is a second opinion on somebody else's turn and counts towards that turn's overlap; without, it is
    the person's own conversation.
    """

    __tablename__ = "leases"
    __table_args__ = (
        UniqueConstraint("person_id", "conversation_id", "turn_id", postgresql_nulls_not_distinct=True),
        Index("ix_leases_turn_id", "turn_id", postgresql_where=sql("released_at IS NULL")),
    )

    id: Mapped[Key]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    turn_id: Mapped[int | None] = mapped_column(ForeignKey("turns.id", ondelete="CASCADE"))
    created_at: Mapped[Now]
    expires_at: Mapped[datetime]
    mirrored: Mapped[bool] = mapped_column(server_default=sql("false"))  # show the candidates in the other order
    released_at: Mapped[datetime | None]


class Draft(Base):
    """What a person has typed and not yet sent, for one box of one page (`place`)."""

    __tablename__ = "drafts"
    __table_args__ = (CheckConstraint("char_length(text) <= 200000", name="text_length"),)

    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[str] = mapped_column(primary_key=True)  # "message:<campaign id>", "justification:<turn id>", ...
    text: Mapped[str]
    updated_at: Mapped[Now]
