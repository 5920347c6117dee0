"""Every switch of PPO does what its name says, and nothing while it is off."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from training.config import BadConfig, PolicyConfig
from training.failure import JobFailed
from training.models.models import PreferenceModel
from training.ppo.policy_run import PolicyRun
from training.sampling.rollouts import Experience

Make = Callable[..., PolicyRun]
# All that is learnt from is the score less the penalty.
BARE = {"gamma": 1.0, "lam": 1.0, "whiten_advantages": False, "score_normalisation": "none", "score_clip": 0.0,
        "missing_end_penalty": 0.0}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> Make:
    """Make a run with these settings, whose policy is not its reference and ends some replies."""

    def make(name: str, **settings: object) -> PolicyRun:
        made = run_of(folder_of(tmp_path / name, tiny_policy, pm_path, **{"critic_pretraining": 0, **settings}))
        with torch.no_grad():
            made.policy.get_output_embeddings().weight[20:60] *= 1.5
            made.policy.get_output_embeddings().weight[made.end_id] *= 3
        return made

    return make


def learnt(run: PolicyRun) -> Experience:
    """What the first iteration learns from."""
    seen, update = [], run.learner.update
    run.learner.update = lambda experience, *rest: seen.append(experience) or update(experience, *rest)
    run.iterate(0)
    return seen[0]


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


def policy_after(run: PolicyRun) -> torch.Tensor:
    run.iterate(0)
    return weights(run.policy)


def test_a_reply_that_was_cut_is_charged_or_given_a_fixed_score(run: Make) -> None:
    free = learnt(run("free", **BARE, kl_weight=0.0))
    charged = learnt(run("charged", **{**BARE, "missing_end_penalty": 2.5}, kl_weight=0.0))
    fixed = learnt(run("fixed", **{**BARE, "missing_end_penalty": 7.0}, missing_end="replace", kl_weight=0.0))
    cut = ~free.rollout.ended
    assert 0 < int(cut.sum()) < len(cut)
    assert torch.allclose(charged.earned, free.earned - 2.5 * cut.float(), atol=1e-5)
    assert torch.allclose(fixed.earned, torch.where(cut, -7.0, free.earned), atol=1e-5)


def test_the_penalty_of_a_reply_is_taken_off_at_its_end(run: Make) -> None:
    """With γ < 1 it matters where: the last token's target holds the whole penalty, or its own share alone."""
    told = {**BARE, "gamma": 0.5, "kl_weight": 0.3}
    token, reply = (learnt(run(unit, **told, kl_unit=unit)) for unit in ("token", "reply"))
    free = learnt(run("free", **{**told, "kl_weight": 0.0}))
    last = free.rollout.mask.sum(1) - 1
    rows = torch.arange(len(last))
    assert torch.allclose(token.earned, reply.earned, atol=1e-4)
    assert torch.allclose((reply.target - free.target)[rows, last], reply.earned - free.earned, atol=1e-4)
    assert not torch.allclose((token.target - free.target)[rows, last], token.earned - free.earned, atol=1e-2)


def test_advantages_are_clipped_after_whitening(run: Make) -> None:
    clipped, free = learnt(run("clipped", advantage_clip=0.5)), learnt(run("free"))
    assert float(free.advantage.abs().max()) > 1.0
    assert torch.allclose(clipped.advantage, free.advantage.clamp(-0.5, 0.5))
    assert torch.equal(clipped.target, free.target)  # the critic's lesson is not touched


def test_the_ratio_may_be_to_the_reference_or_to_nothing(run: Make) -> None:
    one = {"inner_epochs": 1, "minibatch_replies": 16, "warmup_iterations": 0}
    # So large an ε makes Adam's step linear in the gradient; without it the rounding of a gradient near 0 counts as much as a gradient.
    after = {
        how: policy_after(run(how, **one, adam_eps=1.0, importance_sampling=how))
        for how in ("sampler", "reference", "off")
    }
    # In the first update of an iteration the ratio to the sampler is 1: its gradient is that of log π.
    assert torch.allclose(after["off"], after["sampler"], rtol=0, atol=1e-6)
    assert not torch.allclose(after["reference"], after["sampler"], rtol=0, atol=1e-5)
    numbers = run("again", **one, importance_sampling="reference").iterate(0)
    assert numbers["ratio_max"] > 1.5  # to a policy that it is not
    assert run("sampled", **one).iterate(0)["ratio_max"] == pytest.approx(1.0, abs=1e-3)


