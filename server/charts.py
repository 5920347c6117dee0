"""Curves as numbers for SVG: a template draws them, no script and no inline style is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320.0, 150.0  # of the drawing, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 40.0, 6.0, 8.0, 20.0  # room for the numbers beside it
SMOOTHED = 15  # points averaged for the bold line of a noisy curve


@dataclass(frozen=True)
class Tick:
    """A number beside an axis and where it stands."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One curve; `points` is the smoothed line, `raw` what was measured, both ready for `<polyline>`."""

    title: str
    about: str
    points: str
    raw: str
    ys: list[Tick]
    xs: list[Tick]
    newest: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT


def chart(title: str, about: str, curve: Sequence[Sequence[float]], *, smooth: bool = False) -> Chart | None:
    """A chart of [[step, value], …]; None when there are not two points to join."""
    known = [(float(x), float(y)) for x, y in curve if math.isfinite(y)]
    if len(known) < 2:
        return None
    low, high = min(y for _, y in known), max(y for _, y in known)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    ticks = _round_numbers(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = known[0][0], known[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT)
        up = (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return LEFT + across, HEIGHT - BOTTOM - up

    averaged = _smoothed(known) if smooth and len(known) >= SMOOTHED else known
    return Chart(
        title=title,
        about=about,
        points=_polyline([place(x, y) for x, y in averaged]),
        raw=_polyline([place(x, y) for x, y in known]) if averaged is not known else "",
        ys=[Tick(round(place(first, y)[1], 1), _label(y)) for y in ticks],
        xs=[Tick(LEFT, f"{first:g}"), Tick(WIDTH - RIGHT, f"{last:g}")],
        newest=_label(averaged[-1][1]),
    )


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    half = SMOOTHED // 2
    found = []
    for place, (x, _) in enumerate(points):
        near = points[max(0, place - half) : place + half + 1]
        found.append((x, sum(y for _, y in near) / len(near)))
    return found


def _polyline(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _round_numbers(low: float, high: float) -> list[float]:
    """Three to six multiples of 1, 2 or 5 times a power of ten that lie around [low, high]."""
    rough = (high - low) / 3
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough)
    first = math.floor(low / step)
    last = math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def _label(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
