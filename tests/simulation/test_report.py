"""The report says what the rows say, in characters and as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from rich.console import Console

from simulation import report

ROUNDS = [
    {"round": 0, "comparisons": 0, "pm_accuracy": None, "pm_accuracy_ci95": None, "calibration_error": None, "kl": 0.0,
     "judge_win_rate": 0.5, "judge_win_rate_ci95": [0.4, 0.6], "seconds": 3.0},
    {"round": 1, "comparisons": 300, "pm_accuracy": 0.72, "pm_accuracy_ci95": [0.6, 0.81], "calibration_error": 0.05, "kl": 4.25,
     "judge_win_rate": 0.8, "judge_win_rate_ci95": [0.7, 0.9], "seconds": 150.0},
]  # fmt: skip


def test_table_has_the_numbers() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(report.table(ROUNDS))
    text = console.export_text()
    for part in ("300", "72.0% (60–81)", "0.050", "80.0% (70–90)"):
        assert part in text


def test_terminal_plot_puts_marks_where_they_belong() -> None:
    lines = report.terminal_plot(ROUNDS, width=101).splitlines()
    start = len("round  0  ")
    assert lines[1][start + 50] == "●"
    assert (lines[2][start + 70], lines[2][start + 72], lines[2][start + 80], lines[2][start + 90]) == (
        "├",
        "○",
        "●",
        "┤",
    )


def test_picture_is_written(tmp_path: Path) -> None:
    report.save_png(ROUNDS, tmp_path / "new" / "plot.png")
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.size[0] > 1000
