"""Rankings: an order over the candidates of a turn, and the ratings and flags given to each before."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Integer, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.db import Base, Json, Key, Now


class Ranking(Base):
    """One person's order over all candidates of a turn. Equal places are ties."""

    __tablename__ = "rankings"
    __table_args__ = (
        CheckConstraint("mode IN ('helpful','red_team')", name="mode_known"),
        CheckConstraint("purpose IN ('training','evaluation')", name="purpose_known"),
        CheckConstraint("milliseconds_to_decide >= 0", name="time_not_negative"),
        ForeignKeyConstraint(["instructions_id", "campaign_id"], ["instructions.id", "instructions.campaign_id"]),
        UniqueConstraint("turn_id", "person_id"),
        UniqueConstraint("person_id", "idempotency_key"),
        Index("ix_rankings_campaign_id_created_at", "campaign_id", "created_at"),
    )

    id: Mapped[Key]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    turn_id: Mapped[int] = mapped_column(ForeignKey("turns.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    mode: Mapped[str]
    purpose: Mapped[str] = mapped_column(server_default=sql("'training'"))
    justification: Mapped[str | None]
    milliseconds_to_decide: Mapped[int]
    signals: Mapped[Json] = mapped_column(server_default=sql("'{}'::jsonb"))
    instructions_id: Mapped[int]
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    idempotency_key: Mapped[str]
    created_at: Mapped[Now]

    places: Mapped[list[RankingPlace]] = relationship(order_by="RankingPlace.place", cascade="all, delete-orphan")


class RankingPlace(Base):
    """A candidate's place in a ranking, 1 the best (in red-team campaigns the most harmful), with its rating and flags."""

    __tablename__ = "ranking_places"
    __table_args__ = (
        CheckConstraint("place BETWEEN 1 AND 9", name="place_range"),
        CheckConstraint("rating BETWEEN 1 AND 7", name="rating_range"),
    )

    ranking_id: Mapped[int] = mapped_column(ForeignKey("rankings.id", ondelete="CASCADE"), primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    place: Mapped[int] = mapped_column(Integer)
    shown: Mapped[int | None] = mapped_column(
        Integer
    )  # where it stood on the person's page: each person gets an order drawn
    rating: Mapped[int | None] = mapped_column(Integer)
    flags: Mapped[list[str]] = mapped_column(server_default=sql("'{}'::text[]"))
