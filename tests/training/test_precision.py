"""bfloat16 products in every pass of PPO, of sampling and of measuring; weights, optimizers and numbers stay float32."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from training import best_of, evaluate, policy
from training.failure import JobFailed
from training.models.snapshots import load_policy
from training.ppo.policy_run import PolicyRun
from training.runs.run_folder import RunFolder
from training.sampling.decoders import FusedDecoder
from training.sampling.engine import Engine, generate
from training.sampling.rollouts import policy_logp, preference_scores, reply_seeds, rollout_of, sample
from training.sampling.self_checks import HALF_TOLERANCE, check_start

HALF = {"precision": "bfloat16"}


@pytest.mark.parametrize("settings", [{}, {"critic": "shared"}, {"lora_rank": 2}, {"critic": "policy", "groups": 2}])
def test_a_policy_run_in_bfloat16_starts_at_ratio_one_and_kl_zero(
    settings: dict[str, object], tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    folder = folder_of(
        tmp_path / "run", tiny_policy, pm_path, episodes=16, critic_pretraining=0, inner_epochs=1, minibatch_replies=16,
        **HALF, **settings,
    )  # fmt: skip
    run = run_of(folder)
    gaps = run.self_check()
    assert gaps["reference_gap"] == 0 and 0 < gaps["sampler_gap_mean"] < HALF_TOLERANCE
    numbers = run.iterate(0)
    assert numbers["ratio_mean"] == pytest.approx(1, abs=1e-6) and numbers["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert numbers["kl"] == 0 and 0 < numbers["sampler_gap"] < 1
    trained = [weight for model in (run.policy, run.learner.critic) for weight in model.parameters()]
    assert {weight.dtype for weight in trained} == {torch.float32}


def test_every_pass_rounds(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    """Products in bfloat16 move every number a little, which also shows that they are on."""
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, **HALF))
    run.engine.refresh(run.policy)
    rollout = sample(run.engine, run.prompts.train[:4], reply_seeds(0, 0, 4), 12, 1.0)
    logp = [policy_logp(run.policy, rollout, 1.0, half=half)[rollout.mask] for half in (False, True)]
    score = [preference_scores(run.pm, rollout, run.end_id, half=half) for half in (False, True)]
    exact = run.learner.read(rollout)[0]
    run.learner.half = False
    for one, other in (logp, score, (run.learner.read(rollout)[0], exact)):
        assert 0 < float((one - other).abs().max()) < 0.5


def test_a_sampler_with_other_weights_is_found_in_bfloat16_too(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, **HALF))
    run.engine.refresh(run.policy)
    rollout = sample(run.engine, run.prompts.train[:6], reply_seeds(0, 0, 6), 12, 1.0)
    with torch.no_grad():
        for weight in run.policy.model.layers[0].parameters():
            weight.add_(0.05)
    with pytest.raises(JobFailed, match="ratio 1"):
        check_start(run.policy, run.reference, run.pm, rollout, 1.0, half=True)


def test_a_nan_still_stops_a_run_in_bfloat16(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    run: PolicyRun = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, **HALF))
    with torch.no_grad():
        run.pm.head.bias.fill_(float("nan"))
    with pytest.raises(JobFailed, match="preference model's score at step 1 is not a number"):
        run.iterate(0)


def test_decoders_sample_in_bfloat16_near_the_training_forward(
    any_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.sampling.decoders.native_serves", lambda _model: False)  # as on a GPU
    model, tokenizer = load_policy(any_policy)
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    engine = Engine(model, tokenizer, slots=2, max_length=40, half=True)
    decoder = engine._decoder
    assert decoder.dtype == torch.bfloat16 if isinstance(decoder, FusedDecoder) else decoder.half
    rollout = rollout_of(prompts, generate(engine, prompts, [1, 2, 3], 16))
    gap = (policy_logp(model, rollout, 1.0, half=True) - rollout.old_logp)[rollout.mask].abs()
    assert 0 < float(gap.mean()) < HALF_TOLERANCE
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.fixture
def measured(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> Callable[[str, Callable, dict], dict]:
    def run(name: str, job: Callable, settings: dict) -> dict:
        (tmp_path / name / "data").mkdir(parents=True)
        folder = RunFolder(tmp_path / name)
        (folder.data / "prompts.jsonl").write_text('{"prompt": "Sing."}\n{"prompt": "Tell me of a river."}\n')
        common = {"model": str(tiny_policy), "preference_model": str(pm_path), "max_new_tokens": 8, "threads": 1}
        folder.config_file.write_text(json.dumps(common | settings))
        assert job([str(folder.path)]) == 0
        return json.loads((folder.path / "result.json").read_text())

    return run


def test_measuring_jobs_take_a_precision(measured: Callable, tiny_policy: Path) -> None:
    for name, job, settings, key in (
        ("evaluate", evaluate.main, {"opponent": str(tiny_policy)}, "score_after"),
        ("best_of", best_of.main, {"k": [1, 2]}, "by_k"),
    ):
        exact, half = (measured(f"{name}-{p}", job, settings | {"precision": p}) for p in ("float32", "bfloat16"))
        assert exact[key] != half[key]
        if name == "evaluate":
            assert half["kl"] == 0 and abs(exact["score_after"] - half["score_after"]) < 0.2


def test_a_short_run_in_bfloat16_is_finished(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    folder = folder_of(tmp_path / "run", tiny_policy, pm_path, episodes=16, max_new_tokens=8, **HALF)
    assert policy.main([str(folder.path)]) == 0
    result = json.loads((folder.path / "result.json").read_text())
    assert result["self_check"]["reference_gap"] == 0
