"""What docs/metrics.md explains, for the tests that look at the numbers of real runs."""

from __future__ import annotations

import re
from pathlib import Path

METRICS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def documented() -> set[str]:
    """Every name in the first column of a table."""
    rows = re.findall(r"^\| (`.+?) \|", METRICS.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}