def test_the_clip_of_the_ratio_and_of_the_gradient_may_be_off(run: Make) -> None:
    far = {"inner_epochs": 4, "approx_kl_stop": 0.0, "learning_rate": 2e-2}
    clipped, plain = run("clipped", **far), run("plain", **far, clip=0.0)
    assert clipped.iterate(0)["clip_fraction"] > 0
    assert plain.iterate(0)["clip_fraction"] == 0
    assert not torch.equal(weights(clipped.policy), weights(plain.policy))
    loose, unbound, tight = (
        policy_after(run(f"norm {bound}", max_grad_norm=bound, adam_eps=1.0)) for bound in (1e9, 0.0, 1e-3)
    )
    assert torch.equal(loose, unbound)
    assert not torch.allclose(tight, unbound, atol=1e-7)


def test_the_dual_clip_matters_only_where_a_bad_token_ran_away(run: Make) -> None:
    wild = {"inner_epochs": 2, "approx_kl_stop": 0.0, "importance_sampling": "reference"}
    assert not torch.equal(policy_after(run("off", **wild)), policy_after(run("on", **wild, dual_clip=1.01)))
    tame = {"inner_epochs": 1, "minibatch_replies": 16}
    assert torch.equal(policy_after(run("a", **tame)), policy_after(run("b", **tame, dual_clip=3.0)))


def test_an_entropy_bonus_keeps_the_entropy_up_or_at_its_threshold(run: Make) -> None:
    strong = {"learning_rate": 5e-3, "whiten_advantages": False, "kl_weight": 0.0, "score_clip": 0.01,
              "missing_end_penalty": 0.0, "approx_kl_stop": 0.0, "warmup_iterations": 0}  # fmt: skip

    def entropy(name: str, **settings: float) -> float:
        made = run(name, **strong, **settings)
        return [made.iterate(turn)["entropy"] for turn in range(3)][-1]

    free = entropy("free")
    assert entropy("bonus", entropy_weight=1.0) > free + 0.1
    low = entropy("low", entropy_weight=1.0, entropy_threshold=0.5)
    assert low < free - 0.1


@pytest.mark.parametrize("begins_as", ["policy", "shared"])
def test_a_fresh_critic_begins_at_zero_and_the_pms_at_its_scores(begins_as: str, run: Make) -> None:
    fresh = run("fresh", critic=begins_as)
    assert isinstance(fresh.learner.critic, PreferenceModel) == (begins_as == "policy")
    assert bool((learnt(fresh).old_value == 0).all())
    assert float(learnt(run("pm")).old_value.abs().max()) > 0.1


def test_a_buffer_of_several_rollouts_is_one_of_their_size(run: Make) -> None:
    several, one = run("several", rollout_replies=8, buffer_rollouts=2), run("one", rollout_replies=16)
    assert several.iterations == one.iterations
    assert several.iterate(0)["score_mean"] == one.iterate(0)["score_mean"]
    assert torch.equal(weights(several.policy), weights(one.policy))


def test_critic_pretraining_ends_once_the_loss_stops_falling(run: Make) -> None:
    made = run("run", critic_pretraining=8, critic_pretraining_patience=2, episodes=16)
    left = []
    for loss in (1.0, 0.5, 0.499, 0.498):  # twice by less than a hundredth
        made._end_pretraining(loss)
        left.append(made.critic_iterations)
    assert left == [8, 8, 8, 4]
    assert made.iterations == 5
    assert [made.iterate(4)[name] for name in ("critic_only", "episodes")] == [0, 16]


def test_rewards_are_scaled_to_a_spread_of_one_with_their_mean_kept(run: Make) -> None:
    """With γ = λ = 1 the target at a reply's first token is all of its reward, whitened or not."""
    plain, scaled = (learnt(run(f"{on}", **BARE, kl_weight=0.3, whiten_rewards=on)) for on in (False, True))
    mask = plain.rollout.mask
    ahead = plain.target
    reward = ahead - torch.cat([ahead[:, 1:], torch.zeros(len(ahead), 1)], 1)  # of each token, from the sums to come
    mean, spread = reward[mask].mean(), reward[mask].std(unbiased=False)
    expected = torch.where(mask, (reward - mean) / spread + mean, 0.0).sum(1)
    assert torch.allclose(scaled.target[:, 0], expected, atol=1e-3)
    assert torch.equal(scaled.earned, plain.earned)


def test_the_penalty_is_of_the_estimator_that_is_named(run: Make) -> None:
    free = learnt(run("free", **BARE, kl_weight=0.0)).earned
    for estimator, name in (("k1", "kl"), ("k2", "kl_k2"), ("k3", "kl_k3")):
        made = run(estimator, **BARE, kl_weight=0.3, kl_estimator=estimator)
        seen, update = [], made.learner.update
        made.learner.update = lambda found, *rest, seen=seen, update=update: seen.append(found) or update(found, *rest)
        numbers = made.iterate(0)
        assert float((free - seen[0].earned).mean()) == pytest.approx(0.3 * numbers[name], rel=1e-3)
        assert len({round(numbers[other], 3) for other in ("kl", "kl_k2", "kl_k3")}) == 3


