"""One experiment over several seeds, with one progress bar for all that they do."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from training.experiments.writing import Options
from training.runs.progress import Bar

Found = TypeVar("Found")
Tick = Callable[[str], None]  # called after each step of a seed, with a few words about it


def each_seed(
    options: Options, title: str, steps: int, one_seed: Callable[[Path, int, bool, Tick], Found]
) -> list[Found]:
    """Return what `one_seed(scratch folder, seed, quick, tick)` finds for each seed, in order; each ticks `steps` times."""
    done = itertools.count(1)
    with Bar(title, options.seeds * steps) as bar, tempfile.TemporaryDirectory() as scratch:

        def tick(note: str) -> None:
            bar.at(next(done), note)

        return [one_seed(Path(scratch) / str(seed), seed, options.quick, tick) for seed in range(options.seeds)]
