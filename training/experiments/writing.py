"""What every experiment does with its findings: a table on the screen, numbers as JSON, a plot, and its page in docs/experiments/.

A page is written by hand around one block, between the two marks below, which each run writes anew.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from training.runs.run_folder import code_version

mpl.use("Agg")
PAGES = Path(__file__).resolve().parents[2] / "docs" / "experiments"
BEGIN, END = "<!-- what the last run found -->", "<!-- end of what the last run found -->"


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line of every experiment."""

    quick: bool
    seeds: int
    out: Path | None  # None: nothing is written
    threads: int = 1  # of torch, in each process
    processes: int = 1  # seeds at once

    @classmethod
    def read(
        cls, name: str, about: str | None, *, seeds: int, arguments: Sequence[str] | None = None, at_once: bool = True
    ) -> Self:
        """Parse `arguments` (None: the command line).

        `seeds` is the default number of repetitions; `at_once`: whether they go by `each_seed`, which does several at once.
        """
        parser = argparse.ArgumentParser(
            prog=f"python -m training.experiments.{name}", description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        parser.add_argument("--quick", action="store_true", help="a shortened form: shows that it runs, nothing else")
        parser.add_argument("--seeds", type=int, default=seeds, help=f"repetitions (default {seeds})")
        parser.add_argument(
            "--out", type=Path, help="folder for NAME.md, NAME.json and NAME.png (default docs/experiments)"
        )
        parser.add_argument("--threads", type=int, default=1, help="torch threads; tiny models gain nothing by more")
        if at_once:
            parser.add_argument("--processes", type=int, help="seeds at once (default: as there are cores)")
        given = parser.parse_args(arguments)
        for flag, number in vars(given).items():
            if flag in {"seeds", "threads", "processes"} and number is not None and number < 1:
                parser.error(f"--{flag} must be at least 1")
        torch.set_num_threads(given.threads)
        seeds = 1 if given.quick else given.seeds
        processes = (given.processes or max(1, cores() // given.threads)) if at_once else 1
        return cls(
            quick=given.quick,
            seeds=seeds,
            out=given.out or (None if given.quick else PAGES),
            threads=given.threads,
            processes=min(processes, seeds),
        )


def cores() -> int:
    """The cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Claim:
    """What was expected, and whether these runs show it."""

    text: str
    held: bool
    found: str  # the numbers that decide


def student_within(t: float, freedom: int) -> float:
    """P(|T| < t) for Student's t with `freedom` degrees: finite sums (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2 == 1
    total, term = 0.0, math.cos(angle) if odd else 1.0
    for power in range(int(odd), freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


@functools.cache
def student_factor(freedom: int) -> float:
    """Half the width of a 95% interval in standard errors, by bisection: no quantile of Student's t is in Python's library."""
    low, high = 1.0, 13.0  # 12.706 with one degree of freedom is the largest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_within(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return (mean, half width of its 95% interval by Student's t over seeds); one value has no interval: nan."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, student_factor(len(values) - 1) * deviation / math.sqrt(len(values))


def differences(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """One less other within each seed: what the seeds share drops out."""
    return [one - other for one, other in zip(ones, others, strict=True)]


def surely_above(values: Sequence[float]) -> bool:
    """Whether the whole interval lies above 0; of one seed the value itself."""
    mean, half = interval(values)
    return mean > (0.0 if math.isnan(half) else half)


def surely_within(values: Sequence[float], bound: float) -> bool:
    """Whether the whole interval lies within ±bound: an interval that merely reaches 0 is no evidence of equality."""
    return surely_above([bound - value for value in values]) and surely_above([bound + value for value in values])


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Return "mean ± half width" over seeds."""
    mean, half = interval(values)
    return f"{mean:.{digits}f}" if math.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of equal keys as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows)])


class Findings:
    """Collects what one experiment found and writes it all at the end."""

    def __init__(self, name: str, options: Options) -> None:
        self.name, self.options = name, options
        self.began, self.code = time.monotonic(), code_version()  # the sources may have changed when the run ends

    def write(
        self, *, rows: Sequence[dict[str, Any]], claims: Sequence[Claim], numbers: Any, draw: Callable[[Figure], None]
    ) -> None:
        """Print the table and the claims; write NAME.json, NAME.png and the block of NAME.md into the folder.

        `rows` is the table, `numbers` everything measured (per seed), `draw` paints the plot.
        """
        seconds = time.monotonic() - self.began
        told = "\n".join(
            f"- **{'held' if claim.held else 'failed'}**: {claim.text} ({claim.found})" for claim in claims
        )
        split = f"{self.options.processes} process(es) of {self.options.threads} thread(s)"
        where = f"{platform.machine()}, {split}, torch {torch.__version__}"
        ran = f"{self.options.seeds} seed(s), {seconds:.0f} s, {where}" + (
            " — QUICK FORM" if self.options.quick else ""
        )
        print(f"{table(rows)}\n\n{told}\n\n{ran}")
        out = self.options.out
        if out is None:
            return
        out.mkdir(parents=True, exist_ok=True)
        kept = {"experiment": self.name, "quick": self.options.quick, "seeds": self.options.seeds, "seconds": seconds,
                "processes": self.options.processes, "code_version": self.code,
                "claims": [dataclasses.asdict(claim) for claim in claims], "rows": list(rows), "numbers": numbers}  # fmt: skip
        (out / f"{self.name}.json").write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        draw(figure)
        figure.savefig(out / f"{self.name}.png", dpi=100, metadata={"Software": None})
        block = f"{BEGIN}\n{table(rows)}\n\n{told}\n\n![{self.name}]({self.name}.png)\n\n*{ran}*\n{END}"
        page = out / f"{self.name}.md"
        text = page.read_text(encoding="utf-8") if page.exists() else f"# {self.name}\n\n{BEGIN}\n{END}\n"
        if BEGIN not in text or END not in text:
            raise SystemExit(f"{page} has lost its marks {BEGIN!r} and {END!r}; put them back where the figures belong")
        before, after = text.split(BEGIN, 1)[0], text.split(END, 1)[1]
        page.write_text(before + block + after, encoding="utf-8")
