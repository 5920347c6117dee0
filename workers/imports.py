"""Importing a file of comparisons: checked line by line, copied in batches, committed once.

Each line becomes a finished conversation of its own (source `import`): earlier turns with the one reply that is known, the
last turn with the two that were compared. A bad line fails the whole import and names itself, unless bad lines are to be
skipped, and then the result lists them.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from server.db import session_factory
from server.errors import BadInput, Conflict
from server.models import Job
from server.models.campaigns import MODES
from server.services.campaigns.campaigns import find_campaign
from server.services.jobs import earlier_import
from server.settings import Settings
from training.lines.records import BadRecord, Comparison, numbered_lines, parse_line
from workers.copying import Copy
from workers.following import Follower

BATCH = 1000  # records copied at once: some megabytes, a fraction of a second
MAX_LINE_BYTES = 10_000_000  # no conversation is longer; a file without line ends must not fill the memory
LISTED_BAD_LINES = 100  # of --skip-bad, in the result; all of them are counted


def import_file(settings: Settings, job: Job, follower: Follower) -> None:
    """Import the file of `job.settings` in one transaction; BadRecord, BadInput or Conflict say why nothing came in."""
    wanted = job.settings
    path = Path(wanted["path"])
    lines, digest = _survey(path, follower)
    if not lines:
        raise BadInput(f"{path} is empty; there is nothing to import.")
    with session_factory(str(settings.database_url)).begin() as db:
        campaign = find_campaign(db, wanted["campaign"])
        _refuse_twice(db, wanted, digest)
        bad: list[BadRecord] = []
        copy = Copy(db, job.id, campaign.id, wanted["mode"] or campaign.mode)
        batch: list[tuple[int, Comparison]] = []
        read = hashlib.sha256()
        for number, line in numbered_lines(path, MAX_LINE_BYTES):
            read.update(line)
            if not line.strip():
                continue
            try:
                batch.append((number, _record(line, number, wanted["format"])))
            except BadRecord as error:
                if not wanted["skip_bad"]:
                    raise
                bad.append(error)
            if len(batch) >= BATCH:
                copy.add(batch)
                batch = []
                follower(number, lines)
        copy.add(batch)
        if read.hexdigest() != digest:
            raise Conflict(f"{path} changed while it was read; import it again when it is complete.")
        if not copy.comparisons:
            raise BadInput(f"{path} holds no comparison that can be imported.")
        follower(lines, lines, last=True)
        _refuse_twice(db, wanted, digest, wait=True)
        follower.finish(db, {
            "file": path.name,
            "sha256": digest,
            "lines": lines,
            "comparisons": copy.comparisons,
            "kept_as_written": copy.kept_as_written,
            "bad_lines": len(bad),
            "bad": [{"line": error.number, "reason": error.reason} for error in bad[:LISTED_BAD_LINES]],
        })  # fmt: skip


def _refuse_twice(db: Session, wanted: dict[str, Any], digest: str, *, wait: bool = False) -> None:
    """The same content comes into a campaign once, unless asked for again.

    With `wait`, imports into one database queue here until the one before has committed, so that two at once see each other.
    """
    if wait:
        db.connection().exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('whetstone.import'))")
    earlier = earlier_import(db, wanted["campaign"], digest)
    if earlier is not None and not wanted["again"]:
        raise Conflict(
            f"This file is in campaign {wanted['campaign']} already (job {earlier.id}); "
            "nothing was imported. Ask for it again with --again if you mean to have it twice."
        )


def _survey(path: Path, follower: Follower) -> tuple[int, str]:
    """How many lines the unpacked file has, and the SHA-256 of its content: .gz and plain are the same file."""
    digest, number = hashlib.sha256(), 0
    for number, line in numbered_lines(path, MAX_LINE_BYTES):
        digest.update(line)
        if number % 10_000 == 0:
            follower(number, 0, "lines read")
    return number, digest.hexdigest()


def _record(line: bytes, number: int, format: str) -> Comparison:  # noqa: A002 - the word of the command line
    """The line as a comparison that our tables can hold; BadRecord says why it is none."""
    comparison = parse_line(line, number)
    shape = "auto" if format == "auto" else _shape(json.loads(line))
    if shape != format:
        raise BadRecord(number, f"has the shape {shape}, not {format}")
    if comparison.chosen == comparison.rejected:
        raise BadRecord(number, "'chosen' and 'rejected' are the same, which says nothing; remove the line")
    if comparison.mode is not None and comparison.mode not in MODES:
        raise BadRecord(number, f"'mode' must be helpful or red_team, not {comparison.mode!r}")
    _storable(number, [message["content"] for message in comparison.prompt])
    _storable(number, [comparison.chosen, comparison.rejected, comparison.source_line])
    _storable(number, [comparison.person, comparison.conversation, comparison.extra])
    answered = True
    for place, message in enumerate(comparison.prompt, 1):
        if message["role"] == "assistant" and answered:
            raise BadRecord(number, f"message {place} is a reply that answers no message of the user")
        answered = message["role"] == "assistant"
        if not answered and not message["content"]:
            raise BadRecord(number, f"message {place}, of the user, is empty")
    return comparison


def _shape(record: dict[str, Any]) -> str:
    """Which of our format names a good record has."""
    if {"strength", "mode", "conversation"} & record.keys():
        return "whetstone"
    chosen = record["chosen"]
    return (
        "hh" if isinstance(chosen, str) and "prompt" not in record and chosen.lstrip().startswith("Human:") else "trl"
    )


def _storable(number: int, value: Any) -> None:
    """Refuse what JSON can say and Postgres cannot keep."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise BadRecord(number, f"holds the number {item}, which cannot be stored")
        elif isinstance(item, str) and "\0" in item:
            raise BadRecord(number, "holds the character U+0000, which cannot be stored")
