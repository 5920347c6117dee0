"""What tests ask of a job's result."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from training.runs.run_folder import RunFolder

# Two processes add the same numbers in another order; Adam turns the rounding of a gradient near zero into a step.
TOLERANCE = 1e-4
MACHINE = ("seconds", "peak_bytes", "tokens_per_second")  # what another run of the same need not share


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


def alike(one: object, other: object, tolerance: float, ignored: Collection[str] = MACHINE, at: str = "result") -> None:
    """Two results agree, lists and tables inside them too: numbers within the tolerance, what is counted exactly."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), at
        for name in one.keys() - set(ignored):
            alike(one[name], other[name], tolerance, ignored, f"{at}.{name}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), at
        for place, inner in enumerate(one):
            alike(inner, other[place], tolerance, ignored, f"{at}[{place}]")
    elif isinstance(one, float) and isinstance(other, float):
        assert other == pytest.approx(one, rel=tolerance, abs=tolerance), at
    else:
        assert other == one, at


def runs_alike(one: RunFolder, other: RunFolder) -> None:
    """Metrics and results of two runs agree."""
    alike([*one.metrics(), one.result()], [*other.metrics(), other.result()], TOLERANCE)


def interrupted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> list[int]:
    """Let Ctrl-C meet `owner.name` in its so-maniest call, once; the list that is returned grows by one with every call."""
    work, calls = getattr(owner, name), []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls) + 1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return work(*arguments, **named)

    monkeypatch.setattr(owner, name, counted)
    return calls
