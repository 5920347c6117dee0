"""Training runs as rows: what a job was given, how far it is, what came out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from server.models import Round, RoundStep, Run
from server.services.rounds.rounds import Claim


def run_of_step(db: Session, held: Claim, job: str) -> Run:
    """The run of a claimed step: the one it had before it was interrupted, or a new one with a folder of its own."""
    step = db.get_one(RoundStep, held.step_id)
    if step.run_id is not None:
        run = db.get_one(Run, step.run_id)
    else:
        version = db.get_one(Round, held.round_id).dataset_version_id
        run = Run(job=job, folder="", config={}, dataset_version_id=version)
        db.add(run)
        db.flush()
        run.folder = f"runs/{run.id}-{job}"
        step.run_id = run.id
    run.status, run.failure, run.finished_at = "running", None, None
    run.started_at = run.started_at or func.now()
    db.flush()
    return run


def record_progress(db: Session, run_id: int, progress: dict[str, Any]) -> None:
    """Store the newest metrics of a running job; a cancelled run keeps what it had."""
    db.execute(update(Run).where(Run.id == run_id, Run.status == "running").values(progress=progress))


def finish_run(
    db: Session, run_id: int, config: dict[str, Any], result: dict[str, Any], progress: dict[str, Any]
) -> None:
    """The job wrote its result; `config` is what it ran with, defaults, seed and code version included."""
    values = {"status": "done", "config": config, "result": result, "progress": progress, "finished_at": func.now()}
    db.execute(update(Run).where(Run.id == run_id).values(values))


def fail_run(db: Session, run_id: int, reason: str) -> None:
    """The job ended without a result; a cancelled run stays cancelled."""
    values = {"status": "failed", "failure": reason, "finished_at": func.now()}
    db.execute(update(Run).where(Run.id == run_id, Run.status == "running").values(values))
