"""Plots of what a job measured: one picture NAME.png, and NAME.json with every number in it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.processes import ranks
from training.runs import files


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one curve; `low` and `high` are the bounds of each point's 95% interval, where it has one."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    line: bool = True  # False: points alone
    points: bool = True


def plot(
    path: Path, title: str, x_label: str, y_label: str, series: Sequence[Series], *, names: Sequence[str] = ()
) -> None:
    """Write `path` as PNG and the numbers beside it as JSON; the same numbers give the same bytes.

    `names` stand at x = 0, 1, … where what is measured has names and no order.
    """
    if not ranks.leads():
        return
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if names:
        axes.set_xticks(range(len(names)), names)
    for some in series:
        marker, style = ("o" if some.points else ""), ("-" if some.line else "")
        (drawn,) = axes.plot(some.x, some.y, marker=marker, linestyle=style, markersize=4, label=some.label)
        if some.low is not None and some.high is not None:
            if some.points:
                axes.vlines(some.x, some.low, some.high, color=drawn.get_color(), alpha=0.6)
            else:
                axes.fill_between(some.x, some.low, some.high, color=drawn.get_color(), alpha=0.15)
    if series:
        axes.legend(fontsize="small")
    figure.savefig(path.with_suffix(".png"), dpi=120, metadata={"Software": None})
    files.write_json(
        path.with_suffix(".json"),
        {"title": title, "x": x_label, "y": y_label, "series": [dataclasses.asdict(some) for some in series]}
        | ({"names": list(names)} if names else {}),
    )
