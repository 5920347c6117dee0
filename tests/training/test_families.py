"""Every job that trains, best of k and evaluation on every family of models, with random weights, whole and adapted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.conftest import EVERY_FAMILY
from tests.training.policy_runs import folder_of
from tests.training.test_preference import comparisons, make_folder
from training import best_of, distill, evaluate, policy, preference, sft
from training.models.snapshots import check_snapshot
from training.runs.run_folder import RunFolder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "rank"), [(f, 0) for f in sorted(EVERY_FAMILY)] + [(f, 2) for f in ("llama", "gpt2", "gemma2")]
)
def test_every_job_that_trains_runs_on_every_family(
    family: str, rank: int, tmp_path: Path, built_policies: Callable[[str], Path]
) -> None:
    start = built_policies(family)
    common = {"threads": 1, "lora_rank": rank, "model": str(start)}
    finetuned = make_folder(tmp_path / "sft", comparisons(12), comparisons(3, seed=1), batch_sequences=6, **common)
    assert sft.main([str(finetuned)]) == 0
    pm = make_folder(tmp_path / "pm", comparisons(12), comparisons(4, seed=1), batch_prompts=6, **common)
    assert preference.main([str(pm)]) == 0
    small = {"episodes": 8, "rollout_replies": 8, "critic_pretraining": 0, "max_new_tokens": 6, "lora_rank": rank}
    learnt = folder_of(tmp_path / "policy", finetuned / "model", pm / "model", evaluation_prompts=2, **small)
    assert policy.main([str(learnt.path)]) == 0
    assert learnt.metrics()[0]["sampler_gap"] < 1e-3 and abs(learnt.metrics()[0]["kl"]) < 1e-3  # ratio 1, KL 0
    (tmp_path / "judged/data").mkdir(parents=True)
    judged = RunFolder(tmp_path / "judged")
    (judged.data / "prompts.jsonl").write_text('{"prompt": "Sing."}\n')
    models = {"model": learnt.model, "opponent": start, "preference_model": pm / "model"}
    judged.config_file.write_text(
        json.dumps({name: str(path) for name, path in models.items()} | {"max_new_tokens": 6, "threads": 1})
    )
    assert evaluate.main([str(judged.path)]) == 0
    (tmp_path / "best/data").mkdir(parents=True)
    best = RunFolder(tmp_path / "best")
    (best.data / "prompts.jsonl").write_text('{"prompt": "Sing."}\n{"prompt": "Tell me of a river."}\n')
    models = {"model": str(start), "preference_model": str(pm / "model")}
    best.config_file.write_text(json.dumps(models | {"k": [1, 2], "max_new_tokens": 6, "threads": 1}))
    assert best_of.main([str(best.path)]) == 0
    (tmp_path / "prompt.txt").write_text("Answer in rhymes. ")
    told = make_folder(
        tmp_path / "distill", [], [], teacher=str(start), prompt=str(tmp_path / "prompt.txt"), threads=1,
        lora_rank=rank, learning_rate=1e-3, epochs=4, bins=20, batch_sequences=4,
    )  # fmt: skip
    for name, count in (("train", 8), ("test", 4)):
        texts = "".join(json.dumps({"text": f"{name} {n} is {n * n}"}) + "\n" for n in range(count))
        (told / f"data/{name}.jsonl").write_text(texts)
    assert distill.main([str(told)]) == 0
    divergence = RunFolder(told).metrics()
    assert divergence[-1]["loss"] < divergence[0]["loss"]
    assert {check_snapshot(path).parameters for path in (start, finetuned / "model", learnt.model, told / "model")} == {
        check_snapshot(start).parameters
    }
