"""Win rates by hand, and a policy held against itself and against one that learnt."""

import json
from pathlib import Path

import pytest
import torch

from training import evaluate
from training.evaluate import mean_ci95, win_rate
from training.models import PreferenceModel


def test_win_rate_counts_ties_half_with_the_wilson_interval() -> None:
    share, (low, high) = win_rate(torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 2.0, 1.0, 5.0]))
    assert share == 0.625
    assert low < 0.625 < high
    share, (low, high) = win_rate(torch.ones(100), torch.zeros(100))
    assert (share, high) == pytest.approx((1.0, 1.0))
    assert low == pytest.approx(100 / (100 + 1.96**2))  # Wilson at p = 1: n / (n + z²)


def test_mean_and_its_interval() -> None:
    mean, (low, high) = mean_ci95(torch.tensor([1.0, 3.0]))
    assert mean == 2.0
    assert high - mean == pytest.approx(1.96) == mean - low  # deviation √2 over √2
    assert mean_ci95(torch.tensor([4.0])) == (4.0, [4.0, 4.0])


def folder(path: Path, **settings: object) -> Path:
    (path / "data").mkdir(parents=True)
    lines = [json.dumps({"prompt": f"Question {n}"}) for n in range(12)]
    (path / "data/prompts.jsonl").write_text("\n".join(lines))
    (path / "config.json").write_text(json.dumps({"max_new_tokens": 8, "slots": 4, **settings}))
    return path


def test_a_policy_against_itself(tmp_path: Path, tiny_policy: Path) -> None:
    pm, tokenizer = PreferenceModel.from_policy(tiny_policy, seed=3)
    pm.save(tmp_path / "pm", tokenizer)
    path = folder(tmp_path / "run", model=str(tiny_policy), opponent=str(tiny_policy))
    assert evaluate.main([str(path), "--preference-model", str(tmp_path / "pm")]) == 0
    result = json.loads((path / "result.json").read_text())
    assert result["prompts"] == 12
    assert result["kl"] == pytest.approx(0, abs=1e-4)
    assert result["win_rate_ci95"][0] < 0.5 < result["win_rate_ci95"][1]
    assert 1 <= result["length_mean"] <= 8


def test_a_missing_directory_is_named(tmp_path: Path, tiny_policy: Path) -> None:
    path = folder(tmp_path / "run", model=str(tiny_policy))
    assert evaluate.main([str(path)]) == 2
    assert "opponent" in json.loads((path / "failure.json").read_text())["reason"]
