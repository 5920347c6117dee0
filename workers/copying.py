"""Rows of imported comparisons, written with COPY."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from training.lines.records import Comparison

_COLUMNS = {
    "conversations": ("id", "campaign_id", "import_id", "source", "status", "finished_at"),
    "turns": ("id", "conversation_id", "position", "message", "status", "idempotency_key", "ready_at"),
    "candidates": ("id", "turn_id", "position", "status", "text", "finished_at"),
    "comparisons": (
        "id", "campaign_id", "turn_id", "mode", "picked_id", "chosen_id", "rejected_id", "strength", "import_id",
        "source_line", "details",
    ),
}  # fmt: skip


class Copy:
    """Adds batches of records to one campaign inside the transaction of `db`.

    Keys are reserved from the tables' own sequences, so that rows can name each other before they are written.
    """

    def __init__(self, db: Session, job_id: int, campaign_id: int, mode: str) -> None:
        self.db = db
        self.job_id = job_id
        self.campaign_id = campaign_id
        self.mode = mode  # of lines that do not say one
        self.comparisons = 0
        self.kept_as_written = 0
        self.now = db.scalar(text("SELECT now()"))
        # which of the two replies lies left is drawn, so that no page shows the chosen one always on the same side
        self.sides = random.Random(job_id)

    def add(self, batch: Sequence[tuple[int, Comparison]]) -> None:
        """Write the records of `batch`, each with its line number."""
        if not batch:
            return
        turns = [_turns(comparison) for _, comparison in batch]
        replies = [sum(reply is not None for _, reply in found) for found in turns]
        conversation_ids = self._reserve("conversations", len(batch))
        comparison_ids = self._reserve("comparisons", len(batch))
        turn_ids = iter(self._reserve("turns", sum(map(len, turns))))
        candidate_ids = iter(self._reserve("candidates", sum(replies) + 2 * len(batch)))
        rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
        carried: list[tuple[int, int]] = []
        for (number, comparison), found, conversation_id, comparison_id in zip(
            batch, turns, conversation_ids, comparison_ids, strict=True
        ):
            rows["conversations"].append(
                (conversation_id, self.campaign_id, self.job_id, "import", "finished", self.now)
            )
            turn_id = 0
            for position, (message, reply) in enumerate(found, 1):
                turn_id = next(turn_ids)
                key = f"import:{number}:{position}"
                rows["turns"].append((turn_id, conversation_id, position, message, "compared", key, self.now))
                if reply is not None:
                    candidate_id = next(candidate_ids)
                    carried.append((turn_id, candidate_id))
                    rows["candidates"].append((candidate_id, turn_id, 0, "done", reply, self.now))
            chosen_id, rejected_id = next(candidate_ids), next(candidate_ids)
            side = self.sides.randrange(2)
            rows["candidates"].append((chosen_id, turn_id, side, "done", comparison.chosen, self.now))
            rows["candidates"].append((rejected_id, turn_id, 1 - side, "done", comparison.rejected, self.now))
            mode = comparison.mode or self.mode
            rows["comparisons"].append(
                (
                    comparison_id, self.campaign_id, turn_id, mode, rejected_id if mode == "red_team" else chosen_id,
                    chosen_id, rejected_id, comparison.strength, self.job_id, comparison.source_line,
                    json.dumps(_details(comparison), ensure_ascii=False),
                )
            )  # fmt: skip
            self.kept_as_written += comparison.source_line is not None
        for table, columns in _COLUMNS.items():
            self._copy(table, columns, rows[table])
        if carried:
            self.db.execute(
                text(
                    "UPDATE turns SET continued_by_id = carried.candidate FROM unnest(cast(:turns AS bigint[]), "
                    "cast(:candidates AS bigint[])) AS carried(turn, candidate) WHERE turns.id = carried.turn"
                ),
                {"turns": [turn for turn, _ in carried], "candidates": [candidate for _, candidate in carried]},
            )
        self.comparisons += len(batch)

    def _reserve(self, table: str, count: int) -> list[int]:
        found = self.db.execute(
            text("SELECT nextval(pg_get_serial_sequence(:name, 'id')) FROM generate_series(1, :count)"),
            {"name": table, "count": count},
        )
        return sorted(found.scalars())  # in the order of the lines, which an export gives back

    def _copy(self, table: str, columns: Iterable[str], rows: list[tuple[Any, ...]]) -> None:
        driver = self.db.connection().connection.driver_connection
        assert driver is not None
        with driver.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _turns(comparison: Comparison) -> list[tuple[str, str | None]]:
    """The prompt as (message, the reply that carried it on); the last message's replies are the compared ones."""
    found: list[tuple[str, str | None]] = []
    for message in comparison.prompt:
        if message["role"] == "user":
            found.append((message["content"], None))
        else:
            found[-1] = (found[-1][0], message["content"])
    return found


def _details(comparison: Comparison) -> dict[str, Any]:
    """What the line says and no column holds."""
    known = {key: getattr(comparison, key) for key in ("conversation", "person", "round")}
    return comparison.extra | {key: value for key, value in known.items() if value is not None}
