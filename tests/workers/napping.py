"""The workers' own application with two tasks for tests: one that takes its time, one that leaves a mark."""

from __future__ import annotations

import time
from pathlib import Path

from workers.app import app

__all__ = ["app"]


@app.task(name="nap", queue="train")
def nap(seconds: float, begun: str) -> None:
    """Be busy for a while."""
    Path(begun).touch()
    time.sleep(seconds)


@app.task(name="mark", queue="train")
def mark(file: str) -> None:
    """Show that the worker takes new work."""
    Path(file).touch()
