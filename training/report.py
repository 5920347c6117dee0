"""What a preference model's scores of held-out pairs say about it."""

from collections.abc import Callable, Sequence
from typing import Any

from training.batches import Pair
from training.calibration import accuracy, expected_calibration_error, log_loss, reliability_bins, wilson_interval


def report(pairs: Sequence[Pair], scores: tuple[list[float], list[float]], bins: int) -> dict[str, Any]:
    """Return accuracy with its 95% interval, log loss and calibration, over all pairs and by mode and strength.

    `scores` are the raw ones of (chosen, rejected). Without a single pair every number is None: nothing was measured.
    """
    margins = [good - bad for good, bad in zip(*scores, strict=True)]
    if not margins:
        names = ("accuracy", "accuracy_ci95", "log_loss", "calibration_error", "margin_mean")
        return dict.fromkeys(names) | {
            "calibration_bins": [],
            "test_pairs": 0,
            "accuracy_by_mode": {},
            "accuracy_by_strength": {},
        }
    found = reliability_bins(margins, bins)
    share = accuracy(margins)
    return {
        "accuracy": share,
        "accuracy_ci95": list(wilson_interval(share, len(margins))),
        "log_loss": log_loss(margins),
        "calibration_error": expected_calibration_error(found),
        "calibration_bins": found,
        "margin_mean": sum(margins) / len(margins),
        "test_pairs": len(margins),
        "accuracy_by_mode": _by(pairs, margins, lambda pair: pair.mode),
        "accuracy_by_strength": _by(pairs, margins, lambda pair: pair.strength),
    }


def _by(pairs: Sequence[Pair], margins: Sequence[float], key: Callable[[Pair], str | int | None]) -> dict[str, Any]:
    """Return {"pairs", "accuracy", "accuracy_ci95"} for each value of `key` that pairs state."""
    groups: dict[str, list[float]] = {}
    for pair, margin in zip(pairs, margins, strict=True):
        value = key(pair)
        if value is not None:
            groups.setdefault(str(value), []).append(margin)
    return {
        name: {
            "pairs": len(inside),
            "accuracy": accuracy(inside),
            "accuracy_ci95": list(wilson_interval(accuracy(inside), len(inside))),
        }
        for name, inside in sorted(groups.items())
    }
