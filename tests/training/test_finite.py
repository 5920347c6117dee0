"""Numbers that are none: every job that measures stops, says whose they are and which model is at fault."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.results import reason_of, run_folder
from training import best_of, crowd, evaluate, hhh, log_p, ood, robustness, sqrt_kl, tournament
from training.failure import JobFailed
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, save_policy
from training.runs.finite import require_finite

# What reads a Z gives no numbers, and nothing else: the line with it is the one to be named.
PROMPTS = [{"prompt": text} for text in ("ash?", "birch?", "Zebra?", "cedar?", "dill?")]
# As good as the likeliest words alone, lest a Z be drawn in a reply.
SMALL = {"max_new_tokens": 2, "slots": 4, "threads": 1, "temperature": 0.01}


@pytest.fixture(scope="module")
def torn(tiny_policy: Path, pm_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A policy and a preference model with a NaN in the embedding of Z, beside sound ones."""
    root = tmp_path_factory.mktemp("torn")
    policy, tokenizer = load_policy(tiny_policy)
    pm, _ = PreferenceModel.load(pm_path)
    with torch.no_grad():
        for model in (policy, pm.backbone):
            model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("Z"), 3] = math.nan
    save_policy(root / "policy", policy, tokenizer)
    pm.save(root / "pm", tokenizer)
    return {
        "policy": str(root / "policy"),
        "pm": str(root / "pm"),
        "sound": str(tiny_policy),
        "sound_pm": str(pm_path),
    }


def compared(number: int, text: str) -> dict[str, Any]:
    return {"prompt": text, "chosen": f"yes {number}", "rejected": "no", "strength": 3,
            "chosen_reply": {"snapshot": "late"}, "rejected_reply": {"snapshot": "start"}}  # fmt: skip


COMPARED = [compared(number, line["prompt"]) for number, line in enumerate(PROMPTS)]
SOUND = [line for line in PROMPTS if "Z" not in line["prompt"]]
ON_LINE_3 = "the prompt on line 3 of prompts.jsonl"
FIELD = {"snapshots": ["start={sound}", "early={sound}", "late={policy}"], "preference_model": "{sound_pm}"}
UNDER = {"snapshots": ["start={sound}", "early={sound}"], "preference_model": "{sound_pm}"}
JUDGED = {"model": "{sound}", "opponent": "{sound}", "preference_model": "{pm}"}

CASES: dict[str, tuple[Callable, dict[str, Any], dict[str, list], str, str]] = {
    "evaluate, the policy": (
        evaluate.main, JUDGED | {"model": "{policy}", "preference_model": "{sound_pm}"}, {"prompts": PROMPTS},
        f"kl is nan for {ON_LINE_3}", "policy",
    ),
    "evaluate, the judge": (evaluate.main, JUDGED, {"prompts": PROMPTS}, f"score is nan for {ON_LINE_3}", "pm"),
    "best_of, the policy": (
        best_of.main, {"model": "{policy}", "preference_model": "{sound_pm}", "k": [1, 2]}, {"prompts": PROMPTS},
        f"the policy's log-probability is nan for {ON_LINE_3}", "policy",
    ),
    "best_of, the judge": (
        best_of.main, {"model": "{sound}", "preference_model": "{pm}", "k": [1, 2]}, {"prompts": PROMPTS},
        f"score is nan for {ON_LINE_3}", "pm",
    ),
    "tournament": (
        tournament.main, FIELD, {"prompts": PROMPTS}, f"kl is nan for snapshot late on {ON_LINE_3}", "policy",
    ),
    "sqrt_kl": (sqrt_kl.main, FIELD, {"prompts": PROMPTS}, f"kl is nan for snapshot late on {ON_LINE_3}", "policy"),
    "robustness": (
        robustness.main, UNDER | {"test_preference_model": "{pm}"}, {"prompts": PROMPTS},
        f"test_score is nan for snapshot start on {ON_LINE_3}", "pm",
    ),
    "crowd, held out": (
        crowd.main, UNDER | {"preference_model": "{pm}", "snapshots": ["start={sound}", "late={sound}"]},
        {"prompts": PROMPTS, "crowd": COMPARED}, f"score is nan for snapshot start on {ON_LINE_3}", "pm",
    ),
    "crowd, its conversations": (
        crowd.main, UNDER | {"preference_model": "{pm}", "snapshots": ["start={sound}", "late={sound}"]},
        {"prompts": SOUND, "crowd": COMPARED}, "a number is nan for the comparison on line 3 of crowd.jsonl", "pm",
    ),
    "log_p, the policy": (
        log_p.main, {"model": "{policy}"}, {"test": COMPARED},
        "mean_log_p is nan for the comparison on line 3 of test.jsonl", "policy",
    ),
    "log_p, the judge": (
        log_p.main, {"model": "{sound}", "preference_model": "{pm}"}, {"test": COMPARED},
        "score is nan for the comparison on line 3 of test.jsonl", "pm",
    ),
    "ood": (
        ood.main, {"model": "{policy}", "few_shot": [1]},
        {"inliers": [{"prompt": f"what is {n}?"} for n in range(9)], "outliers": PROMPTS},
        "the activation after layer 1 is nan for the prompt on line 3 of outliers.jsonl", "policy",
    ),
}  # fmt: skip


