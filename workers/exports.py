"""Exporting comparisons: one consistent view of the database, files in a folder that appears whole, and a manifest."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.db import engine_for, session_factory
from server.errors import BadInput
from server.models import Comparison, Job
from server.services.selection import Selection
from server.settings import Settings
from training import records
from training.files import recover_directory, replace_directory, write_json
from training.run_folder import code_version
from workers.following import Follower
from workers.parquet import ParquetFile
from workers.stored import stored_records

LINES: dict[str, Callable[[records.Comparison], str]] = {
    "hh": records.to_hh_line,
    "trl": partial(records.to_trl_line, explicit=False, conversational=False),
    "trl-explicit": partial(records.to_trl_line, explicit=True, conversational=False),
    "trl-conversational": partial(records.to_trl_line, explicit=True, conversational=True),
    "whetstone": records.to_line,
}
SCHEMA = {
    "hh": {"chosen": "transcript ending with the better reply", "rejected": "the same with the other reply"},
    "trl": {"chosen": "prompt and better reply as one text", "rejected": "prompt and other reply"},
    "trl-explicit": {
        "prompt": "transcript ending with 'Assistant:'",
        "chosen": "better reply",
        "rejected": "other reply",
    },
    "trl-conversational": {
        "prompt": "messages {role, content}",
        "chosen": "one assistant message",
        "rejected": "one assistant message",
    },
}
SCHEMA["whetstone"] = SCHEMA["trl-conversational"] | {
    "strength": "1 (weakest) to 4",
    "mode": "helpful or red_team; chosen is the less harmful reply in both",
    "conversation, person, turn": "pseudonyms, stable within one installation",
    "round": "number of the round whose policy was serving",
    "chosen_reply, rejected_reply": "snapshot, seed, sampling, position shown (0 left), log_probability, token_count",
    "...": "campaign, scale_position, milliseconds_to_decide, instructions_version, created_at, and what an import said",
}
SCHEMA["parquet"] = SCHEMA["whetstone"] | {"provenance": "JSON of the remaining keys of the format whetstone"}


class Sink(Protocol):
    """A file that comparisons are written to."""

    def add(self, comparison: records.Comparison) -> None:
        """Write one."""

    def close(self) -> None:
        """Write the rest."""


def export_comparisons(settings: Settings, job: Job, follower: Follower) -> None:
    """Write the comparisons of `job.settings` below artifacts/exports/<job id>; BadInput when none fits."""
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
    total = _count(db, selection)
    if not total:
        raise BadInput("No comparison fits these filters, so there is nothing to export.")
    share, done = float(wanted["test_share"]), 0
    suffix = "parquet" if wanted["format"] == "parquet" else "jsonl.gz" if wanted["compressed"] else "jsonl"
    names = [f"{split}.{suffix}" for split in (("train", "test") if share else ("comparisons",))]
    counts = {key: Counter[str]() for key in ("file", "campaign", "mode", "source", "strength")}
    conversations: set[str] = set()
    with ExitStack() as closing:
        sinks: dict[str, Sink] = {name: _sink(part / name, wanted["format"]) for name in names}
        for sink in sinks.values():
            closing.callback(sink.close)
        for comparison, campaign, source in stored_records(db, selection, secret):
            name = names[records.is_held_out(comparison, share)] if share else names[0]
            sinks[name].add(comparison)
            grade = str(comparison.strength or "none")
            labels = {
                "file": name,
                "campaign": campaign,
                "mode": str(comparison.mode),
                "source": source,
                "strength": grade,
            }
            for key, label in labels.items():
                counts[key][label] += 1
            conversations.add(records.conversation_key(comparison))
            done += 1
            if done % 500 == 0:
                follower(done, total, "comparisons")
    follower(done, total, "comparisons", last=True)
    left_out = _count(db, replace(selection, people="simulated")) if selection.people == "real" else 0
    return {
        "format": wanted["format"],
        "comparisons": done,
        "conversations": len(conversations),
        "files": [_described(part / name, counts["file"][name]) for name in names],
        "counts": {key: dict(sorted(counter.items())) for key, counter in counts.items() if key != "file"},
        "filters": {"campaign": wanted["campaign"]}
        | {k: v for k, v in wanted["selection"].items() if k != "campaign_id"},
        "simulated_left_out": left_out,
        "splits": {"by": "conversation", "test_share": share} if share else None,
        "identities": "replaced by pseudonyms that are stable within this installation",
        "schema": SCHEMA[wanted["format"]],
        "code_version": code_version(),
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _count(db: Session, selection: Selection) -> int:
    return db.scalar(select(func.count()).select_from(Comparison).where(*selection.conditions())) or 0


def _described(path: Path, comparisons: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "comparisons": comparisons, "bytes": path.stat().st_size, "sha256": digest}


def _sink(path: Path, format: str) -> Sink:  # noqa: A002 - the word of the command line
    return ParquetFile(path) if format == "parquet" else LinesFile(path, LINES[format])


class LinesFile:
    """One line a comparison; a .gz holds no time and no name, so the same lines are the same bytes."""

    def __init__(self, path: Path, line: Callable[[records.Comparison], str]) -> None:
        self.line = line
        self.raw = path.open("wb")
        self.file: IO[bytes] | gzip.GzipFile = self.raw
        if path.suffix == ".gz":
            self.file = gzip.GzipFile(filename="", mode="wb", fileobj=self.raw, mtime=0)

    def add(self, comparison: records.Comparison) -> None:
        """Write one."""
        self.file.write(self.line(comparison).encode() + b"\n")

    def close(self) -> None:
        """Write the rest."""
        self.file.close()
        self.raw.close()
