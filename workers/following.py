"""What a job says of itself while it works: its heartbeat and how far it is."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session, sessionmaker

from server.services import jobs

EVERY_SECONDS = 0.5


class LostClaim(Exception):
    """The job's row belongs to another worker now; whatever is not committed must be dropped."""


class Follower:
    """Renews a claimed job's heartbeat in transactions of its own, so that progress shows before the work commits."""

    def __init__(self, sessions: sessionmaker[Session], job_id: int, worker: str) -> None:
        self.sessions = sessions
        self.job_id = job_id
        self.worker = worker
        self._next = 0.0

    def __call__(self, done: int, of: int, unit: str = "lines", *, last: bool = False) -> None:
        """Say how far the job is, at most twice a second unless `last`; LostClaim when it is no longer ours."""
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + EVERY_SECONDS
        with self.sessions.begin() as db:
            if not jobs.heartbeat(db, self.job_id, self.worker, done, of, unit):
                raise LostClaim(f"job {self.job_id}")

    def finish(self, db: Session, result: dict[str, object]) -> None:
        """Mark the job done in the work's own transaction; LostClaim rolls both back."""
        if not jobs.finish(db, self.job_id, self.worker, result):
            raise LostClaim(f"job {self.job_id}")
