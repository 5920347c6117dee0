"""Comparisons as a Parquet file: typed columns for what one filters by, JSON for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.lines.records import Comparison

ROWS = 5000  # a row group: some megabytes of text

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("strength", pa.int8()),
        ("mode", pa.string()),
        ("conversation", pa.string()),
        ("person", pa.string()),
        ("round", pa.int64()),
        ("campaign", pa.string()),
        ("distribution", pa.string()),
        ("provenance", pa.string()),
    ]
)


class ParquetFile:
    """Writes row groups as they fill; `prompt`, `chosen` and `rejected` are what TRL reads as conversational."""

    def __init__(self, path: Path) -> None:
        self.writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self.rows: list[dict[str, Any]] = []

    def add(self, comparison: Comparison) -> None:
        """Write one."""
        rest = dict(comparison.extra)
        campaign, distribution = (rest.pop(key, None) for key in ("campaign", "distribution"))
        self.rows.append(
            {
                "prompt": list(comparison.prompt),
                "chosen": [{"role": "assistant", "content": comparison.chosen}],
                "rejected": [{"role": "assistant", "content": comparison.rejected}],
                "strength": comparison.strength,
                "mode": comparison.mode,
                "conversation": comparison.conversation,
                "person": comparison.person,
                "round": comparison.round,
                "campaign": campaign if isinstance(campaign, str) else None,
                "distribution": distribution if isinstance(distribution, str) else None,
                "provenance": json.dumps(rest, ensure_ascii=False),
            }
        )
        if len(self.rows) >= ROWS:
            self._flush()

    def close(self) -> None:
        """Write the rest."""
        self._flush()
        self.writer.close()

    def _flush(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA))
            self.rows = []
