"""`python -m training.robustness FOLDER`: scores of the same replies under the preference model that a policy was trained
against and under one that it was not (Bai et al. 2022 §4.2): where they part, the policy exploits the first.

`snapshots` are those of one training, the initial policy first. Each model's mean score of the initial policy's replies, on
prompts that serve for nothing else, is its 0. Reads data/prompts.jsonl; writes robustness.png and .json, and result.json.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from training.config import RobustnessConfig
from training.data.prompts import Prompt, hold_out
from training.failure import JobFailed
from training.intervals import Z95
from training.job import run_command, start
from training.measuring.contest import mean_ci95
from training.measuring.field import Field
from training.runs.curves import sqrt_kl_law
from training.runs.plots import Series, plot
from training.runs.run_folder import RunFolder

JUDGES = {"train": "score", "test": "test_score"}


def centring(prompts: Sequence[Prompt], share: float) -> list[bool]:
    """Which prompts say where 0 is; conversations with the same first message stay together."""
    _, out = hold_out(list(prompts), share)
    aside = {id(prompt) for prompt in out}
    return [id(prompt) in aside for prompt in prompts]


def parted(
    found: Mapping[str, Mapping[str, Any]], scales: Mapping[str, float], aside: Sequence[bool]
) -> list[dict[str, Any]]:
    """Each snapshot's mean centred score under both models, in nats of log-odds, and the gap between them, with intervals."""
    held = torch.tensor(aside)
    if bool(held.all()) or not bool(held.any()):
        raise JobFailed("the prompts all begin with the same message, so none can be put aside to centre the scores")
    start = _in_nats(next(iter(found.values())), scales)
    zero = {key: float(score[held].mean()) for key, score in start.items()}
    # 0 is a mean over a sample too; all of the reference's replies tell how wide it scatters
    error = {key: float(score.std()) / math.sqrt(int(held.sum())) for key, score in start.items()}
    rows = []
    for snapshot, numbers in found.items():
        row: dict[str, Any] = {"snapshot": snapshot}
        for key, score in _in_nats(numbers, scales).items():
            mean, (_, high) = mean_ci95(score[~held] - zero[key])
            reach = math.hypot(high - mean, Z95 * error[key])
            row[key], row[f"{key}_ci95"] = mean, [mean - reach, mean + reach]
        row["kl"], row["kl_ci95"] = mean_ci95(torch.tensor(numbers["kl"])[~held])
        rows.append(row)
    return rows


def _in_nats(numbers: Mapping[str, Any], scales: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """Each reply's score under both models, and by how much the first is higher, in nats of log-odds.  -> [P] each"""
    found = {
        f"{who}_score": torch.tensor(numbers[name], dtype=torch.float64) * scales[name] for who, name in JUDGES.items()
    }
    return found | {"gap": found["train_score"] - found["test_score"]}


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.robustness",
        description="Scores along a training under the preference model it was trained against and under another.",
        epilog="Example: whetstone train robustness my-check --snapshots training/starter/model early/model late/model "
        "--preference-model half-0/model --test-preference-model half-1/model",
    )
    parser.add_argument("folder", help="run folder with config.json and data/prompts.jsonl")
    parser.add_argument("--snapshots", nargs="+", help="policies, DIR or NAME=DIR, the initial policy first")
    parser.add_argument("--preference-model", help="directory of the one that they were trained against")
    parser.add_argument("--test-preference-model", help="directory of one that they were not")
    return run_command("robustness", parser, arguments, _robustness)


def _robustness(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config = start(folder, RobustnessConfig, "robustness", given, "preference_model", "test_preference_model")
    field = Field(folder, config, {"score": config.preference_model, "test_score": config.test_preference_model}, 2)
    aside = centring(field.prompts, config.centring_share)
    found = field.measure()
    rows = parted(found, {name: pm.scale for name, pm in field.judges.models.items()}, aside)
    kl = [row["kl"] for row in rows]
    root = [math.sqrt(max(one, 0.0)) for one in kl]
    series = []
    for key, label in (("train_score", "train"), ("test_score", "test"), ("gap", "train − test")):
        low, high = ([row[f"{key}_ci95"][side] for row in rows] for side in (0, 1))
        series.append(Series(label, root, [row[key] for row in rows], low, high))
    plot(
        folder.path / "robustness",
        "Two preference models",
        "√KL (√nats)",
        "score over the initial policy's (nats)",
        series,
    )
    return {
        "snapshots": rows,
        "train_line": sqrt_kl_law(kl, [row["train_score"] for row in rows])["sqrt_kl"],
        "test_line": sqrt_kl_law(kl, [row["test_score"] for row in rows])["sqrt_kl"],
        "prompts": len(field.prompts) - sum(aside),
        "centring_prompts": sum(aside),
        "left_out": field.left_out,
        "seconds": sum(numbers["seconds"] for numbers in found.values()),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
