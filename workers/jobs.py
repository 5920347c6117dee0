"""Performing imports and exports: claim the row, work, record.  `python -m workers.jobs ID` does one job now.

A job is claimed with a conditional UPDATE and its heartbeat renewed about once a second. What was killed in mid-work is
claimed again after a minute and done from the beginning: an import is one transaction and an export appears by one rename,
so nothing of the first attempt shows.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from server.db import session_factory
from server.errors import WhetstoneError
from server.models import Job
from server.services import jobs
from server.settings import Settings
from training.lines.records import BadRecord
from workers import exports, imports
from workers.context import connected_settings, process_name
from workers.following import Follower, LostClaim

WORK: dict[str, Callable[[Settings, Job, Follower], None]] = {
    "import": imports.import_file,
    "export": exports.export_feedback,
}


def perform(job_id: int, settings: Settings | None = None) -> None:
    """Do a queued job once, however often its message arrives; nothing when another worker has it or it is over."""
    settings = settings or connected_settings()
    worker = f"{process_name()}/{secrets.token_hex(4)}"
    sessions = session_factory(str(settings.database_url))
    with sessions.begin() as db:
        job = jobs.claim(db, job_id, worker)
    if job is None:
        return
    follower = Follower(sessions, job.id, worker)
    try:
        WORK[job.kind](settings, job, follower)
    except LostClaim:
        return  # the row says who has it now; our transaction is rolled back
    except OperationalError:
        raise  # Postgres went away: the job is still ours in the row, and the sweep queues it again
    except (BadRecord, WhetstoneError, OSError) as error:
        with sessions.begin() as db:
            jobs.fail(db, job.id, worker, _sentence(error))
    except Exception as error:
        with sessions.begin() as db:
            jobs.fail(db, job.id, worker, f"Unexpected: {error!r}"[:2000])
        raise


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'A file'}: {error.strerror}."
    return str(error)


if __name__ == "__main__":
    perform(int(sys.argv[1]))
