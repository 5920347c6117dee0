"""Writing down who did what, and reading it back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.models import AuditEntry, Person


def record(
    db: Session, person: Person | None, action: str, object_type: str, object_id: int | None, **details: Any
) -> AuditEntry:
    """Add one entry to the audit log; `person` is None when the command line or the schedule acts.

    `details` must be JSON: what changed, never a secret, a link or a whole text.
    """
    entry = AuditEntry(
        person_id=person.id if person else None,
        action=action,
        object_type=object_type,
        object_id=object_id,
        details=details,
    )
    db.add(entry)
    return entry


def history(db: Session, object_type: str, object_id: int | None = None, limit: int = 20) -> list[AuditEntry]:
    """The newest entries about one object, or about all objects of a type; newest first."""
    wanted = select(AuditEntry).where(AuditEntry.object_type == object_type)
    if object_id is not None:
        wanted = wanted.where(AuditEntry.object_id == object_id)
    return list(db.scalars(wanted.order_by(AuditEntry.id.desc()).limit(limit)))
