"""How fast a supervised run goes, logged beside each of its updates."""

import time
from collections.abc import Mapping

from training.supervised.fitting import Watch


class Pace(Watch):
    """Adds the tokens learnt per second; what `look` does besides is left out of the time."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def look(self, step: int, numbers: Mapping[str, float]) -> Mapping[str, float]:
        """Return the speed of update `step`, and what is seen after it."""
        pace = {"tokens_per_second": numbers["tokens"] / (time.monotonic() - self._since)}
        seen = self.see(step, numbers)
        self._since = time.monotonic()
        return pace | dict(seen)

    def see(self, step: int, numbers: Mapping[str, float]) -> Mapping[str, float]:  # noqa: ARG002 (a job needs them)
        """Return what else is logged beside update `step`."""
        return {}
