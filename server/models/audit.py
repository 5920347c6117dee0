"""Who did what to which object, for everything an admin or researcher changes."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Json, Key, Now


class AuditEntry(Base):
    """One action. `person_id` is absent when the command line or the schedule acted."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_created_at", "created_at"),)

    id: Mapped[Key]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    action: Mapped[str]  # "campaign.update", "snapshot.deploy", ...
    object_type: Mapped[str]
    object_id: Mapped[int | None]
    details: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[Now]
