"""How often a run writes its checkpoint: after some seconds of work, and never so often that writing takes the time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

MOST_SHARE = 0.05  # of the time may go into checkpoints; those of a large model take seconds each


class Cadence:
    """Counts from its beginning and from the end of every checkpoint."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: the least work between two checkpoints; 0 asks for one whenever there could be one."""
        self._seconds = self._least = seconds
        self._since = time.monotonic()

    def due(self) -> bool:
        """Whether there has been work enough since the last checkpoint."""
        return time.monotonic() - self._since >= self._seconds

    @contextmanager
    def saving(self) -> Iterator[None]:
        """A checkpoint is written inside; a long one puts off the next."""
        begin = time.monotonic()
        yield
        self._since = time.monotonic()
        if self._least:
            self._seconds = max(self._least, (self._since - begin) * (1 / MOST_SHARE - 1))