def filled(settings: Any, torn: dict[str, str]) -> Any:
    """The settings with the models' directories in them."""
    if isinstance(settings, dict):
        return {name: filled(value, torn) for name, value in settings.items()}
    if isinstance(settings, list):
        return [filled(value, torn) for value in settings]
    return settings.format(**torn) if isinstance(settings, str) else settings


@pytest.mark.parametrize("case", CASES)
def test_a_job_that_measures_says_whose_number_is_none_and_which_model_is_torn(
    tmp_path: Path, torn: dict[str, str], case: str
) -> None:
    main, settings, data, told, guilty = CASES[case]
    common = {"threads": 1} if main in (log_p.main, ood.main) else SMALL
    path = run_folder(tmp_path / "run", common | filled(settings, torn), **data)
    assert main([str(path)]) == 2
    reason = reason_of(path)
    assert reason.startswith(f"{told}: the weight ") and "embed_tokens.weight" in reason
    assert f" in {torn[guilty]} is not finite" in reason and "restore it from a copy or name another one" in reason
    assert not (path / "result.json").exists()


def test_hhh_names_the_question(tmp_path: Path, torn: dict[str, str]) -> None:
    path = run_folder(tmp_path / "run", {"model": torn["policy"], "threads": 1})
    (path / "data" / "honest").mkdir()
    examples = [{"input": text, "target_scores": {"yes": 1, "no": 0}} for text in ("ash?", "Zebra?")]
    (path / "data" / "honest" / "task.json").write_text(json.dumps({"examples": examples}))
    assert hhh.main([str(path)]) == 2
    reason = reason_of(path)
    assert reason.startswith("mutual_information is nan for example 2 of honest/task.json: the weight ")
    assert "parts.jsonl keeps what was measured before" in reason


def test_what_was_measured_before_is_kept(tmp_path: Path, torn: dict[str, str]) -> None:
    settings = SMALL | filled(JUDGED, torn) | {"part_prompts": 2}
    path = run_folder(tmp_path / "run", settings, prompts=PROMPTS)
    assert evaluate.main([str(path)]) == 2
    kept = [json.loads(line) for line in (path / "parts.jsonl").read_text().splitlines()[1:]]
    assert [part["part"] for part in kept] == ["prompts 0"]
    assert "parts.jsonl keeps what was measured before" in reason_of(path)


def test_sound_weights_that_overflow_are_told_from_torn_ones(tiny_policy: Path, tmp_path: Path) -> None:
    other = str(shutil.copytree(tiny_policy, tmp_path / "other"))
    found = {"counts": [1, 2], "samples": [{"score": [0.5, 1.0]}, {"score": [2.0, -math.inf]}]}
    with pytest.raises(JobFailed, match="score is -inf for prompt 1: the weights of every model") as told:
        require_finite(found, {"model": other, "precision": "auto"}, "prompt {}".format)
    assert 'measure with "precision": "float32", or with another model' in str(told.value)
    with pytest.raises(JobFailed, match=r"measure with another model, in a new folder \(two are kept\)"):
        require_finite([0.0, [math.nan]], {"model": other}, "prompt {}".format, "two are kept")
    require_finite(found["samples"][0] | {"name": "nan", "none": None}, {}, str)
