"""One rollout learnt from: ratio 1 before the first update, one mean over all tokens, a critic that may run ahead."""

from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from training.ppo.updates import minibatches
from training.sampling import rollouts


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


def test_critic_pretraining_leaves_the_policy_alone(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    for critic in ("pm", "shared"):
        run = run_of(folder_of(tmp_path / critic, tiny_policy, pm_path, critic=critic))
        before = [weight.clone() for weight in run.policy.parameters()]
        critic_before = [weight.clone() for weight in run.learner.critic.parameters()]
        run.iterate(0)
        assert all(torch.equal(a, b) for a, b in zip(before, run.policy.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(critic_before, run.learner.critic.parameters(), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_ratio_is_one_before_the_first_update_of_every_iteration(
    temperature: float, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, temperature=temperature, critic_pretraining=0))
    for iteration in range(3):
        before = weights(run.policy)
        numbers = run.iterate(iteration)
        assert 0 < numbers["sampler_gap"] < 1e-4
        assert not torch.equal(before, weights(run.policy))
        assert (abs(numbers["kl_k3"]) < 1e-6) == (iteration == 0)


def test_a_small_rest_joins_the_minibatch_before_it(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    sizes = {many: [len(some) for some in minibatches(torch.arange(many), 8)] for many in (3, 8, 9, 11, 12, 16, 19)}
    assert sizes == {3: [3], 8: [8], 9: [9], 11: [11], 12: [8, 4], 16: [8, 8], 19: [8, 11]}
    assert torch.cat(minibatches(torch.arange(19), 8)).tolist() == list(range(19))
    run = run_of(
        folder_of(tmp_path / "run", tiny_policy, pm_path, rollout_replies=9, inner_epochs=2, approx_kl_stop=0.0)
    )
    assert run.iterate(0)["minibatches"] == 2


def test_a_sampler_left_behind_shows_in_its_gap(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0))
    run.iterate(0)
    run.engine.refresh(run.policy)
    for name in ("refresh", "release"):
        monkeypatch.setattr(run.engine, name, lambda *_model: None)
    run.iterate(1)
    assert run.iterate(2)["sampler_gap"] > 1e-2


@pytest.mark.parametrize("critic", ["pm", "shared"])
def test_forward_passes_of_any_size_give_the_same_update(
    critic: str, tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean of the means of single replies would weigh short ones more; here a long reply's tokens count as much."""
    found = []
    for part_tokens in (rollouts.PART_TOKENS, 1):
        monkeypatch.setattr(rollouts, "PART_TOKENS", part_tokens)
        monkeypatch.setattr(rollouts, "PART_EVENNESS", 0.0)
        folder = folder_of(tmp_path / f"{part_tokens}", tiny_policy, pm_path, critic=critic, critic_pretraining=0)
        run = run_of(folder)
        with torch.no_grad():  # so that replies of many lengths are among them
            run.policy.get_output_embeddings().weight[run.end_id] *= 3
        numbers = run.iterate(0)
        assert 0 < numbers["eos_share"] < 1
        found.append((numbers, weights(run.policy), weights(run.learner.critic)))
    (whole, policy, critic_of_whole), (parts, policy_of_parts, critic_of_parts) = found
    for name in ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "policy_grad_norm", "critic_grad_norm"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-6)
    # Adam turns the rounding of a gradient near zero into a step: a few weights may differ by one
    assert (policy - policy_of_parts).abs().mean() < 1e-5
    assert (critic_of_whole - critic_of_parts).abs().mean() < 1e-5


def test_the_value_clip_holds_back_a_critic_only_once_the_policy_learns(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    critics = []
    for value_clip in (0.0, 1e-3):
        folder = folder_of(tmp_path / str(value_clip), tiny_policy, pm_path, value_clip=value_clip)
        run = run_of(folder)
        critics.append([])
        for iteration in (0, 1):
            run.iterate(iteration)
            critics[-1].append(weights(run.learner.critic))
    free, clipped = critics
    assert torch.equal(free[0], clipped[0])
    assert not torch.equal(free[1], clipped[1])
