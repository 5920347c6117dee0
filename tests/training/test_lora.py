"""Low-rank adapters: nothing at the start, off is the model that was, merged is the model that is."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.processes import started, together
from tests.training.test_distributed import alike
from tests.training.test_preference import comparisons, make_folder, timeless
from training import lora, preference
from training.config import PreferenceConfig
from training.engine import Engine, generate
from training.models import PreferenceModel
from training.rollouts import policy_logp, rollout_of
from training.run_folder import RunFolder
from training.snapshots import check_snapshot, load_policy, save_policy

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
    alike(RunFolder(one), RunFolder(two))


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
