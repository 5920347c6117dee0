"""`python -m training.sqrt_kl FOLDER`: scores against √KL, which the score's gain follows in a line (Bai et al. 2022 §4.3).

From the metrics.jsonl of policy runs (`runs`), or by sampling `snapshots` on data/prompts.jsonl, or both. Writes sqrt_kl.png
and .json; result.json has each line with its R² and its range, and R² against KL itself.
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from training.config import BadConfig, SqrtKlConfig, required
from training.failure import JobFailed
from training.job import run_command, start
from training.measuring.field import Field
from training.runs.curves import sqrt_kl_law
from training.runs.plots import Series, plot
from training.runs.run_folder import RunFolder


def points_of_run(path: str) -> tuple[list[float], list[float], int]:
    """Return (KL, mean score) of each iteration that trained the policy, and how many KL estimates were below 0 and left out."""
    lines = [line for line in RunFolder(path).metrics() if "kl" in line and "score_mean" in line]
    lines = [line for line in lines if not line.get("critic_only")]
    if not lines:
        raise JobFailed(f"{path} has no metrics.jsonl of a policy run with kl and score_mean; give the folder of one")
    kept = [line for line in lines if line["kl"] >= 0]
    return [line["kl"] for line in kept], [line["score_mean"] for line in kept], len(lines) - len(kept)


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sqrt_kl",
        description="Fit a line to scores against the square root of the KL, over a run's metrics or over snapshots.",
        epilog="Example: whetstone train sqrt_kl my-curve --runs my-policy other-policy --most 4",
    )
    parser.add_argument("folder", help="run folder; data/prompts.jsonl is read for snapshots alone")
    parser.add_argument("--runs", nargs="+", help="folders of policy runs, DIR or NAME=DIR")
    parser.add_argument("--snapshots", nargs="+", help="policies, DIR or NAME=DIR, the initial policy first")
    parser.add_argument("--preference-model", help="directory of the preference model that scores the snapshots")
    parser.add_argument("--least", type=float, help="where the fitted range of the square root begins")
    parser.add_argument("--most", type=float, help="where it ends")
    return run_command("sqrt_kl", parser, arguments, _sqrt_kl)


def _sqrt_kl(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config, began = start(folder, SqrtKlConfig, "sqrt_kl", given), time.monotonic()
    if not config.runs and not config.snapshots:
        raise BadConfig("runs and snapshots are both missing: name folders of policy runs, or directories of policies")
    measured = len(config.snapshots)
    of = measured + len(config.runs) + bool(measured)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    negative: dict[str, int] = {}
    for name, path in config.run_paths().items():
        kl, score, negative[name] = points_of_run(path)
        curves[name] = kl, score
    if config.snapshots:
        required(config, "preference_model")
        found = Field(folder, config, {"score": config.preference_model}, 3).measure(of)
        kl = [sum(numbers["kl"]) / len(numbers["kl"]) for numbers in found.values()]
        score = [sum(numbers["score"]) / len(numbers["score"]) for numbers in found.values()]
        negative["snapshots"] = sum(one < 0 for one in kl)
        kept = [(one, other) for one, other in zip(kl, score, strict=True) if one >= 0]
        curves["snapshots"] = [one for one, _ in kept], [other for _, other in kept]
    else:
        folder.cut_metrics(-1)  # written anew, as parts do
    series, rows = [], []
    for name, (kl, score) in curves.items():
        root = [math.sqrt(one) for one in kl]
        lines = sqrt_kl_law(kl, score, config.least, config.most)
        line = lines["sqrt_kl"]
        series.append(Series(name, root, score, line=False))
        if line is not None:
            ends = [line["least"], line["most"]]
            fit = [line["intercept"] + line["slope"] * end for end in ends]
            series.append(Series(f"{name}: R² = {line['r_squared']:.3f}", ends, fit, points=False))
        rows.append({"curve": name, "kl_below_zero": negative[name], "line": line, "line_against_kl": lines["kl"]})
        told = {"points": len(root)} if line is None else dict(line)
        folder.log(step=measured + len(rows), of=of, curve=name, kl_below_zero=negative[name], **told)
    plot(folder.path / "sqrt_kl", "Score against √KL", "√KL from the initial policy (√nats)", "mean score", series)
    return {"curves": rows, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
