"""What tests ask of a job's result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def names_of(value: object) -> set[str]:
    """Every key of a result, those inside lists and tables too."""
    if isinstance(value, dict):
        return set(value) | {name for inner in value.values() for name in names_of(inner)}
    return {name for inner in value for name in names_of(inner)} if isinstance(value, list) else set()


def result_of(path: Path) -> dict[str, Any]:
    """result.json."""
    found: dict[str, Any] = json.loads((path / "result.json").read_text(encoding="utf-8"))
    return found


def reason_of(path: Path) -> str:
    """Why the job failed."""
    return str(json.loads((path / "failure.json").read_text(encoding="utf-8"))["reason"])


def run_folder(path: Path, settings: dict[str, Any], **data: list[Any]) -> Path:
    """A run folder with config.json and data/<name>.jsonl."""
    (path / "data").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    for name, lines in data.items():
        (path / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path
