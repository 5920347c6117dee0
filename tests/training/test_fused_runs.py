"""Whole runs through fused passes with kernels, fused passes in torch, and the modules' own forward: the same curves.

Rounding differs in the last bits and Adam divides by small numbers, so the curves may part slowly: a relative 2e-3 over the
few updates here, while a wrong mask, position or gradient shows in the first digit.
"""

import json
from pathlib import Path

import pytest

from tests.training.policy_runs import folder_of, run_of
from tests.training.test_preference import comparisons, make_folder
from training.native import passing
from training.preference import main
from training.runs.run_folder import RunFolder

WAYS = ("kernels", "torch", "plain")


def choose(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHETSTONE_FUSED", "0" if way == "plain" else "1")
    if way != "kernels":
        monkeypatch.setattr(passing, "kernels", lambda: None)


def agree(curves: list[list[dict[str, float]]], names: tuple[str, ...]) -> None:
    first, *others = curves
    assert len(first) > 1
    for other in others:
        assert len(other) == len(first)
        for mine, theirs in zip(first, other, strict=True):
            for name in names:
                assert theirs[name] == pytest.approx(mine[name], rel=2e-3, abs=2e-4), (name, mine["step"])


def test_a_preference_model_learns_the_same(tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves, results = [], []
    for way in WAYS:
        with monkeypatch.context() as patch:
            choose(way, patch)
            path = make_folder(tmp_path / way, comparisons(96), comparisons(16, seed=1), threads=1)
            assert main([str(path), "--model", str(tiny_policy)]) == 0
        curves.append(RunFolder(path).metrics())
        results.append(json.loads((path / "result.json").read_text()))
    agree(curves, ("loss", "margin", "grad_norm"))
    assert all(result["log_loss"] == pytest.approx(results[0]["log_loss"], rel=2e-3) for result in results)


@pytest.mark.parametrize("critic", ["pm", "shared"])
def test_a_policy_learns_the_same(
    critic: str, tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = []
    for way in WAYS:
        with monkeypatch.context() as patch:
            choose(way, patch)
            run = run_of(folder_of(tmp_path / way, tiny_policy, pm_path, critic=critic, learning_rate=3e-4))
            curves.append([run.iterate(iteration) | {"step": iteration + 1} for iteration in range(3)])
    names = ("score_mean", "kl", "policy_loss", "value_loss", "policy_grad_norm", "critic_grad_norm", "entropy")
    agree(curves, names)
