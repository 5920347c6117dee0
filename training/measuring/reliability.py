"""The reliability curve of a preference model as a picture: what it predicted against what was found (Bai et al. 2022)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.measuring.calibration import wilson_interval
from training.runs.plots import Series, plot


def draw_reliability(path: Path, bins: Sequence[Mapping[str, Any]]) -> None:
    """Write `path` as PNG and JSON from `calibration_bins`: every bin's found share with its interval, and the diagonal."""
    bins = [each for each in bins if each["count"]]
    if not bins:
        return
    bounds = [wilson_interval(each["accuracy"], each["count"]) for each in bins]
    low, high = ([bound[place] for bound in bounds] for place in (0, 1))
    predicted, found = [each["confidence"] for each in bins], [each["accuracy"] for each in bins]
    ends = [0.5, 1.0]
    plot(
        path, "Calibration on held-out comparisons", "predicted share", "found share",
        [Series("this model", predicted, found, low, high), Series("perfect", ends, ends, points=False)],
    )  # fmt: skip
