"""How good a preference model's probabilities are: accuracy with its interval, log loss, calibration.

A margin is score(chosen) - score(rejected); σ(margin) is the stated probability that the chosen reply is the better one.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, TypedDict

from training.intervals import Z95


class Bin(TypedDict):
    """Pairs of similar confidence: what was stated against what was right."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean of max(p, 1-p); None in an empty bin
    accuracy: float | None


def probability(margin: float) -> float:
    """σ(margin), without overflow."""
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))


def rightness(margin: float) -> float:
    """`objective.wins` of a number, without torch: 1 when the chosen reply scores higher, 0 when lower, 1/2 on a tie."""
    return 0.5 if margin == 0 else float(margin > 0)


def accuracy(margins: Sequence[float]) -> float:
    """Return the share of pairs whose chosen reply scores higher."""
    return sum(map(rightness, margins)) / len(margins)


def wilson_interval(share: float, count: float, z: float = Z95) -> tuple[float, float]:
    """Return the 95% interval of a share seen in `count` trials (Wilson 1927): within [0, 1] and honest at small counts.

    `count` need not be whole: trials that are not independent tell as much as some other number of independent ones.
    """
    if count == 0:
        return 0.0, 1.0
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    below = 1 + z * z / count
    return max(0.0, (middle - half) / below), min(1.0, (middle + half) / below)


def effective_count(margins: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Return how many independent pairs tell as much as these, of which those of one group (a conversation) go together.

    From the share's variance with groups as the units, between the number of groups and the number of pairs; where all
    are right or all wrong no variance is seen, and the number of groups is the safe one.
    """
    share = accuracy(margins)
    off: dict[Hashable, float] = {}
    for margin, group in zip(margins, groups, strict=True):
        off[group] = off.get(group, 0.0) + rightness(margin) - share
    count, fewest = len(margins), len(off)
    variance = sum(gap * gap for gap in off.values()) / count**2
    if fewest == count or not 0 < share < 1 or variance == 0:
        return float(fewest)
    return min(float(count), max(float(fewest), share * (1 - share) / variance))


def log_loss(margins: Sequence[float]) -> float:
    """Return the mean of -ln σ(margin), in nats; ln 2 = 0.693 is a coin."""
    return sum(math.log1p(math.exp(-abs(m))) + max(-m, 0.0) for m in margins) / len(margins)


def reliability_bins(margins: Sequence[float], bins: int) -> list[Bin]:
    """Sort pairs by confidence max(p, 1-p), from 1/2 to 1, into `bins` of equal width."""
    filled: list[list[float]] = [[] for _ in range(bins)]
    for margin in margins:
        filled[min(bins - 1, int((probability(abs(margin)) - 0.5) * 2 * bins))].append(margin)
    found: list[Bin] = []
    for number, inside in enumerate(filled):
        confidence = sum(probability(abs(m)) for m in inside) / len(inside) if inside else None
        low, high = 0.5 + number / (2 * bins), 0.5 + (number + 1) / (2 * bins)
        right = accuracy(inside) if inside else None
        found.append(Bin(low=low, high=high, count=len(inside), confidence=confidence, accuracy=right))
    return found


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean over pairs of |confidence - accuracy| of their bin (Naeini et al. 2015); 0 is perfect."""
    gaps = [(b["count"], abs((b["confidence"] or 0.0) - (b["accuracy"] or 0.0))) for b in bins if b["count"]]
    return sum(count * gap for count, gap in gaps) / sum(count for count, _ in gaps)


def chance_calibration_error(bins: Sequence[Mapping[str, Any]], confidence: float = 0.5) -> float:
    """Return the calibration error that a perfectly calibrated model stays below with this confidence, on bins of these sizes.

    A bin of n pairs told right with probability p misses p by sqrt(2 p (1 - p) / (π n)) on average, with variance
    (1 - 2/π) p (1 - p) / n.
    """
    total = sum(int(item["count"]) for item in bins)
    missed = variance = 0.0
    for item in bins:
        count = int(item["count"])
        if count:
            p, weight = float(item["confidence"]), count / total
            missed += weight * math.sqrt(2 * max(0.0, p * (1 - p)) / (math.pi * count))
            variance += weight**2 * (1 - 2 / math.pi) * p * (1 - p) / count
    return missed + NormalDist().inv_cdf(confidence) * math.sqrt(variance)
