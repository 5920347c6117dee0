"""Claims, heartbeats, and a worker killed in mid-import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from server.db import session_factory
from server.models import Comparison, Conversation, Job
from server.services import jobs
from server.services.campaigns import campaigns
from server.settings import OperatorError, Settings
from tests.workers.lines import hh_lines, write
from workers import context
from workers.jobs import perform

LINES = 24_000  # some seconds of work, so that the kill falls into the middle


def test_a_job_is_claimed_once_and_again_only_when_its_worker_is_silent(committed: str, tmp_path: Path) -> None:
    sessions = session_factory(committed)
    with sessions.begin() as db:
        campaigns.create_campaign(db, slug="in", name="In", mode="helpful", instructions="Compare.")
        job = jobs.request_import(db, None, write(tmp_path / "a.jsonl", hh_lines()), "in", send=False)
    with sessions.begin() as db:
        assert jobs.claim(db, job.id, "first") is not None
        assert jobs.claim(db, job.id, "second") is None
        db.execute(update(Job).values(heartbeat_at=datetime.now(UTC) - jobs.HEARTBEAT_STALE - timedelta(seconds=1)))
        assert jobs.claim(db, job.id, "second") is not None
        assert not jobs.heartbeat(db, job.id, "first", 1, 2, "lines")
        assert not jobs.finish(db, job.id, "first", {})
        assert jobs.finish(db, job.id, "second", {"comparisons": 0})
        assert jobs.claim(db, job.id, "third") is None


@pytest.mark.slow
def test_kill_in_mid_import_leaves_nothing_and_the_next_worker_imports_all(
    committed: str, settings: Settings, tmp_path: Path
) -> None:
    sessions = session_factory(committed)
    sample = hh_lines()
    path = write(tmp_path / "many.jsonl", [sample[i % len(sample)] for i in range(LINES)])
    with sessions.begin() as db:
        campaigns.create_campaign(db, slug="in", name="In", mode="helpful", instructions="Compare.")
        job = jobs.request_import(db, None, path, "in", send=False)
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.jobs", str(job.id)], env={**os.environ, **settings.environment()}
    )
    deadline = time.monotonic() + 60
    while True:
        assert worker.poll() is None and time.monotonic() < deadline, "the import was over before it could be killed"
        with sessions() as db:
            progress = db.get_one(Job, job.id).progress
        if progress.get("of") and 0 < progress["done"] < LINES:
            break
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()

    with sessions.begin() as db:
        assert db.scalar(select(func.count()).select_from(Conversation)) == 0
        assert db.get_one(Job, job.id).status == "running"
    perform(job.id, settings)  # too early: the dead worker's heartbeat still counts
    with sessions.begin() as db:
        assert db.scalar(select(func.count()).select_from(Comparison)) == 0
        db.execute(update(Job).values(heartbeat_at=datetime.now(UTC) - jobs.HEARTBEAT_STALE * 2))
    perform(job.id, settings)
    with sessions() as db:
        done = db.get_one(Job, job.id)
        assert (done.status, done.attempts, done.failure) == ("done", 2, None)
        assert db.scalar(select(func.count()).select_from(Comparison)) == LINES


def test_a_job_without_a_database_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WHETSTONE_HOME", str(tmp_path))
    context.connected_settings.cache_clear()
    with pytest.raises(OperatorError, match="A worker needs DATABASE_URL"):
        perform(1)
