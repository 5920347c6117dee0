"""Straight lines through measured points, with how well they fit and over which range."""

import math
from collections.abc import Sequence
from typing import TypedDict

from training.intervals import Z95


class Line(TypedDict):
    """y = intercept + slope · x by least squares over `points` points from x `least` to `most`."""

    slope: float
    slope_ci95: list[float]  # by the residuals, normal approximation: points of one run are not independent
    intercept: float
    r_squared: float
    points: int
    least: float
    most: float


def fitted_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """Fit a line; None for fewer than three points or where x or y does not vary."""
    count = len(x)
    if count < 3:
        return None
    mean_x, mean_y = sum(x) / count, sum(y) / count
    spread_x = sum((one - mean_x) ** 2 for one in x)
    spread_y = sum((one - mean_y) ** 2 for one in y)
    if spread_x <= 0 or spread_y <= 0:
        return None
    slope = sum((one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True)) / spread_x
    intercept = mean_y - slope * mean_x
    left = sum((other - intercept - slope * one) ** 2 for one, other in zip(x, y, strict=True))
    reach = Z95 * math.sqrt(left / (count - 2) / spread_x)
    return Line(
        slope=slope, slope_ci95=[slope - reach, slope + reach], intercept=intercept, r_squared=1 - left / spread_y,
        points=count, least=min(x), most=max(x),
    )  # fmt: skip


def sqrt_kl_law(
    kl: Sequence[float], score: Sequence[float], least: float = 0.0, most: float = 0.0
) -> dict[str, Line | None]:
    """Score against √KL and, to compare, against KL itself, where √KL lies in [least, most]   (Bai et al. 2022 §4.3).

    `most` 0 is no end. An estimate of a KL below 0 has no root and is left out.
    """
    points = [
        (math.sqrt(one), other)
        for one, other in zip(kl, score, strict=True)
        if one >= 0 and math.sqrt(one) >= least and (not most or math.sqrt(one) <= most)
    ]
    roots, scores = [root for root, _ in points], [value for _, value in points]
    return {"sqrt_kl": fitted_line(roots, scores), "kl": fitted_line([root**2 for root in roots], scores)}
