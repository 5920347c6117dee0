"""Every measuring job on every family of models, with random weights; Llama has tests of each job's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.training.conftest import EVERY_FAMILY
from tests.training.results import result_of, run_folder
from tests.training.test_crowd import line
from tests.training.test_hhh import COMPARED, HELPFUL, tasks
from training import crowd, hhh, log_p, ood, robustness, sqrt_kl, tournament
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, render, render_reply, save_policy

MEASURING = (crowd, hhh, log_p, ood, robustness, sqrt_kl, tournament)
ELSEWHERE = {"best_of", "distill", "evaluate", "policy", "preference", "sft"}  # test_families.py
PROMPTS = [{"prompt": f"Question {n}"} for n in range(8)]
USUAL = [{"prompt": f"what is {n} plus {n + 1}?"} for n in range(24)]
STRANGE = [{"prompt": "ZQ" * n + "!!"} for n in range(3, 15)]


def parts_of(path: Path) -> dict[str, Any]:
    """What each part of a run found."""
    lines = map(json.loads, (path / "parts.jsonl").read_text(encoding="utf-8").splitlines()[1:])
    return {part["part"]: part["found"] for part in lines}


def plain_margins(policy: Any, pm: PreferenceModel, tokenizer: Any) -> tuple[list[float], list[float]]:
    """Of each comparison, read by transformers one reply at a time: mean log-probabilities and scores, chosen less rejected."""
    likelier, better = [], []
    for compared in COMPARED:
        if compared["strength"] == 1:
            continue  # the weakest grade is left out
        prompt, mean, score = render(tokenizer, [{"role": "user", "content": compared["prompt"]}]), [], []
        for side in ("chosen", "rejected"):
            reply = render_reply(tokenizer, compared[side])
            row = torch.tensor([prompt + reply])
            logp = policy(input_ids=row).logits[0].log_softmax(-1)
            score.append(float(pm.scores(row, torch.tensor([row.shape[1] - 1]))))
            mean.append(sum(float(logp[len(prompt) - 1 + p, t]) for p, t in enumerate(reply)) / len(reply))
        likelier.append(mean[0] - mean[1])
        better.append(score[0] - score[1])
    return likelier, better


def test_no_job_is_left_out() -> None:
    root = Path(crowd.__file__).parent
    jobs = {path.stem for path in root.glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")}
    assert jobs == {job.__name__.rpartition(".")[2] for job in MEASURING} | ELSEWHERE


@pytest.mark.parametrize("family", sorted(EVERY_FAMILY.keys() - {"llama"}))
def test_every_measuring_job_runs_on_every_family(
    family: str, tmp_path: Path, built_policies: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = built_policies(family)
    policy, tokenizer = load_policy(start)
    judge, _ = PreferenceModel.from_policy(start, seed=3)
    late, later, pm, other_pm = (tmp_path / name for name in ("late", "later", "pm", "other-pm"))
    with torch.no_grad():
        likelier, better = plain_margins(policy, judge, tokenizer)
        for path in (late, later):  # further and further away, as later snapshots are
            policy.get_output_embeddings().weight[40:80] *= 1.4
            save_policy(path, policy, tokenizer)
        for path in (pm, other_pm):
            judge.save(path, tokenizer)
            judge.head.weight.neg_()

    def measured(job: ModuleType, settings: dict[str, Any], **lines: list[Any]) -> tuple[dict[str, Any], Path]:
        monkeypatch.setattr(job, "plot", lambda *_, **__: None)  # pictures know nothing of families
        path = run_folder(tmp_path / job.__name__, {"threads": 1} | settings, **lines)
        assert job.main([str(path)]) == 0
        return result_of(path), path

    models = {"model": str(start), "preference_model": str(pm)}
    told = tasks(tmp_path / "tasks", helpful=HELPFUL)
    found, _ = measured(hhh, models | {"tasks": str(told)})
    assert {
        scorer: right["helpful"]["items"] for scorer, right in found["accuracy_by_scorer"].items()
    } == dict.fromkeys(("mutual_information", "log_p", "mean_log_p", "score"), 2)

    found, path = measured(log_p, models, test=COMPARED)
    (part,) = parts_of(path).values()
    assert part["mean_log_p"] == pytest.approx(likelier, abs=1e-4) and part["score"] == pytest.approx(better, abs=1e-4)
    assert found["mean_log_p_accuracy"]["accuracy"] == sum(margin > 0 for margin in likelier) / 9

    found, _ = measured(ood, {"model": str(start), "few_shot": [4], "draws": 2}, inliers=USUAL, outliers=STRANGE)
    assert [row["layer"] for row in found["layers"]] == [1, 2]
    assert all(row["few_shot"][0]["auroc"] > 0.8 for row in found["layers"])  # capitals beside small letters

    common = {"max_new_tokens": 6, "slots": 8, "preference_model": str(pm)}
    two = {"snapshots": [f"start={start}", f"late={late}"]}
    found, path = measured(tournament, common | two, prompts=PROMPTS)
    first, second = found["snapshots"]
    assert abs(first["kl"]) < 1e-4 < 1e-3 < second["kl_k3"]
    assert 0 <= found["pairs"][0]["win_rate"] <= 1 and second["score_mean"] != first["score_mean"]
    replies = parts_of(path)

    found, path = measured(robustness, common | two | {"test_preference_model": str(other_pm)}, prompts=PROMPTS)
    assert [row["gap"] for row in found["snapshots"]] == pytest.approx(
        [row["train_score"] - row["test_score"] for row in found["snapshots"]], abs=1e-6
    )
    again = parts_of(path)

    people = [line("late", "start", n) for n in range(8)] + [line("start", "late", n) for n in range(8, 12)]
    found, path = measured(crowd, common | two, prompts=PROMPTS, crowd=people)
    assert found["comparisons"] == 12 and found["snapshots"][1]["held_out_elo"] is not None
    of_crowd = parts_of(path)

    found, path = measured(sqrt_kl, common | {"snapshots": [*two["snapshots"], f"later={later}"]}, prompts=PROMPTS)
    assert [curve["curve"] for curve in found["curves"]] == ["snapshots"]
    of_line = parts_of(path)
    assert max(of_line["later"]["kl_k3"]) > max(of_line["late"]["kl_k3"])
    for name in ("start", "late"):  # the same seeds, so the same replies, whoever asks for them
        for parts in (again, of_crowd, of_line):
            assert (parts[name]["score"], parts[name]["kl"]) == (replies[name]["score"], replies[name]["kl"])
