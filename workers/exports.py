"""Exporting feedback: one consistent view of the database, files in a folder that appears whole, and a manifest."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.db import engine_for, session_factory
from server.errors import BadInput
from server.models import Comparison, Job
from server.services.data.selection import Selection
from server.settings import Settings
from training.lines import splits
from training.runs.files import recover_directory, replace_directory, write_json
from training.runs.run_folder import code_version
from workers.export_formats import FORMATS, Format
from workers.following import Follower
from workers.parquet import ParquetFile


class Sink(Protocol):
    """A file that records are written to."""

    def add(self, record: Any) -> None:
        """Write one."""

    def close(self) -> None:
        """Write the rest."""


def export_feedback(settings: Settings, job: Job, follower: Follower) -> None:
    """Write what `job.settings` ask for below artifacts/exports/<job id>; BadInput when nothing fits."""
    wanted = job.settings
    selection = Selection.from_json(wanted["selection"])
    folder = export_folder(settings, job.id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}

    def fill(part: Path) -> None:
        # one snapshot of the database from the first row to the last, whatever is compared meanwhile
        connection = (
            engine_for(str(settings.database_url)).connect().execution_options(isolation_level="REPEATABLE READ")
        )
        with connection, Session(connection) as db:
            found.update(_write(db, selection, wanted, settings.secret, part, follower))
        write_json(part / "manifest.json", found)

    try:
        replace_directory(folder, fill)
    except BaseException:
        recover_directory(folder)  # leave no half-written files behind
        raise
    with session_factory(str(settings.database_url)).begin() as db:
        follower.finish(db, found)


def export_folder(settings: Settings, job_id: int) -> Path:
    """Where the files of an export lie."""
    return Path(settings.artifacts) / "exports" / str(job_id)


def _write(
    db: Session, selection: Selection, wanted: dict[str, Any], secret: str, part: Path, follower: Follower
) -> dict[str, Any]:
    form = FORMATS[wanted["format"]]
    total = _count(db, form, selection)
    if not total:
        raise BadInput(f"There are no {form.noun} that fit these filters, so there is nothing to export.")
    share, done = float(wanted["test_share"]), 0
    suffix = "parquet" if wanted["format"] == "parquet" else "jsonl.gz" if wanted["compressed"] else "jsonl"
    names = [f"{split}.{suffix}" for split in (("train", "test") if share else (form.noun,))]
    counts = {key: Counter[str]() for key in ("file", "campaign", "mode", "source", "strength")}
    conversations: set[str] = set()
    with ExitStack() as closing:
        sinks: dict[str, Sink] = {name: _sink(part / name, form) for name in names}
        for sink in sinks.values():
            closing.callback(sink.close)
        for record, campaign, source in form.read(db, selection, secret):
            name = names[splits.is_held_out(record, share)] if share else names[0]
            sinks[name].add(record)
            grade = str(getattr(record, "strength", None) or "none")
            labels = {
                "file": name,
                "campaign": campaign,
                "mode": str(record.mode),
                "source": source,
                "strength": grade,
            }
            for key, label in labels.items():
                counts[key][label] += 1
            conversations.add(splits.conversation_key(record))
            done += 1
            if done % 500 == 0:
                follower(done, total, form.noun)
    follower(done, total, form.noun, last=True)
    left_out = _count(db, form, replace(selection, people="simulated")) if selection.people == "real" else 0
    return {
        "format": wanted["format"],
        form.noun: done,
        "of": form.noun,
        "conversations": len(conversations),
        "files": [_described(part / name, form.noun, counts["file"][name]) for name in names],
        "counts": {key: dict(sorted(counter.items())) for key, counter in counts.items() if key != "file"},
        "filters": {"campaign": wanted["campaign"]}
        | {k: v for k, v in wanted["selection"].items() if k != "campaign_id"},
        "simulated_left_out": left_out,
        "splits": {"by": "conversation", "test_share": share} if share else None,
        "identities": "replaced by pseudonyms that are stable within this installation",
        "schema": form.schema,
        "code_version": code_version(),
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _count(db: Session, form: Format, selection: Selection) -> int:
    counted = select(func.count()).select_from(form.answers).where(*selection.conditions(form.answers))
    if form.answers is Comparison:  # a tie has no reply to learn, so no line of these formats can hold it
        counted = counted.where(Comparison.verdict == "picked")
    return db.scalar(counted) or 0


def _described(path: Path, noun: str, records: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, noun: records, "bytes": path.stat().st_size, "sha256": digest}


def _sink(path: Path, form: Format) -> Sink:
    return ParquetFile(path) if form.line is None else LinesFile(path, form.line)


class LinesFile:
    """One line a record; a .gz holds no time and no name, so the same lines are the same bytes."""

    def __init__(self, path: Path, line: Callable[[Any], str]) -> None:
        self.line = line
        self.raw = path.open("wb")
        self.file: IO[bytes] | gzip.GzipFile = self.raw
        if path.suffix == ".gz":
            self.file = gzip.GzipFile(filename="", mode="wb", fileobj=self.raw, mtime=0)

    def add(self, record: Any) -> None:
        """Write one."""
        self.file.write(self.line(record).encode() + b"\n")

    def close(self) -> None:
        """Write the rest."""
        self.file.close()
        self.raw.close()