def test_an_adaptive_weight_follows_the_divergence_of_a_reply_not_of_a_token(run: Make) -> None:
    numbers = run("free").iterate(0)
    between = math.sqrt(numbers["kl"] * numbers["kl_per_token"])
    assert numbers["kl_per_token"] < 0.8 * between < 1.25 * between < numbers["kl"]
    made = run("held", kl_target=between, kl_horizon=160.0)
    made.iterate(0)
    assert made.kl_weight == pytest.approx(0.02 * (1 + 0.2 * 16 / 160))  # up by the most that a step allows


def test_a_policy_that_moved_too_far_ends_the_passes_of_its_iteration(run: Make) -> None:
    far = {"inner_epochs": 4, "learning_rate": 2e-2}
    free = run("free", **far, approx_kl_stop=0.0).iterate(0)
    assert (free["stopped_early"], free["minibatches"]) == (0, 8)
    stopped = run("stopped", **far, approx_kl_stop=0.01).iterate(0)
    assert stopped["stopped_early"] == 1 and 1 < stopped["minibatches"] < 8


def test_the_loss_of_values_is_weighed_where_the_trunk_is_shared(run: Make) -> None:
    one = {"inner_epochs": 1, "minibatch_replies": 16, "critic": "shared"}
    norms = [run(f"{w}", **one, value_weight=w).iterate(0)["critic_grad_norm"] for w in (0.0, 0.1, 0.2)]
    assert norms[0] == 0 < norms[1]
    assert norms[2] == pytest.approx(2 * norms[1], rel=1e-4)
    alone = run("alone", **one, value_weight=0.1, critic_pretraining=1).iterate(0)["critic_grad_norm"]
    assert alone == pytest.approx(10 * norms[1], rel=1e-4)  # while nothing but the head learns it weighs in full


def test_policy_critic_and_group_head_keep_one_schedule(run: Make) -> None:
    made = run("run", groups=2, schedule="linear", warmup_iterations=0, learning_rate=1e-3, critic_learning_rate=2e-3)
    for iteration, share in enumerate((1.0, 0.7, 0.4)):
        assert made.iterate(iteration)["learning_rate"] == pytest.approx(share * 1e-3)
        learner = made.learner
        for adam, rate in ((learner.policy_adam, 1e-3), (learner.critic_adam, 2e-3), (learner.group_adam, 2e-3)):
            assert [group["lr"] for group in adam.param_groups] == pytest.approx([share * rate])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"dual_clip": 0.5}, "dual_clip"),
        ({"weight_average": 1.0}, "weight_average"),
        ({"prompt_weights": {"helpful": -1.0}}, "prompt_weights"),
        ({"prompt_weights": {"helpful": 0.0}}, "prompt_weights"),
        ({"kl_target": 3.0, "kl_weight": 0.0}, "kl_target"),
        ({"clip": -0.1}, "clip"),
        ({"ptx_ratio": 0.0}, "ptx_ratio"),
        ({"buffer_rollouts": 0}, "buffer_rollouts"),
        ({"lora_rank": 4, "lora_dropout": 0.1}, "lora_dropout"),
        ({"entropy_threshold": 3.0}, "entropy_threshold"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(settings: dict, name: str) -> None:
    with pytest.raises(BadConfig, match=name):
        PolicyConfig(**settings)


# -- what is not a number ---------------------------------------------------------------------------------------------
def test_a_score_that_is_not_a_number_is_named_with_its_prompt(run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("nan")
    scores = torch.zeros(16)
    scores[5] = math.nan
    monkeypatch.setattr("training.ppo.policy_run.preference_scores", lambda *_given, **_named: scores)
    with pytest.raises(JobFailed, match=r"preference model's score at step 1 is not a number.*reply 6 to '.*number"):
        made.iterate(0)


def test_a_sampler_or_reference_that_is_not_a_number_is_named(run: Make) -> None:
    made = run("reference")
    with torch.no_grad():
        made.reference.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(JobFailed, match="initial policy's log-probability at step 1"):
        made.iterate(0)


def test_a_gradient_that_is_not_a_number_is_named_with_its_replies(run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("gradient")
    before = weights(made.policy)
    next(iter(made.policy.parameters())).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(JobFailed, match=r"gradient is not a number at step 1, epoch 1, minibatch 1.*reply \d+ to '"):
        made.iterate(0)
    assert torch.equal(before, weights(made.policy))


def test_a_loss_that_is_not_a_number_names_the_reply_at_fault(run: Make) -> None:
    made = run("loss")
    update = made.learner.update

    def poisoned(experience: Experience, *rest: object) -> object:
        experience.advantage[3, 0] = math.nan
        return update(experience, *rest)

    made.learner.update = poisoned
    with pytest.raises(JobFailed, match=r"the loss \(the advantage\) is not a number.*\(reply 4 to '[^;]*'\)"):
        made.iterate(0)
