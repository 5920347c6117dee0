"""The interval that goes with every share we show."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

Z95 = 1.959963984540054  # the normal quantile of 97.5%


@dataclass(frozen=True)
class Share:
    """`part` of `whole`, with the Wilson score interval (Wilson 1927), which stays inside 0..1 for small counts."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        """The share, or None where there is nothing to count."""
        return self.part / self.whole if self.whole else None

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Lower and upper end of the 95% interval; None where there is nothing to count."""
        if not self.whole:
            return None
        n, p = self.whole, self.part / self.whole
        centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
        return max(0.0, centre - half), min(1.0, centre + half)
