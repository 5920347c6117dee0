"""What a preference model's scores of held-out replies say about it."""

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from training.data.batches import Ranked
from training.measuring.calibration import (
    accuracy,
    effective_count,
    expected_calibration_error,
    log_loss,
    reliability_bins,
    wilson_interval,
)

THRESHOLDS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # in deviations of the scores of training's replies
OVERALL = ("accuracy", "accuracy_ci95", "independent_pairs", "log_loss", "calibration_error", "margin_mean")


class HeldOut(NamedTuple):
    """One held-out pair: which element it is of, score(better) - score(worse), the lower of the two scores, and its group."""

    element: int
    margin: float
    low: float
    group: Hashable


def pairs_of(elements: Sequence[Ranked], scores: Sequence[Sequence[float]]) -> list[HeldOut]:
    """Return every pair of the elements; a reply of its own makes none."""
    return [
        HeldOut(
            number,
            found[better] - found[worse],
            min(found[better], found[worse]),
            number if element.group is None else element.group,
        )
        for number, (element, found) in enumerate(zip(elements, scores, strict=True))
        for better, worse in element.pairs
    ]


def report(
    elements: Sequence[Ranked],
    scores: Sequence[Sequence[float]],
    bins: int,
    *,
    bands: int = 10,
    shift: float = 0.0,
    scale: float = 1.0,
    odds: bool = True,
) -> dict[str, Any]:
    """Return accuracy with its 95% interval, log loss and calibration over all pairs, and the accuracy of parts of them.

    `scores` are the raw ones of each element's replies; less `shift` and divided by `scale` they are held against
    THRESHOLDS. `odds` False: differences are no log-odds (mean log p), so nothing is said of probabilities.
    Without a single pair every number is None: nothing was measured.
    """
    pairs = pairs_of(elements, scores)
    margins = [pair.margin for pair in pairs]
    found: dict[str, Any] = dict.fromkeys(OVERALL) | {"calibration_bins": [], "test_pairs": len(pairs)}
    if pairs:
        all_of_them = _share(pairs)
        found |= {key: all_of_them[key] for key in ("accuracy", "accuracy_ci95")}
        found["independent_pairs"] = _independent(pairs)
        found["margin_mean"] = sum(margins) / len(margins)
    if pairs and odds:
        curve = reliability_bins(margins, bins)
        found["log_loss"] = log_loss(margins)
        found["calibration_error"] = expected_calibration_error(curve)
        found["calibration_bins"] = curve
    return found | {
        "accuracy_by_mode": _by(elements, pairs, lambda element: element.mode),
        "accuracy_by_distribution": _by(elements, pairs, lambda element: element.distribution),
        "accuracy_by_turn": _by(elements, pairs, lambda element: element.turn),
        "accuracy_by_strength": _by(elements, pairs, lambda element: element.strength),
        "accuracy_by_margin": _bands(pairs, bands),
        "accuracy_by_threshold": [
            {"threshold": threshold} | _share([pair for pair in pairs if (pair.low - shift) / scale >= threshold])
            for threshold in (THRESHOLDS if odds and pairs else ())
        ],
    }


def binary_report(elements: Sequence[Ranked], scores: Sequence[float]) -> dict[str, Any]:
    """Return how well the sign of a raw score tells good replies from bad ones, of elements of a reply of their own."""
    margins = [score if element.good else -score for element, score in zip(elements, scores, strict=True)]
    if not margins:
        return dict.fromkeys(("binary_accuracy", "binary_accuracy_ci95", "binary_log_loss")) | {"test_replies": 0}
    groups = [number if element.group is None else element.group for number, element in enumerate(elements)]
    return {
        "binary_accuracy": accuracy(margins),
        "binary_accuracy_ci95": list(wilson_interval(accuracy(margins), effective_count(margins, groups))),
        "binary_log_loss": log_loss(margins),
        "test_replies": len(margins),
    }


def _share(pairs: Sequence[HeldOut]) -> dict[str, Any]:
    """Return {"pairs", "accuracy", "accuracy_ci95"}; the pairs of one group count as what they tell together."""
    if not pairs:
        return {"pairs": 0, "accuracy": None, "accuracy_ci95": None}
    share = accuracy([pair.margin for pair in pairs])
    return {"pairs": len(pairs), "accuracy": share, "accuracy_ci95": list(wilson_interval(share, _independent(pairs)))}


def _independent(pairs: Sequence[HeldOut]) -> float:
    """Return how many independent pairs these tell as much as."""
    return effective_count([pair.margin for pair in pairs], [pair.group for pair in pairs])


def _by(
    elements: Sequence[Ranked], pairs: Sequence[HeldOut], key: Callable[[Ranked], str | int | None]
) -> dict[str, Any]:
    """Return the share of each value of `key` that elements state."""
    groups: dict[str | int, list[HeldOut]] = {}
    for pair in pairs:
        value = key(elements[pair.element])
        if value is not None:
            groups.setdefault(value, []).append(pair)
    return {str(value): _share(groups[value]) for value in sorted(groups)}


def _bands(pairs: Sequence[HeldOut], bands: int) -> list[dict[str, Any]]:
    """Return the share in bands of as many pairs each, from the smallest |score difference| to the largest."""
    ranked = sorted(pairs, key=lambda pair: abs(pair.margin))
    bands = min(bands, len(ranked))
    cuts = [number * len(ranked) // bands for number in range(bands + 1)] if bands else [0]
    return [
        {"low": abs(ranked[begin].margin), "high": abs(ranked[end - 1].margin)} | _share(ranked[begin:end])
        for begin, end in pairwise(cuts)
    ]
