"""Imports and exports: work that outlasts a request, followed by its row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Json, Key, Now


class Job(Base):
    """An import or export. `result` is its manifest: counts, file name, SHA-256."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("kind IN ('import','export')", name="kind_known"),
        CheckConstraint("status IN ('queued','running','done','failed')", name="status_known"),
    )

    id: Mapped[Key]
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=text("'queued'"))
    settings: Mapped[Json]
    progress: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))  # done, of
    result: Mapped[Json | None]
    failure: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    claimed_by: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Now]
    finished_at: Mapped[datetime | None]
