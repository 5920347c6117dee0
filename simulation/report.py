"""The demo's outcome for eyes: a table, a plot in the terminal and the same as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
from matplotlib import pyplot as plt

Json = dict[str, Any]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f" [dim]({100 * bounds[0]:.0f}–{100 * bounds[1]:.0f})[/dim]"


def table(rounds: list[Json]) -> Table:
    """One line a round; in brackets 95% intervals."""
    found = Table(title="Rounds", caption="Round 0 is the starter. The judge is hidden from training.")
    for heading in (
        "round",
        "comparisons",
        "PM accuracy",
        "calibration error",
        "KL (nats)",
        "preferred to the starter",
        "seconds",
    ):
        found.add_column(heading, justify="right")
    for row in rounds:
        found.add_row(
            str(row["round"]),
            str(row["comparisons"]),
            _share(row["pm_accuracy"]) + _interval(row["pm_accuracy_ci95"]),
            "–" if row["calibration_error"] is None else f"{row['calibration_error']:.3f}",
            f"{row['kl']:.1f}",
            _share(row["judge_win_rate"]) + _interval(row["judge_win_rate_ci95"]),
            f"{row['seconds']:.0f}",
        )
    return found


def terminal_plot(rounds: list[Json], width: int = 60) -> str:
    """Shares of 0-100% on a line each, by round: ● the hidden judge's win rate with its interval ├─┤, ○ the PM's accuracy."""

    def column(share: float) -> int:
        return round(share * (width - 1))

    lines = ["● preferred to the starter (├─┤ 95% interval)   ○ PM accuracy on held-out comparisons"]
    for row in rounds:
        cells = [" "] * width
        for mark in (0.0, 0.5, 1.0):
            cells[column(mark)] = "·"
        low, high = (column(bound) for bound in row["judge_win_rate_ci95"])
        cells[low : high + 1] = ["─"] * (high + 1 - low)
        cells[low], cells[high] = "├", "┤"
        if row["pm_accuracy"] is not None:
            cells[column(row["pm_accuracy"])] = "○"
        cells[column(row["judge_win_rate"])] = "●"
        lines.append(f"round {row['round']:>2}  {''.join(cells)}")
    scale = [" "] * (width + 3)
    for mark, label in ((0.0, "0%"), (0.5, "50%"), (1.0, "100%")):
        at = max(0, column(mark) - len(label) // 2)
        scale[at : at + len(label)] = label
    lines.append("          " + "".join(scale).rstrip())
    return "\n".join(lines)


def save_png(rounds: list[Json], path: Path) -> None:
    """Two panels: what the judge and the PM say by round, and the judge's win rate against KL."""
    numbers = [row["round"] for row in rounds]
    wins = [100 * row["judge_win_rate"] for row in rounds]
    below = [wins[at] - 100 * row["judge_win_rate_ci95"][0] for at, row in enumerate(rounds)]
    above = [100 * row["judge_win_rate_ci95"][1] - wins[at] for at, row in enumerate(rounds)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    left.errorbar(
        numbers, wins, yerr=[below, above], marker="o", capsize=3, label="preferred to the starter by the hidden judge"
    )
    measured = [row for row in rounds if row["pm_accuracy"] is not None]
    if measured:
        accuracy = [100 * row["pm_accuracy"] for row in measured]
        low = [100 * (row["pm_accuracy"] - row["pm_accuracy_ci95"][0]) for row in measured]
        high = [100 * (row["pm_accuracy_ci95"][1] - row["pm_accuracy"]) for row in measured]
        left.errorbar(
            [row["round"] for row in measured],
            accuracy,
            yerr=[low, high],
            marker="s",
            capsize=3,
            label="PM accuracy, held out",
        )
    left.axhline(50, color="grey", linewidth=0.8)
    left.set(xlabel="round", ylabel="%", ylim=(40, 100), xticks=numbers)
    left.legend(loc="lower right", fontsize=8)
    right.errorbar([row["kl"] for row in rounds], wins, yerr=[below, above], marker="o", capsize=3)
    for row, win in zip(rounds, wins, strict=True):
        right.annotate(f" {row['round']}", (row["kl"], win))
    right.set(xlabel="KL from the starter, nats a reply", ylabel="preferred to the starter, %", ylim=(40, 100))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def show(rounds: list[Json], png: Path, console: Console) -> None:
    """Print the table and the plot, and say where the picture is."""
    console.print(table(rounds))
    console.print(terminal_plot(rounds), markup=False, highlight=False)
    console.print(f"Picture: {png}")
