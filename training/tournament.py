"""`python -m training.tournament FOLDER`: every policy against every other on the same prompts, under a preference model.

Win rates of each pair, Elo by maximum likelihood with the first snapshot at 0 (Bai et al. 2022 §2.4, App. B.5), scores, KL.
Reads data/prompts.jsonl; writes tournament.png and .json, and result.json.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training import objective
from training.config import TournamentConfig
from training.intervals import Z95
from training.job import run_command, start
from training.measuring.contest import win_rate
from training.measuring.field import Field, standing
from training.runs.plots import Series, plot
from training.runs.run_folder import RunFolder


def wins_table(score: Tensor) -> Tensor:
    """How often each beats each on each prompt, a tie half.  [M, P] -> [P, M, M]"""
    by_prompt = score.T
    return objective.wins(by_prompt[:, :, None] - by_prompt[:, None, :])


def ratings(score: Tensor) -> list[dict[str, Any]]:
    """Elo of each over the first from the scores of its replies to the same prompts.  [M, P]"""
    return ratings_of(wins_table(score))


def ratings_of(wins: Tensor) -> list[dict[str, Any]]:
    """Elo of each over the first, in points, by maximum likelihood from the wins of all pairs.  [P, M, M]

    `elo_error` is the likelihood's own standard error, as in the paper; `elo_ci95` allows for the games of one prompt
    depending on each other. None for whoever wins or loses every time against all that the reference can be held against
    (`objective.comparable`): the others keep theirs.
    """
    rows: list[dict[str, Any]] = [{"elo": None, "elo_error": None, "elo_ci95": None} for _ in wins[0]]
    rows[0] = {"elo": 0.0, "elo_error": 0.0, "elo_ci95": [0.0, 0.0]}
    players = objective.comparable(wins.sum(0))
    if len(players) == 1:
        return rows
    wins = wins[:, players][:, :, players]
    fitted = objective.fitted_strengths(wins.sum(0))
    points = (fitted.strength * objective.POINTS_A_NAT).tolist()
    errors = (fitted.covariance.diagonal().sqrt() * objective.POINTS_A_NAT).tolist()
    clustered = objective.clustered_covariance(wins, fitted) if len(wins) > 1 else fitted.covariance
    reach = (Z95 * clustered.diagonal().clamp_min(0).sqrt() * objective.POINTS_A_NAT).tolist()
    for player, elo, error, wide in zip(players, points, errors, reach, strict=True):
        rows[player] = {"elo": elo, "elo_error": error, "elo_ci95": [elo - wide, elo + wide]}
    return rows


def pairings(names: Sequence[str], score: Tensor) -> list[dict[str, Any]]:
    """Win rate of the later snapshot of each pair over the earlier one.  [M, P]"""
    found = []
    for one, other in itertools.combinations(range(len(names)), 2):
        share, interval = win_rate(score[other], score[one])
        found.append({"snapshot": names[other], "opponent": names[one], "win_rate": share, "win_rate_ci95": interval})
    return found


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.tournament",
        description="Win rates between any number of policies under a preference model, and their Elo.",
        epilog="Example: whetstone train tournament my-table --preference-model my-pm/model "
        "--snapshots start=training/starter/model week-1=my-policy/model",
    )
    parser.add_argument("folder", help="run folder with config.json and data/prompts.jsonl")
    parser.add_argument("--snapshots", nargs="+", help="policies, DIR or NAME=DIR, the reference first")
    parser.add_argument("--preference-model", help="directory of the preference model that judges")
    parser.add_argument("--test-preference-model", help="directory of another one, for a second table")
    return run_command("tournament", parser, arguments, _tournament)


def _tournament(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config = start(folder, TournamentConfig, "tournament", given, "preference_model")
    judges = {"score": config.preference_model, "test_score": config.test_preference_model}
    field = Field(folder, config, judges, 2)
    found = field.measure()
    rows = [{"snapshot": name} | standing(numbers) for name, numbers in found.items()]
    pairs = {}
    for name, pm in field.judges.models.items():
        score = torch.tensor([numbers[name] for numbers in found.values()], dtype=torch.float64)
        before = name.removesuffix("score")
        for row, rating, own in zip(rows, ratings(score), score, strict=True):
            row |= {before + key: value for key, value in rating.items()}
            # what the scores alone would foretell ([Bai] App. B.4): raw scores are log-odds, 174 points a nat
            row[f"{before}elo_of_scores"] = float((own.mean() - score[0].mean()) * pm.scale) * objective.POINTS_A_NAT
        pairs[f"{before}pairs"] = pairings(field.names, score)
    _paint(folder, rows)
    return {"snapshots": rows, **pairs, "prompts": len(field.prompts), "left_out": field.left_out,
            "seconds": sum(numbers["seconds"] for numbers in found.values())}  # fmt: skip


def _paint(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw Elo against √KL, by wins and as the scores would foretell it."""
    series = []
    for before, who in (("", "preference model"), ("test_", "test preference model")):
        rated = [row for row in rows if row.get(f"{before}elo") is not None]
        root = [math.sqrt(max(row["kl"], 0.0)) for row in rated]
        if rated:
            low, high = ([row[f"{before}elo_ci95"][side] for row in rated] for side in (0, 1))
            series.append(Series(f"wins, {who}", root, [row[f"{before}elo"] for row in rated], low, high, line=False))
        foretold = [row for row in rows if f"{before}elo_of_scores" in row]
        if foretold:
            root = [math.sqrt(max(row["kl"], 0.0)) for row in foretold]
            points = [row[f"{before}elo_of_scores"] for row in foretold]
            series.append(Series(f"174 · mean score, {who}", root, points, line=False))
    plot(folder.path / "tournament", "Elo", "√KL from the reference (√nats)", "Elo over the reference", series)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
