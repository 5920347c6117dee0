"""How often a run writes its checkpoint: after some seconds of work, and never so often that writing takes the time.

Or after every so many steps; after the last step in any case.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from training.processes import distributed

MOST_SHARE = 0.05  # of the time may go into checkpoints; those of a large model take seconds each


class Cadence:
    """Counts from its beginning and from the end of every checkpoint."""

    def __init__(self, seconds: float, steps: int = 0, *, together: bool = False) -> None:
        """`seconds`: the least work between two checkpoints; 0 asks for one whenever there could be one. `steps` > 0: every so many instead.

        `together`: all processes do as the first one's clock says. Of a model in shards all must gather at once; of a whole
        one the first alone writes, and the others need not wait for it.
        """
        self._seconds = self._least = seconds
        self._steps, self._together = steps, together
        self._since = time.monotonic()

    def due(self, step: int, last: int) -> bool:
        """Whether a checkpoint is to be written after this step."""
        enough = step % self._steps == 0 if self._steps else time.monotonic() - self._since >= self._seconds
        due = enough or step == last
        return bool(distributed.said_first(due)) if self._together else due

    @contextmanager
    def saving(self) -> Iterator[None]:
        """A checkpoint is written inside; a long one puts off the next."""
        begin = time.monotonic()
        yield
        self._since = time.monotonic()
        if self._least:
            self._seconds = max(self._least, (self._since - begin) * (1 / MOST_SHARE - 1))
