"""Low-rank adapters: nothing at the start, off is the model that was, merged is the model that is."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.policy_runs import folder_of
from tests.training.policy_runs import run_of as run_of_policy
from tests.training.processes import started, together
from tests.training.results import runs_alike
from tests.training.test_preference import comparisons, make_folder, timeless
from training import policy, preference
from training.config import PreferenceConfig
from training.models import lora
from training.models.models import PreferenceModel
from training.models.snapshots import check_snapshot, load_policy, save_policy
from training.ppo import policy_run
from training.runs.run_folder import RunFolder
from training.sampling.engine import Engine, generate
from training.sampling.rollouts import policy_logp, preference_scores, rollout_of, sample

CONFIG = PreferenceConfig(lora_rank=3, lora_alpha=6)
ROW = torch.arange(40)[None]


def with_adapter(path: Path, *, moved: bool = True) -> tuple:
    """A policy with an adapter that has learnt something, whatever that is."""
    model, tokenizer = load_policy(path)
    lora.adapt(model, model, CONFIG, seed=5)
    if moved:
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.data.normal_(std=0.3)
    return model, tokenizer


@torch.no_grad()
def test_an_adapter_says_nothing_at_first_and_nothing_when_off(any_policy: Path):
    plain = load_policy(any_policy)[0](input_ids=ROW).logits
    fresh, _ = with_adapter(any_policy, moved=False)
    assert torch.allclose(fresh(input_ids=ROW).logits, plain, atol=1e-5)
    model, _ = with_adapter(any_policy)
    assert (model(input_ids=ROW).logits - plain).abs().max() > 0.1
    with lora.adapters_off(model):
        assert torch.equal(model(input_ids=ROW).logits, plain)
    assert (model(input_ids=ROW).logits - plain).abs().max() > 0.1
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
    matrices = [name for name, weight in load_policy(any_policy)[0].named_parameters() if weight.dim() == 2]
    assert len(trained) == 2 * len(
        [name for name in matrices if ".layers." in name or ".h." in name]
    )  # A and B of each


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers in an old way
@torch.no_grad()
def test_a_snapshot_of_it_is_a_model_as_any_other_with_the_adapter_beside(any_policy: Path, tmp_path: Path):
    model, tokenizer = with_adapter(any_policy)
    expected = model(input_ids=ROW).logits
    manifest = save_policy(tmp_path / "saved", model, tokenizer, seed=1)
    assert "adapter/adapter_model.safetensors" in manifest["files"]
    assert check_snapshot(tmp_path / "saved").parameters == check_snapshot(any_policy).parameters
    merged, _ = load_policy(tmp_path / "saved")
    assert torch.allclose(merged(input_ids=ROW).logits, expected, atol=1e-4)
    assert torch.equal(model(input_ids=ROW).logits, expected)  # saving changed nothing

    from peft import PeftModel  # anybody else's code reads the adapter

    other = PeftModel.from_pretrained(load_policy(any_policy)[0], tmp_path / "saved" / "adapter").eval()
    assert torch.allclose(other(input_ids=ROW).logits, expected, atol=1e-5)


def test_the_engine_samples_the_adapted_model(any_policy: Path):
    model, tokenizer = with_adapter(any_policy)
    prompts = [[5, 6, 7], [9] * 11]
    for _ in range(2):
        engine = Engine(model, tokenizer, 2, 64)
        rollout = rollout_of(prompts, generate(engine, prompts, [1, 2], 12, 1.0))
        gap = (policy_logp(model, rollout, 1.0) - rollout.old_logp)[rollout.mask].abs().max()
        assert gap < 1e-4
        with lora.adapters_off(model):
            assert (policy_logp(model, rollout, 1.0) - rollout.old_logp)[rollout.mask].abs().max() > 0.05


def run_of(path: Path, policy: Path, **settings: object) -> Path:
    settings = {
        "lora_rank": 4,
        "batch_prompts": 7,
        "checkpoint_steps": 3,
        "threads": 1,
        "learning_rate": 1e-2,
    } | settings
    return make_folder(path, comparisons(120), comparisons(30, seed=1), model=str(policy), **settings)


def test_a_preference_model_is_learnt_through_adapters(tmp_path: Path, tiny_policy: Path):
    folder = RunFolder(run_of(tmp_path / "run", tiny_policy))
    assert preference.main([str(folder.path)]) == 0
    result = folder.result()
    assert result["accuracy"] >= 0.9
    assert result["trained_parameters"] < result["parameters"] / 4
    frozen = result["parameters"] - 32  # all but the head; its bias, which drops out of every pair, is frozen too
    assert result["saved_bytes"] == 12 * frozen
    assert set(result) <= documented()
    checkpoint = folder.load_checkpoint()
    weights = {name for name in checkpoint.tensors if name.startswith("model.")}
    assert all(".lora_" in name or ".head." in name for name in weights)
    before, after = (load_policy(tiny_policy)[0], PreferenceModel.load(folder.model)[0].backbone)
    moved = {
        name
        for name, weight in after.named_parameters()
        if not torch.equal(weight, before.get_parameter(f"model.{name}"))
    }
    assert moved == {name for name, _ in after.named_parameters() if name.endswith("_proj.weight")}


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_killed_run_of_adapters_goes_on_to_the_same_numbers(tmp_path: Path, tiny_policy: Path, dropout: float):
    folders = [run_of(tmp_path / name, tiny_policy, lora_dropout=dropout) for name in ("whole", "killed")]
    assert together(1, lambda: preference.main([str(folders[0])])) == [0]
    processes = started(1, lambda: preference.main([str(folders[1])]))
    while len(RunFolder(folders[1]).metrics()) < 8:
        time.sleep(0.002)
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].join(30)
    assert together(1, lambda: preference.main([str(folders[1])])) == [0]
    whole, killed = (RunFolder(folder) for folder in folders)
    assert timeless(whole.metrics()) == timeless(killed.metrics())
    assert timeless([whole.result()]) == timeless([killed.result()])


def test_two_processes_train_the_adapters_of_one(tmp_path: Path, tiny_policy: Path):
    one, two = (run_of(tmp_path / name, tiny_policy) for name in ("one", "two"))
    assert preference.main([str(one)]) == 0
    assert together(2, lambda: preference.main([str(two)])) == [0, 0]
    runs_alike(RunFolder(one), RunFolder(two))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lora_targets": ["q_proj", "nose"]}, "no linear layer ['nose']; they have down_proj"),
        ({"lora_targets": []}, "lora_targets must name a layer"),
        ({"lora_rank": -1}, "lora_rank must be at least 0"),
        ({"lora_dropout": 1.0}, "lora_dropout must be below 1"),
    ],
)
def test_what_cannot_be_adapted_is_refused(tmp_path: Path, tiny_policy: Path, settings: dict, reason: str):
    folder = run_of(tmp_path / "run", tiny_policy, **settings)
    assert preference.main([str(folder)]) == 2
    assert reason in json.loads((folder / "failure.json").read_text())["reason"]


PPO = {"lora_rank": 4, "critic_pretraining": 1, "learning_rate": 2e-2}


@pytest.mark.parametrize("critic", ["pm", "policy", "shared"])
def test_a_policy_learns_through_its_adapter_and_is_its_own_reference(
    critic: str, tmp_path: Path, tiny_policy: Path, pm_path: Path
):
    run = run_of_policy(folder_of(tmp_path / "run", tiny_policy, pm_path, critic=critic, **PPO))
    copy_of_start, _ = load_policy(tiny_policy)
    scorer, _ = PreferenceModel.load(pm_path)
    frozen = {n: w.clone() for n, w in run.policy.named_parameters() if not w.requires_grad}
    assert run.self_check()["reference_gap"] < 1e-5
    for iteration in range(3):
        run.iterate(iteration)
    run.engine.refresh(run.policy)
    rollout = sample(run.engine, [[5, 6, 7], [8] * 9], [1, 2], 12, 1.0)
    away = (policy_logp(run.policy, rollout, 1.0) - policy_logp(run.reference, rollout, 1.0)).abs().max()
    assert away > 1e-2  # the policy has moved
    assert torch.allclose(policy_logp(run.reference, rollout, 1.0), policy_logp(copy_of_start, rollout, 1.0), atol=1e-4)
    assert torch.allclose(
        preference_scores(run.pm, rollout, run.end_id), preference_scores(scorer, rollout, run.end_id), atol=1e-4
    )
    with lora.seen(run.reference):
        rival = Engine(run.reference, run.tokenizer, 2, 64)
    same = sample(Engine(copy_of_start, run.tokenizer, 2, 64), [[5, 6, 7]], [3], 12, 1.0)
    assert torch.equal(sample(rival, [[5, 6, 7]], [3], 12, 1.0).tokens, same.tokens)
    assert all(torch.equal(frozen[n], w) for n, w in run.policy.named_parameters() if n in frozen)


def test_a_policy_run_of_adapters_gives_the_numbers_of_one_with_a_copy(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The reference and the scorer as models of their own, in place of the same weights with the adapter off."""
    shared, apart = (folder_of(tmp_path / name, tiny_policy, pm_path, **PPO) for name in ("shared", "apart"))
    assert policy.main([str(shared.path)]) == 0
    load = policy_run.load_models

    def copies(config: object, device: torch.device) -> object:
        models = load(config, device)
        scorer = PreferenceModel.load(pm_path)[0].requires_grad_(False)
        return replace(models, reference=load_policy(tiny_policy)[0], pm=scorer)

    monkeypatch.setattr(policy_run, "load_models", copies)
    assert policy.main([str(apart.path)]) == 0
    runs_alike(shared, apart)
    result = shared.result()
    assert set(result) <= documented()
    assert result["trained_parameters"] < result["parameters"] / 3
    trained, frozen = result["trained_parameters"], result["parameters"]
    assert result["saved_bytes"] > 12 * frozen + 4 * frozen  # gradients and moments, and the reference
    assert trained == sum(
        weight.numel() for name, weight in with_adapter_of(4, tiny_policy).named_parameters() if ".lora_" in name
    )
    assert check_snapshot(shared.model).parameters == check_snapshot(tiny_policy).parameters


def with_adapter_of(rank: int, path: Path) -> torch.nn.Module:
    model, _ = load_policy(path)
    lora.adapt(model, model, PreferenceConfig(lora_rank=rank), seed=0)
    return model


def test_two_processes_learn_the_adapters_of_a_policy_as_one(tmp_path: Path, tiny_policy: Path, pm_path: Path):
    settings = PPO | {"adam_eps": 1e-3, "critic_adam_eps": 1e-3}
    one, two = (folder_of(tmp_path / name, tiny_policy, pm_path, **settings) for name in ("one", "two"))
    assert policy.main([str(one.path)]) == 0
    assert together(2, lambda: policy.main([str(two.path)])) == [0, 0]
    runs_alike(one, two)
