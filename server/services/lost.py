"""Finding work whose message was lost or whose worker died, from the rows alone.

How often a row is asked for again slows down with its age, from 5 seconds to a minute: while a worker is away, its queue
must not fill with copies of the same message.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from server.models import Candidate, Job, Turn
from server.services.jobs import HEARTBEAT_STALE
from server.transaction import ask_for

FIRST, LONGEST = timedelta(seconds=5), timedelta(seconds=60)
# A reply worker renews each 5 seconds; one that missed four times is taken for dead.
REPLY_STALE = timedelta(seconds=20)
JOB_ATTEMPTS = 5  # a file that no memory can hold would else end its worker each minute for ever


def _due(asked: Any, made: Any) -> ColumnElement[bool]:
    last = func.coalesce(asked, made)
    return last < func.now() - func.least(LONGEST, func.greatest(FIRST, last - made))


def ask_for_replies(db: Session) -> list[int]:
    """Queue again the candidates nobody is sampling any more and ask for all that wait too long; returns their turns."""
    db.execute(
        update(Candidate)
        .where(Candidate.status == "sampling", Candidate.heartbeat_at < func.now() - REPLY_STALE)
        .values(status="queued", claimed_by=None, heartbeat_at=None)
        .execution_options(synchronize_session=False)
    )
    waiting = (
        select(Candidate.id)
        .join(Turn, Turn.id == Candidate.turn_id)
        .where(
            Candidate.status == "queued", Turn.status == "sampling", _due(Candidate.heartbeat_at, Candidate.created_at)
        )
        .with_for_update(skip_locked=True, of=Candidate)
    )
    turns = sorted(set(db.scalars(
        update(Candidate)
        .where(Candidate.id.in_(waiting))
        .values(heartbeat_at=func.now())
        .returning(Candidate.turn_id)
        .execution_options(synchronize_session=False)
    )))  # fmt: skip
    for turn_id in turns:
        ask_for(db, "reply", turn_id=turn_id)
    return turns


def ask_for_jobs(db: Session) -> list[int]:
    """The same for imports and exports; one at which its worker died too often is failed."""
    silent = (Job.status == "running", Job.heartbeat_at < func.now() - HEARTBEAT_STALE)
    reason = (
        f"Given up: its worker ended {JOB_ATTEMPTS} times in the middle of it. The log of the training worker says why."
    )
    db.execute(
        update(Job)
        .where(*silent, Job.attempts >= JOB_ATTEMPTS)
        .values(status="failed", failure=reason, finished_at=func.now())
        .execution_options(synchronize_session=False)
    )
    db.execute(
        update(Job).where(*silent).values(status="queued", claimed_by=None).execution_options(synchronize_session=False)
    )
    waiting = (
        select(Job.id)
        .where(Job.status == "queued", _due(Job.heartbeat_at, Job.created_at))
        .with_for_update(skip_locked=True)
    )
    asked = sorted(db.scalars(
        update(Job)
        .where(Job.id.in_(waiting))
        .values(heartbeat_at=func.now())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ))  # fmt: skip
    for job_id in asked:
        ask_for(db, "run_job", job_id=job_id)
    return asked
