"""The ood job: which prompts are strange to a policy, at every layer, and a run that is killed."""

import json
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.results import names_of, reason_of, result_of, run_folder
from training import ood
from training.config import OodConfig
from training.data.prompts import hold_out
from training.models.snapshots import load_policy, render
from training.ood import activations, area_ci95, layer_report, probe

USUAL = [{"prompt": f"what is {n} plus {n + 1}?"} for n in range(24)]
STRANGE = [{"prompt": "ZQ" * n + "!!"} for n in range(3, 15)]


def test_a_run_and_one_that_is_killed(tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"model": str(tiny_policy), "few_shot": [1, 4], "draws": 3, "batch_prompts": 5}
    path = run_folder(tmp_path / "run", given, inliers=USUAL, outliers=STRANGE)
    assert ood.main([str(path)]) == 0
    result = result_of(path)
    assert names_of(result) <= documented()
    assert [row["layer"] for row in result["layers"]] == [1, 2]
    for row in result["layers"]:
        assert row["mahalanobis_ci95"][0] <= row["mahalanobis"] <= row["mahalanobis_ci95"][1]
        assert row["few_shot"][1]["auroc"] > 0.9  # capitals beside small letters: easy to show
    fitted, held = hold_out([[{"role": "user", "content": line["prompt"]}] for line in USUAL], 0.3)
    assert (result["inliers"], result["held_out_inliers"]) == (len(fitted), len(held)) and len(fitted) > len(held)
    assert len(fitted) + len(held) == 24 and result["outliers"] == 12
    assert len(json.loads((path / "ood.json").read_text())["series"]) == 4

    again, passes = (
        run_folder(tmp_path / "again", given | {"checkpoint_seconds": 0.0}, inliers=USUAL, outliers=STRANGE),
        [],
    )

    def killed(*arguments):
        passes.append(1)
        if len(passes) == 4:
            raise KeyboardInterrupt
        return activations(*arguments)

    monkeypatch.setattr(ood, "activations", killed)
    assert ood.main([str(again)]) == 130
    assert ood.main([str(again)]) == 0
    assert len(passes) == 9  # eight batches in all; the fourth was tried twice
    assert result_of(again) | {"seconds": 0} == result | {"seconds": 0}


def test_activations_are_those_of_the_last_token_alone(any_policy: Path) -> None:
    model, tokenizer = load_policy(any_policy)
    prompts = [render(tokenizer, [{"role": "user", "content": text}]) for text in ("elm", "which tree is tallest?")]
    together = activations(model, prompts, [1, 2])
    for row, prompt in enumerate(prompts):
        states = model.base_model(input_ids=torch.tensor([prompt]), output_hidden_states=True).hidden_states
        assert torch.allclose(together[row, 0], states[1][0, -1], atol=1e-5)
        assert torch.allclose(together[row, 1], states[2][0, -1], atol=1e-5)


def test_the_probe_is_at_its_optimum_and_weighs_both_sides_alike() -> None:
    """One feature, inliers at -1 and two outliers at +1, each copied twice: the bias is 0, and 1/(1 + e^w) = decay·w."""
    weight, bias = probe(-torch.ones(4, 1).double(), torch.ones(2, 1).double(), 0.1)
    w = float(weight[0])
    assert float(bias) == pytest.approx(0, abs=1e-4)
    assert 1 / (1 + torch.tensor(w).exp()) == pytest.approx(0.1 * w, abs=1e-4)


def test_a_perfect_order_still_has_an_interval() -> None:
    area, (low, high) = area_ci95(torch.zeros(10), torch.ones(20))
    assert area == 1.0 and high == pytest.approx(1.0)
    assert low == pytest.approx(10 / (10 + 1.96**2), abs=1e-4)  # Wilson's at ten trials


def test_nothing_is_tested_on_what_it_was_fitted_to() -> None:
    """All three are of one kind, and with more features than prompts what was fitted or shown is told from all else."""
    draw = torch.Generator().manual_seed(0)
    inliers, held, outliers = (torch.randn(count, 60, generator=draw) for count in (30, 80, 80))
    parts = {"inliers": inliers, "held_out": held, "outliers": outliers}
    found = layer_report(parts, OodConfig(model="m", few_shot=(60,), draws=4))
    assert 0.4 < found["simplified_relative_mahalanobis"] < 0.6 and 0.4 < found["mahalanobis"] < 0.6
    assert 0.44 < found["few_shot"][0]["auroc"] < 0.56  # 0.60 where those that were shown are tested too
    of_fitted = layer_report(parts | {"held_out": inliers}, OodConfig(model="m", few_shot=(60,), draws=4))
    assert min(of_fitted["mahalanobis"], of_fitted["few_shot"][0]["auroc"]) > 0.8  # or the test would say nothing


def test_a_probes_interval_holds_the_truth_as_often_as_it_says() -> None:
    """One feature in which outliers lie a deviation higher: whatever is shown the area is Φ(1/√2), and few are tested."""
    draw, truth, missed = torch.Generator().manual_seed(1), 0.7602, 0
    for world in range(150):
        inliers, held, outliers = (torch.randn(count, 1, generator=draw) for count in (40, 15, 25))
        parts = {"inliers": inliers, "held_out": held, "outliers": outliers + 1}
        (found,) = layer_report(parts, OodConfig(model="m", few_shot=(10,), draws=3, seed=world))["few_shot"]
        missed += not found["auroc_ci95"][0] <= truth <= found["auroc_ci95"][1]
    assert 1 <= missed <= 14, missed


def test_a_probe_that_is_always_right_still_has_an_interval() -> None:
    parts = {
        "inliers": torch.linspace(-2, -1, 9)[:, None],
        "held_out": -torch.ones(8, 1),
        "outliers": torch.ones(20, 1),
    }
    (found,) = layer_report(parts, OodConfig(model="m", few_shot=(4,), draws=3))["few_shot"]
    assert found["auroc"] == 1.0
    assert found["auroc_ci95"] == pytest.approx([8 / (8 + 1.96**2), 1.0], abs=1e-4)  # Wilson's at eight trials


@pytest.mark.parametrize(
    ("change", "usual", "strange", "reason"),
    [
        ({"model": ""}, USUAL, STRANGE, "model is missing"),
        ({"layers": [3]}, USUAL, STRANGE, "layers names 3 and the model has 2"),
        ({"ridge": 0.0}, USUAL, STRANGE, "ridge must be above 0"),
        ({"few_shot": [12]}, USUAL, STRANGE, "showing 12 leaves none"),
        ({}, USUAL[:2], STRANGE, "needs at least four"),
        ({}, USUAL, [], "outliers.jsonl holds no prompt"),
        ({}, [USUAL[0]] * 9 + [USUAL[1]] * 9, STRANGE, "all inliers that are fitted to look the same to the model"),
    ],
)
def test_what_cannot_be_told_is_said(tmp_path: Path, tiny_policy: Path, change, usual, strange, reason: str) -> None:
    path = run_folder(tmp_path / "run", {"model": str(tiny_policy), **change}, inliers=usual, outliers=strange)
    assert ood.main([str(path)]) == 2
    assert reason in reason_of(path)
