"""Imports and exports as rows: asked for here, claimed and finished by a worker.

The row is the truth, a task message only a nudge. A worker claims with a conditional UPDATE, renews `heartbeat_at` and
finishes only while the row is still its own, so a job whose worker was killed is done once by the next.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound
from server.models import Job, Person
from server.models.campaigns import MODES
from server.services import audit
from server.services.campaigns.campaigns import find_campaign
from server.services.data.selection import Selection
from server.transaction import ask_for

HEARTBEAT_STALE = timedelta(seconds=60)  # a worker renews each second; a minute of silence is death
IMPORT_FORMATS = ("auto", "hh", "trl", "whetstone")
EXPORT_FORMATS = (
    "hh", "trl", "trl-explicit", "trl-conversational", "whetstone", "parquet", "rankings", "edits", "demonstrations",
)  # fmt: skip


def request_import(
    db: Session,
    person: Person | None,
    path: str | Path,
    campaign_slug: str,
    format: str = "auto",  # noqa: A002 - the word of the command line
    mode: str | None = None,
    *,
    again: bool = False,
    skip_bad: bool = False,
    send: bool = True,
) -> Job:
    """Queue the import of a file on this machine (or on a disk that the workers share) into a campaign.

    `mode` is for lines that do not say one; without it the campaign's. With `send` false no task goes out: the caller
    starts the work.
    """
    campaign = find_campaign(db, campaign_slug)
    if format not in IMPORT_FORMATS:
        raise BadInput(f"The format must be one of {', '.join(IMPORT_FORMATS)}, not {format!r}.", field="format")
    if mode is not None and mode not in MODES:
        raise BadInput(f"The mode must be helpful or red_team, not {mode!r}.", field="mode")
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise BadInput(f"There is no file {file}; give the path of a .jsonl or .jsonl.gz file.", field="path")
    settings = {
        "path": str(file),
        "campaign": campaign.slug,
        "format": format,
        "mode": mode,
        "again": again,
        "skip_bad": skip_bad,
    }
    return _queue(db, "import", settings, person, send=send)


def request_export(
    db: Session,
    person: Person | None,
    format: str = "hh",  # noqa: A002 - the word of the command line
    *,
    campaign: str | None = None,
    mode: str | None = None,
    round_number: int | None = None,
    since: date | None = None,
    until: date | None = None,
    source: str | None = None,
    purpose: str | None = "training",
    simulated: bool = False,
    compressed: bool = False,
    test_share: float = 0.0,
    send: bool = True,
) -> Job:
    """Queue an export of what fits all filters given.

    `test_share` above 0 writes two files, split by conversation. The simulated crowd is left out unless asked for, and so is
    what was given for evaluation only: files that are exported are trained on. `purpose` None lets both through.
    """
    if format not in EXPORT_FORMATS:
        raise BadInput(f"The format must be one of {', '.join(EXPORT_FORMATS)}, not {format!r}.", field="format")
    if format == "parquet" and compressed:
        raise BadInput("Parquet is compressed already; ask for it without .gz.", field="compressed")
    if not 0 <= test_share < 1:
        raise BadInput("The test share must be at least 0 and below 1, such as 0.05.", field="test_share")
    selection = Selection(
        campaign_id=find_campaign(db, campaign).id if campaign else None,
        mode=mode,
        round_number=round_number,
        since=since,
        until=until,
        source=source,
        purpose=purpose,
        people="everyone" if simulated else "real",
    )
    settings = {
        "format": format,
        "compressed": compressed,
        "test_share": test_share,
        "campaign": campaign or None,
        "selection": {key: _json(value) for key, value in asdict(selection).items()},
    }
    return _queue(db, "export", settings, person, send=send)


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _queue(db: Session, kind: str, settings: dict[str, Any], person: Person | None, *, send: bool) -> Job:
    job = Job(kind=kind, settings=settings, person_id=person.id if person else None)
    db.add(job)
    db.flush()
    audit.record(db, person, f"job.{kind}", "job", job.id, **{k: v for k, v in settings.items() if k != "path"})
    if send:
        ask_for(db, "run_job", job_id=job.id)
    return job


def find_job(db: Session, job_id: int) -> Job:
    """The job, or NotFound."""
    job = db.get(Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


def newest_jobs(db: Session, before: int | None = None, limit: int = 50) -> list[Job]:
    """Jobs with an id below `before`, newest first."""
    wanted = select(Job).order_by(Job.id.desc()).limit(limit)
    return list(db.scalars(wanted.where(Job.id < before) if before else wanted))


# -- for workers --------------------------------------------------------------------------------------------------------
def claim(db: Session, job_id: int, worker: str) -> Job | None:
    """Take the job if it waits or its worker is dead; None when somebody has it or it is over."""
    stale = Job.heartbeat_at < datetime.now(UTC) - HEARTBEAT_STALE
    return db.scalar(
        update(Job)
        .where(Job.id == job_id, or_(Job.status == "queued", (Job.status == "running") & stale))
        .values(status="running", claimed_by=worker, attempts=Job.attempts + 1, heartbeat_at=func.now(), failure=None)
        .returning(Job)
    )


def heartbeat(db: Session, job_id: int, worker: str, done: int, of: int, unit: str) -> bool:
    """Say that the worker lives and how far it is; False when the job is no longer its own."""
    return _own(db, job_id, worker, heartbeat_at=func.now(), progress={"done": done, "of": of, "unit": unit})


def finish(db: Session, job_id: int, worker: str, result: dict[str, Any]) -> bool:
    """Store the manifest; in the same transaction as the job's rows, so that both come or neither."""
    return _own(db, job_id, worker, status="done", result=result, finished_at=func.now())


def fail(db: Session, job_id: int, worker: str, reason: str, result: dict[str, Any] | None = None) -> bool:
    """Store why the job ended."""
    return _own(db, job_id, worker, status="failed", failure=reason, result=result, finished_at=func.now())


def _own(db: Session, job_id: int, worker: str, **values: Any) -> bool:
    changed = db.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == "running", Job.claimed_by == worker)
        .values(**values)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    return changed.scalar() is not None


def earlier_import(db: Session, campaign_slug: str, sha256: str) -> Job | None:
    """A finished import of the same bytes into the same campaign."""
    return db.scalar(
        select(Job)
        .where(
            Job.kind == "import",
            Job.status == "done",
            Job.settings["campaign"].astext == campaign_slug,
            Job.result["sha256"].astext == sha256,
        )
        .limit(1)
    )
