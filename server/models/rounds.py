"""Rounds, their steps, and the schedule that starts them. The row is the truth, a Celery message only a nudge."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.db import Base, Json, Key, Now

STEPS = ("freeze", "pm", "pm_checks", "policy", "policy_checks", "register", "deploy")


class Round(Base):
    """freeze -> pm -> pm checks -> policy -> policy checks -> register -> deploy, all from the initial policy.

    `held` waits for a person: a gate's threshold was not met. `failed` can be retried from the step that failed.
    """

    __tablename__ = "rounds"
    __table_args__ = (
        CheckConstraint("status IN ('queued','running','held','failed','done','cancelled')", name="status_known"),
        CheckConstraint("trigger IN ('person','schedule','command')", name="trigger_known"),
        # One round at a time: two would train on the same data and race to deploy.
        Index(
            "uq_rounds_active",
            text("(true)"),
            unique=True,
            postgresql_where=text("status IN ('queued','running','held')"),
        ),
    )

    id: Mapped[Key]
    number: Mapped[int] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(server_default=text("'queued'"))
    trigger: Mapped[str]
    started_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    settings: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))  # overrides of job configs, gates
    initial_snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"))
    dataset_version_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_versions.id"))
    pm_snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    policy_snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    created_at: Mapped[Now]
    finished_at: Mapped[datetime | None]

    steps: Mapped[list[RoundStep]] = relationship(back_populates="round", order_by="RoundStep.position")


class RoundStep(Base):
    """One step of a round. A worker claims it with a conditional UPDATE and renews `heartbeat_at` while it works."""

    __tablename__ = "round_steps"
    __table_args__ = (
        CheckConstraint(
            "name IN ('freeze','pm','pm_checks','policy','policy_checks','register','deploy')", name="name_known"
        ),
        CheckConstraint("status IN ('waiting','queued','running','held','failed','done')", name="status_known"),
        UniqueConstraint("round_id", "position"),
        UniqueConstraint("round_id", "name"),
    )

    id: Mapped[Key]
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    claimed_by: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    progress: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    gates: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))  # name -> value, threshold, passed
    failure: Mapped[str | None]
    released_by_id: Mapped[int | None] = mapped_column(
        ForeignKey("people.id", ondelete="SET NULL")
    )  # who let a hold pass
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    round: Mapped[Round] = relationship(back_populates="steps")


class Schedule(Base):
    """When a round starts by itself. Beat looks at it every minute."""

    __tablename__ = "schedules"
    __table_args__ = (CheckConstraint("minimum_new_comparisons >= 0", name="minimum_not_negative"),)

    id: Mapped[Key]
    cron: Mapped[str]  # five fields
    time_zone: Mapped[str]
    minimum_new_comparisons: Mapped[int]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    next_at: Mapped[datetime | None]
    last_outcome: Mapped[str | None]  # what happened when it was last due
    updated_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    updated_at: Mapped[Now]
