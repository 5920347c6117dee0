"""One row of the comparison: ours, the peer, their ratio, what is required, and the share of the machine's limit."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.shapes import Shape

# (required, moonshot) by what and size: how many times the peer's default. docs/speed.md says where they come from.
GOALS = {
    "generate 1m 1": (2.5, 15), "generate 1m 8": (2, 10), "generate 1m 64": (2, 8),
    "generate 10m 1": (1.5, 8), "generate 10m 8": (2, 8), "generate 10m 64": (3, 8),
    "generate 50m 1": (1.8, 4), "generate 50m 8": (2, 6),
    "generate 124m 1": (1.5, 4), "generate 124m 8": (2, 8),
    "preference 1m": (3, 7), "preference 10m": (2.5, 8), "preference 124m": (2.5, 4),
    "policy 1m": (2.5, 6), "policy 10m": (3, 6),
}  # fmt: skip
HEADINGS = (
    "work",
    "ours",
    "peer",
    "ratio",
    "least..most",
    "cpu",
    "required",
    "moonshot",
    "of fp32",
    "of bf16",
    "MB ours",
    "peer",
    "others",
)
WIDTHS = (30, 10, 10, 7, 13, 6, 8, 8, 8, 8, 8, 7, 6)


def forward(shape: Shape, lengths: list[int], head_tokens: int = 0) -> float:
    """Operations of one forward pass: two a weight and token, causal attention, the vocabulary head on some tokens."""
    attention = sum(2 * shape.layers * shape.width * length * length for length in lengths)
    return 2.0 * shape.body * sum(lengths) + attention + 2.0 * shape.head * head_tokens


def heading(title: str) -> None:
    """Print the name and the column heads."""
    print(f"\n{title}")
    print(" ".join(f"{name:>{width}}" for name, width in zip(HEADINGS, WIDTHS, strict=True)))


class Report:
    """All rows of a run; printed as they come and written whole to --json."""

    def __init__(self, what: str, unit: str, given: argparse.Namespace, limits: dict[str, Any]) -> None:
        self.what, self.path = what, given.json
        self.found: dict[str, Any] = {
            "what": what, "unit": unit, "at": time.strftime("%Y-%m-%d %H:%M"), "limits": limits,
            "settings": {name: str(value) for name, value in vars(given).items()}, "rows": [],
        }  # fmt: skip
        heading(f"{what}, {unit} (at the start: fp32 {limits['fp32']:,.0f}, bf16 {limits['bf16']:,.0f} GFLOP/s)")

    def add(
        self,
        name: str,
        found: dict[str, Any],
        count: float,
        least_seconds: dict[str, float],
        *,
        goal: str = "",
        ours: str = "ours",
    ) -> None:
        """Print a row for each peer in `found` beside `ours`. `count`: units of a turn; `least_seconds` at the limit, by precision."""
        mine = found[ours]
        for peer, theirs in found.items():
            if not isinstance(theirs, dict) or peer in (ours, "limits"):
                continue
            required, moonshot = GOALS.get(goal or name, (None, None)) if peer.endswith("default") else (None, None)
            row = {
                "work": f"{name}, {peer}", "ours": count / mine["seconds"], "peer": count / theirs["seconds"],
                "ratio": theirs["ratio"], "ratio_least": theirs["ratio_least"], "ratio_most": theirs["ratio_most"], "cpu_ratio": theirs["cpu_ratio"],
                "required": required, "moonshot": moonshot,
                "share_of_limit": {kind: least / mine["seconds"] for kind, least in least_seconds.items()},
                "peak_mb": mine["peak_mb"], "peer_peak_mb": theirs["peak_mb"],
                "others_share": found["others_share"], "limits": found["limits"], "turns": {"ours": mine, "peer": theirs},
            }  # fmt: skip
            self.found["rows"].append(row)
            cells = (
                row["work"], f"{row['ours']:,.2f}", f"{row['peer']:,.2f}", f"{row['ratio']:.2f}",
                f"{row['ratio_least']:.2f}..{row['ratio_most']:.2f}", f"{row['cpu_ratio']:.2f}", required or "-", moonshot or "-",
                *(f"{row['share_of_limit'][kind]:.1%}" for kind in ("fp32", "bf16")),
                f"{row['peak_mb']:,.0f}", f"{row['peer_peak_mb']:,.0f}", f"{row['others_share']:.0%}",
            )  # fmt: skip
            print(" ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)), flush=True)
        if self.path:
            Path(self.path).write_text(json.dumps(self.found, indent=1))


def parser(description: str | None, sizes: str) -> argparse.ArgumentParser:
    """Return the options that all comparisons have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--sizes", default=sizes, help="1m,10m,50m,124m; with --device cuda 0.5b,7b")
    made.add_argument("--rounds", type=int, default=5, help="turns of each side")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--json", type=Path, help="write everything here")
    made.add_argument("--quick", action="store_true", help="the smallest size alone")
    made.add_argument("--serve", help=argparse.SUPPRESS)  # a side's own process
    return made
