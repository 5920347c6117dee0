"""The weights of a policy from before it went wrong: two snapshots that are always a window of iterations apart.

An alarm that looks at the last `window` iterations speaks when the harm is done; the newest checkpoint may be from within
them. Every `window` iterations the weights are kept, and the two newest of these remain, so that one is at least a window old.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from training.processes import ranks
from training.runs import files
from training.runs.tensors import write_tensors


class LastGood:
    """`good/STEP/weights.safetensors` in a run folder."""

    def __init__(self, root: Path, window: int) -> None:
        self.root, self.window = root, window

    def keep(self, step: int, weights: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep the weights after iteration `step` where it is a window's turn; those too old to be asked for go."""
        if step % self.window:
            return
        found = weights()  # all processes are asked: each may hold its part alone
        if not ranks.leads():
            return
        files.replace_directory(self.root / str(step), lambda part: write_tensors(part / "weights.safetensors", found))
        for other in self.steps():
            if other < step - self.window:
                shutil.rmtree(self.root / str(other))

    def steps(self) -> list[int]:
        """The iterations whose weights are here."""
        return sorted(int(path.name) for path in self.root.glob("*") if path.name.isdigit())

    def before(self, step: int) -> tuple[int, dict[str, Tensor]] | None:
        """The newest weights from before the window that ends with `step`, and their iteration; None if there are none."""
        old = [other for other in self.steps() if other <= step - self.window]
        return (old[-1], load_file(self.root / str(old[-1]) / "weights.safetensors")) if old else None

    def forget(self) -> None:
        """Remove what is no longer needed once the run is finished."""
        if ranks.leads():
            shutil.rmtree(self.root, ignore_errors=True)
