"""Doing a job from a command: start its worker, follow its row with a bar, say how it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.orm import Session, sessionmaker

from server.db import session_factory
from server.models import Job
from server.settings import Settings

EVERY_SECONDS = 0.2
STANDARD_ERROR = 2  # the descriptor: standard output is for the result alone
CLONE = Path(__file__).resolve().parents[2]


def perform(settings: Settings, job_id: int, *, quiet: bool) -> Job:
    """Do the job in a process of its own and return its finished row; click.ClickException says why it failed.

    A training worker that runs already may claim the job first; then its work is followed.
    """
    sessions = session_factory(str(settings.database_url))
    environment = {**os.environ, **settings.environment()}
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.jobs", str(job_id)], env=environment, cwd=CLONE, stdout=STANDARD_ERROR
    )
    try:
        job = _follow(sessions, job_id, worker, quiet=quiet)
    finally:
        if worker.poll() is None:
            worker.terminate()
            worker.wait()
    if job.status != "done":
        raise click.ClickException(
            job.failure or f"The worker of job {job_id} ended with code {worker.returncode}; the job was not finished."
        )
    return job


def _follow(sessions: sessionmaker[Session], job_id: int, worker: subprocess.Popen[bytes], *, quiet: bool) -> Job:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        shown = bar.add_task("reading", total=None)
        while True:
            ended = worker.poll() is not None  # looked at before the row, or its last words could be missed
            with sessions() as db:
                job = db.get_one(Job, job_id)
            state = job.progress
            if state.get("of"):
                bar.update(
                    shown, description=f"{job.kind}: {state['unit']}", completed=state["done"], total=state["of"]
                )
            if job.status in ("done", "failed"):
                worker.wait()
                return job
            # our worker went without finishing: unless another one has the job, nobody will
            if ended and (job.status == "queued" or worker.returncode != 0):
                return job
            time.sleep(EVERY_SECONDS)
