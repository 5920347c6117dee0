"""Every job that measures tells of each part in metrics.jsonl and to TensorBoard, once, and in names that are documented."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.documented import documented
from tests.training.results import names_of, run_folder
from tests.training.test_events import shown
from training import best_of, crowd, evaluate, hhh, log_p, ood, robustness, sqrt_kl, tournament
from training.runs.run_folder import RunFolder

PROMPTS = [{"prompt": f"Question {n}"} for n in range(5)]
SAMPLED = {"max_new_tokens": 3, "slots": 4}
COMPARED = [
    {"prompt": f"Question {n}", "chosen": f"Good {n}", "rejected": f"Bad {n}", "strength": 3,
     "chosen_reply": {"snapshot": "late"}, "rejected_reply": {"snapshot": "start"}}
    for n in range(5)
]  # fmt: skip
EVERY_SNAPSHOT = {"snapshot", "score_mean", "kl", "kl_k3", "length_mean", "eos_share", "seconds"}
POLICY_RUN = [{"step": 1 + n, "kl": float(n**2), "score_mean": 3.0 * n} for n in range(4)]

# What a job is asked, what it reads, how many lines it tells, and what stands in the first and in the last of them at least.
CASES: dict[str, tuple[Callable, dict[str, Any], dict[str, list], int, set[str], set[str]]] = {
    "evaluate": (
        evaluate.main, SAMPLED | {"model": "{policy}", "opponent": "{policy}", "preference_model": "{pm}", "part_prompts": 2},
        {"prompts": PROMPTS}, 3, {"win_rate", "score_after", "kl", "perplexity", "seconds"}, {"win_rate", "prompts"},
    ),
    "best_of": (
        best_of.main, SAMPLED | {"model": "{policy}", "preference_model": "{pm}", "k": [1, 2]}, {"prompts": PROMPTS}, 3,
        {"score_mean", "score_best", "seconds"}, {"score_best"},
    ),
    "tournament": (
        tournament.main, SAMPLED | {"snapshots": ["start={policy}", "late={policy}"], "preference_model": "{pm}"},
        {"prompts": PROMPTS}, 2, EVERY_SNAPSHOT, EVERY_SNAPSHOT,
    ),
    "robustness": (
        robustness.main,
        SAMPLED | {"snapshots": ["start={policy}", "late={policy}"], "preference_model": "{pm}", "test_preference_model": "{pm}"},
        {"prompts": PROMPTS}, 2, EVERY_SNAPSHOT | {"test_score_mean"}, EVERY_SNAPSHOT,
    ),
    "sqrt_kl": (
        sqrt_kl.main,
        SAMPLED | {"snapshots": ["start={policy}", "b={policy}", "c={policy}"], "preference_model": "{pm}", "runs": ["{run}"]},
        {"prompts": PROMPTS}, 5, EVERY_SNAPSHOT, {"curve", "points", "kl_below_zero"},
    ),
    "sqrt_kl of runs": (sqrt_kl.main, {"runs": ["{run}"]}, {}, 1, {"curve", "slope", "r_squared"}, {"kl_below_zero"}),
    "crowd": (
        crowd.main,
        SAMPLED | {"snapshots": ["start={policy}", "late={policy}"], "preference_model": "{pm}", "batch_comparisons": 2},
        {"prompts": PROMPTS, "crowd": COMPARED}, 5, EVERY_SNAPSHOT, {"agreement", "comparisons"},
    ),
    "log_p": (
        log_p.main, {"model": "{policy}", "preference_model": "{pm}", "batch_comparisons": 2}, {"test": COMPARED}, 3,
        {"mean_log_p_accuracy", "preference_model_accuracy", "pairs"}, {"pairs"},
    ),
    "hhh": (
        hhh.main, {"model": "{policy}", "preference_model": "{pm}", "tasks": "{tasks}"}, {}, 3,
        {"questions", "mutual_information_accuracy", "log_p_accuracy", "mean_log_p_accuracy", "score_accuracy"}, {"questions"},
    ),
    "ood": (
        ood.main, {"model": "{policy}", "few_shot": [1, 2]},
        {"inliers": [{"prompt": f"what is {n}?"} for n in range(9)], "outliers": PROMPTS}, 2,
        {"layer", "simplified_relative_mahalanobis", "mahalanobis", "few_shot", "probe_auroc"}, {"layer"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_part_is_told_once_also_by_a_run_that_was_killed(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, case: str
) -> None:
    main, settings, data, count, first, last = CASES[case]
    (tmp_path / "policy-run").mkdir()
    (tmp_path / "policy-run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in POLICY_RUN))
    (tmp_path / "tasks" / "honest").mkdir(parents=True)
    answers = {"yes": 1, "no": 0}
    examples = [{"input": text, "target_scores": answers} for text in ("ash?", "x" * 999, "birch?")]
    (tmp_path / "tasks" / "honest" / "task.json").write_text(json.dumps({"examples": examples}))
    places = {"{policy}": tiny_policy, "{pm}": pm_path, "{run}": tmp_path / "policy-run", "{tasks}": tmp_path / "tasks"}
    text = json.dumps(settings | {"threads": 1})
    for name, place in places.items():
        text = text.replace(name, str(place))
    path = run_folder(tmp_path / "run", json.loads(text), **data)
    assert main([str(path)]) == 0
    folder = RunFolder(path)
    told = folder.metrics()
    assert [(line["step"], line["of"]) for line in told] == [(step, told[-1]["of"]) for step in range(1, count + 1)]
    assert told[-1]["of"] == count
    assert first <= told[0].keys() and last <= told[-1].keys()
    assert names_of(told) <= documented()
    curves = shown(folder)
    numbers = {name for line in told for name, value in line.items() if isinstance(value, int | float)} - {"step"}
    assert set(curves) == numbers
    assert curves["of"] == [(step, float(count)) for step in range(1, count + 1)]
    # killed before its result, in the midst of a line, after all parts or but one
    (path / "result.json").unlink()
    if (path / "parts.jsonl").exists():
        lines = (path / "parts.jsonl").read_bytes().split(b"\n")
        (path / "parts.jsonl").write_bytes(b"\n".join(lines[:-2]) + b"\n" + lines[-2][:9])
    assert main([str(path)]) == 0
    timeless = [[{**line, "seconds": 0} for line in some] for some in (told, folder.metrics())]
    assert timeless[0] == timeless[1]
    again = shown(folder)
    assert {name: curve for name, curve in again.items() if name != "seconds"} == {
        name: curve for name, curve in curves.items() if name != "seconds"
    }


def test_a_question_that_does_not_fit_changes_no_share(tmp_path: Path) -> None:
    question = hhh.Item([{"role": "user", "content": "ash?"}], ["yes", "no"], 0)
    so_far = hhh.SoFar({"honest 0": question, "honest 1": question, "honest 2": question})
    assert so_far("honest 0", None) == {"questions": 0}
    assert so_far("honest 1", {"log_p": [2.0, 1.0]}) == {"questions": 1, "log_p_accuracy": 1.0}
    assert so_far("honest 2", {"log_p": [1.0, 2.0]}) == {"questions": 2, "log_p_accuracy": 0.5}
