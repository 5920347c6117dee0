"""Gradient checkpointing: blocks are really computed again, gradients and runs are those without it."""

import json
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from tests.training.test_preference import comparisons, make_folder
from training import preference, sft
from training.config import BadConfig, SftConfig
from training.failure import JobFailed
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy
from training.runs.run_folder import RunFolder
from training.sampling.engine import Engine, generate
from training.sampling.rollouts import Rollout, rollout_of, values_and_states
from training.sampling.sampling import log_probs, reply_states
from training.trunk import fused
from training.trunk.recomputing import recompute, recomputes

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]


def rollout_by(model: torch.nn.Module, tokenizer: object) -> Rollout:
    engine = Engine(model, tokenizer, slots=2, max_length=40)
    return rollout_of(PROMPTS, generate(engine, PROMPTS, [1, 2, 3], 9))


def gradients(path: Path, rollout: Rollout, *, again: bool, half: bool) -> dict[str, torch.Tensor]:
    model, _ = load_policy(path)
    pm, _ = PreferenceModel.from_policy(path, seed=3)
    if again:
        recompute(model)
        recompute(pm.backbone)
    states = reply_states(model, rollout.tokens, rollout.prompt_length, rollout.mask, half=half)
    (log_probs(states, rollout.mask).sum() + values_and_states(pm, rollout, half=half)[0].square().sum()).backward()
    named = [*model.named_parameters("policy"), *pm.named_parameters("pm")]
    return {name: weight.grad for name, weight in named if weight.grad is not None}


@pytest.mark.parametrize("half", [False, True])
def test_gradients_are_those_without_it(any_policy: Path, half: bool) -> None:
    rollout = rollout_by(*load_policy(any_policy))
    plain, again = (gradients(any_policy, rollout, again=again, half=half) for again in (False, True))
    assert plain.keys() == again.keys() and len(plain) > 20
    for name, gradient in plain.items():
        assert torch.allclose(again[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max() + 1)), name


def test_blocks_are_computed_twice_where_they_learn_and_once_elsewhere(
    any_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_policy(any_policy)
    rollout = rollout_by(model, tokenizer)
    calls: list[int] = []
    usual = fused._forward

    def counted(*arguments: object) -> object:
        calls.append(1)
        return usual(*arguments)

    monkeypatch.setattr(fused, "_forward", counted)
    blocks = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
    kind, forward = type(blocks[0]), type(blocks[0]).forward
    for part in blocks[0].modules():  # not of the block itself: a hook on it would stay outside of what is repeated
        if "MLP" in type(part).__name__ and not fused.is_fusible_trunk(model.base_model):
            part.register_forward_pre_hook(lambda *_: calls.append(1))
    each = len(model.base_model.layers) if fused.is_fusible_trunk(model.base_model) else 1

    def passes(learn: bool) -> int:
        calls.clear()
        with torch.set_grad_enabled(learn):
            found = log_probs(reply_states(model, rollout.tokens, rollout.prompt_length, rollout.mask), rollout.mask)
        if learn:
            found.sum().backward()
        return len(calls)

    assert (passes(False), passes(True)) == (each, each)
    recompute(model)
    assert recomputes(model.base_model) and fused.is_fusible_trunk(model.base_model) == (each > 1)
    assert (passes(False), passes(True)) == (each, 2 * each)
    assert type(blocks[0]) is kind and kind.forward is forward and not blocks[0].training
    again = rollout_by(model, tokenizer)  # the sampler's table of keys and values is untouched by it
    assert torch.equal(again.tokens, rollout.tokens)


@pytest.mark.parametrize("settings", [{}, {"critic": "shared"}, {"lora_rank": 2}])
def test_a_policy_run_gives_the_numbers_of_one_without(
    settings: dict[str, object], tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    found = []
    for again in (False, True):
        folder = folder_of(tmp_path / str(again), tiny_policy, pm_path, gradient_checkpointing=again, **settings)
        run = run_of(folder)
        assert recomputes(run.policy) == again and not recomputes(run.pm)
        run.self_check()
        run.iterate(0)
        found.append(run.iterate(1))
    plain, again = found
    assert {name: again[name] for name in plain if name != "seconds"} == pytest.approx(
        {name: number for name, number in plain.items() if name != "seconds"}, rel=1e-3, abs=1e-5
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_a_preference_run_gives_the_losses_of_one_without(tmp_path: Path, any_policy: Path, rank: int) -> None:
    losses = []
    for again in (False, True):
        path = make_folder(
            tmp_path / str(again), comparisons(16), comparisons(4, seed=1), model=str(any_policy), threads=1,
            batch_prompts=4, gradient_checkpointing=again, lora_rank=rank, lora_dropout=0.1 if rank else 0.0,
        )  # fmt: skip
        assert preference.main([str(path)]) == 0
        losses.append([line["loss"] for line in RunFolder(path).metrics()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) > 2


def test_finetuning_takes_it_and_refuses_dropout_beside_it(tmp_path: Path, tiny_policy: Path) -> None:
    path = make_folder(
        tmp_path / "sft", comparisons(8), comparisons(2, seed=1), model=str(tiny_policy), threads=1,
        batch_sequences=4, gradient_checkpointing=True,
    )  # fmt: skip
    assert sft.main([str(path)]) == 0
    assert json.loads((path / "config.json").read_text())["gradient_checkpointing"] is True
    with pytest.raises(BadConfig, match="set dropout to 0"):
        SftConfig(dropout=0.1, gradient_checkpointing=True)


def test_a_model_that_cannot_is_refused(tiny_policy: Path) -> None:
    model, _ = load_policy(tiny_policy)
    model.supports_gradient_checkpointing = False
    with pytest.raises(JobFailed, match="set gradient_checkpointing to false"):
        recompute(model)
