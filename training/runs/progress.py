"""Progress on standard error, where a person is looking; nothing where the output goes to a file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.processes import ranks

_SHOWN = ContextVar("whether bars are shown", default=True)


@contextmanager
def without_bars() -> Iterator[None]:
    """Show no bar that is begun inside: a step of something with a bar of its own would draw over that one."""
    before = _SHOWN.set(False)
    try:
        yield
    finally:
        _SHOWN.reset(before)


class Bar:
    """A bar of `total` steps: `with Bar("preference model", 100) as bar: bar.at(3, "loss 0.61")`."""

    def __init__(self, title: str, total: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not (_SHOWN.get() and ranks.leads() and sys.stderr.isatty()),
        )
        self._task = self._progress.add_task(title, total=total, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def at(self, step: int, note: str = "") -> None:
        """Show that `step` steps are done, with a few words about the last one."""
        self._progress.update(self._task, completed=step, note=note)
