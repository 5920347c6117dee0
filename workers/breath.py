"""A worker's heartbeat on the step it holds, from a thread of its own, so that no long copy or query looks like death."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import OperationalError

from server.db import session_factory
from server.services.rounds import rounds, runs

log = logging.getLogger("whetstone.rounds")

EVERY_SECONDS = 1.0


class LostStep(Exception):
    """The step was cancelled or given to another worker: whatever is not committed must be dropped."""


class Breath:
    """While it is entered, the step's heartbeat is renewed each second with the newest progress.

    `lost` is set once the step is no longer ours. While Postgres is away it goes on trying: the work is not lost by that.
    """

    def __init__(self, database_url: str, held: rounds.Claim) -> None:
        self.held = held
        self.lost = threading.Event()
        self._sessions = session_factory(database_url)
        self._stop = threading.Event()
        self._progress: tuple[dict[str, Any], int | None, dict[str, Any]] | None = None
        self._thread = threading.Thread(target=self._breathe, name="breath", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def say(self, step: dict[str, Any], run_id: int | None = None, run: dict[str, Any] | None = None) -> None:
        """Set what the next beat tells: the step's few numbers, and the run's metrics with their curves."""
        self._progress = (step, run_id, run or {})

    def check(self) -> None:
        """Raise LostStep once the step is no longer ours."""
        if self.lost.is_set():
            raise LostStep(f"step {self.held.name} of round {self.held.round_id}")

    def _breathe(self) -> None:
        told: object = None
        while not self._stop.wait(EVERY_SECONDS):
            progress = self._progress
            news = progress if progress is not told else None
            try:
                with self._sessions.begin() as db:
                    if not rounds.beat(db, self.held, news[0] if news else None):
                        self.lost.set()
                        return
                    if news and news[1] is not None:
                        runs.record_progress(db, news[1], news[2])
            except OperationalError as away:
                log.warning("Postgres did not take the heartbeat of %s: %s", self.held.name, away)
                continue
            told = progress
