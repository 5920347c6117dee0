"""Group-invariant learning: the equations by hand and by finite differences, and runs whose head finds what was hidden."""

import math
from pathlib import Path

import pytest
import torch

from tests.training.documented import documented
from tests.training.policy_runs import folder_of, run_of
from training import objective
from training.config import BadConfig, PolicyConfig
from training.failure import JobFailed
from training.ppo.group_invariant import GroupHead, group_numbers, penalty_share, policy_weights
from training.sampling import rollouts


def test_returns_variance_and_weights_by_hand() -> None:
    # Replies worth 4, 2, 0; soft labels 1, ½, 0 of the first group: R = (4 + 1)/1.5 = 10/3 and (1 + 0)/1.5 = 2/3.
    earned, label = torch.tensor([4.0, 2.0, 0.0]), torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    found = objective.group_returns(earned, label)
    assert found.tolist() == pytest.approx([10 / 3, 2 / 3])
    assert objective.group_variance(earned, label).item() == pytest.approx((4 / 3) ** 2)
    # β = 0.1: w = 1 ∓ 0.2·4/3; the reply between the groups keeps its weight.
    leads = objective.group_leads(found, label, 0.4)
    assert leads.tolist() == pytest.approx([4 / 3, -4 / 3])
    assert objective.group_weights(leads, label, 0.1).tolist() == pytest.approx([1 - 0.8 / 3, 1.0, 1 + 0.8 / 3])
    assert penalty_share(earned, label, 0.4).tolist() == [1.0, 0.5, 0.0]
    assert penalty_share(-earned, label, 0.4).tolist() == [0.0, 0.5, 1.0]
    assert objective.group_balance(label).item() == pytest.approx(0.6931472)
    assert objective.group_balance(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item() == 0.0


def test_the_weight_is_bounded_so_that_no_reply_is_learnt_backwards() -> None:
    leads = objective.group_leads(torch.tensor([4.0, 0.0]), torch.eye(2), 0.4)
    assert objective.bounded_weight(0.1, leads) == 0.1
    assert objective.bounded_weight(5.0, leads) == pytest.approx(0.225)  # 0.45 / 2
    assert objective.bounded_weight(5.0, torch.zeros(2)) == 5.0
    found = objective.group_weights(leads, torch.eye(2), objective.bounded_weight(5.0, leads))
    assert found.tolist() == pytest.approx([0.1, 1.9])


def test_a_tiny_group_weighs_no_more_than_the_floor() -> None:
    # 1 reply of 20 earns 10, the others 0: R_g = 10 and 0, M s_g = 0.1 and 1.9.
    label = torch.tensor([[1.0, 0.0]] + 19 * [[0.0, 1.0]])
    returns = objective.group_returns(torch.tensor([10.0] + 19 * [0.0]), label)
    assert objective.group_sizes(label).tolist() == pytest.approx([0.1, 1.9])
    assert objective.group_leads(returns, label, 0.0).tolist() == pytest.approx([50.0, -5 / 1.9])
    assert objective.group_leads(returns, label, 0.4).tolist() == pytest.approx([12.5, -5 / 1.9])


def test_a_tiny_group_does_not_take_the_penalty_away() -> None:
    earned, sure = torch.tensor([10.0] + 19 * [0.0]), torch.tensor([[0.9, 0.1]] + 19 * [[0.02, 0.98]])
    assert penalty_share(earned, sure, 0.0).mean() == pytest.approx((0.9 + 19 * 0.02) / 20)
    assert penalty_share(earned, sure, 0.4).tolist() == 20 * [1.0]
    # Of three groups the tiny one earns most and is passed over; the second of the others is higher.
    earned = torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0, 3.0])
    label = torch.eye(3)[torch.tensor([0, 1, 1, 1, 1, 2, 2, 2, 2, 2])]
    assert penalty_share(earned, label, 0.4).tolist() == [0.0] * 5 + [1.0] * 5
    assert penalty_share(earned, label, 0.2).tolist() == [1.0] + [0.0] * 9


@pytest.mark.parametrize("first", [(0.9, 0.1), (0.6, 0.1)])
def test_the_weighted_policy_gradient_is_that_of_the_mean_less_variance(first: tuple[float, float]) -> None:
    """Two prompts of one group each, every reply possible: the exact gradient of E[R] - β Var_g by differences.

    p(g = 1) of the two prompts is `first`: groups of one size, and shares of 0.35 and 0.65.
    """
    torch.manual_seed(0)
    logits, reward = torch.randn(2, 5, dtype=torch.double), torch.randn(2, 5, dtype=torch.double) * 3
    share = torch.tensor([[part, 1 - part] for part in first], dtype=torch.double)  # p(g | prompt)
    beta = 0.07

    def by_group(at: torch.Tensor) -> torch.Tensor:
        return ((at.softmax(-1) * reward).sum(1)[:, None] * share).sum(0) / share.sum(0)

    def worth(at: torch.Tensor) -> float:
        return float((at.softmax(-1) * reward).sum(1).mean() - beta * by_group(at).var(unbiased=False))

    label = share.repeat_interleave(5, 0)
    weight = objective.group_weights(objective.group_leads(by_group(logits), label, 0.4), label, beta).view(2, 5)
    probability = logits.softmax(-1)
    advantage = reward - (probability * reward).sum(1, keepdim=True)
    gradient = 0.5 * probability * weight * advantage  # E over both prompts of w A ∇log π
    step = 1e-6
    for row in range(2):
        for column in range(5):
            shift = torch.zeros(2, 5, dtype=torch.double)
            shift[row, column] = step
            found = (worth(logits + shift) - worth(logits - shift)) / (2 * step)
            assert found == pytest.approx(float(gradient[row, column]), abs=1e-8)


def test_the_group_gradient_by_differences_and_in_parts() -> None:
    torch.manual_seed(1)
    earned, logits = torch.randn(6, dtype=torch.double), torch.randn(6, 3, dtype=torch.double)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return objective.group_loss(earned, at.softmax(-1), 0.8, 0.3)

    free = logits.clone().requires_grad_()
    pull = objective.label_gradient(earned, free.softmax(-1), 0.8, 0.3)
    for part in (slice(0, 2), slice(2, 6)):  # in two parts, as forward passes would come
        (pull[part] * free[part].softmax(-1)).sum().backward()
    assert free.grad is not None
    for row in range(6):
        for column in range(3):
            shift = torch.zeros(6, 3, dtype=torch.double)
            shift[row, column] = 1e-6
            found = (loss(logits + shift) - loss(logits - shift)) / 2e-6
            assert float(found) == pytest.approx(float(free.grad[row, column]), abs=1e-8)


def test_equal_labels_have_no_gradient_so_the_head_begins_at_random() -> None:
    earned = torch.tensor([3.0, 1.0, -2.0])
    assert objective.label_gradient(earned, torch.full((3, 2), 0.5), 1.0, 0.0).abs().max() == pytest.approx(
        0.0, abs=1e-6
    )
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    label = GroupHead(16, 2, seed=0)(features)
    assert label.sum(1).tolist() == pytest.approx([1.0] * 8)
    assert float(label.detach().std()) > 0.05
    assert torch.equal(label, GroupHead(16, 2, seed=0)(features))


def test_the_head_finds_the_family_that_earns_more() -> None:
    """Two families of features, one earning 1 and one 0 with noise: labels align with what was never told."""
    generator = torch.Generator().manual_seed(3)
    family = torch.arange(200) % 2
    features = torch.randn(200, 8, generator=generator) + 3.0 * family[:, None] * torch.eye(8)[0]
    earned = family.float() + 0.3 * torch.randn(200, generator=generator)
    head = GroupHead(8, 2, seed=0)
    adam = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(60):
        adam.zero_grad()
        objective.group_loss(earned, head(features), 1.0, 0.0).backward()
        adam.step()
    agreement = float((head(features).argmax(1) == family).float().mean())
    assert max(agreement, 1 - agreement) > 0.85


def test_a_penalty_without_groups_weighs_each_reply_by_its_own_return() -> None:
    config = PolicyConfig(group_policy_weight=0.1, variance_over="replies")
    weight, beta = policy_weights(config, torch.tensor([1.0, 3.0]), None)
    assert weight.tolist() == pytest.approx([1.2, 0.8])
    assert beta == 0.1


def test_an_empty_group_is_said() -> None:
    label = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(JobFailed, match="group_balance"):
        group_numbers(torch.tensor([1.0, 2.0]), label, label)


@pytest.mark.parametrize(
    "settings",
    [{"groups": 1}, {"group_kl": True}, {"group_policy_weight": 0.1}, {"groups": -2}],
)
def test_settings_that_mean_nothing_are_refused(settings: dict) -> None:
    with pytest.raises(BadConfig, match="group"):
        PolicyConfig(**settings)


ABLATIONS = {
    "ppo": {"kl_weight": 0.0},
    "fixed KL": {"kl_weight": 0.05},
    "groups only": {"kl_weight": 0.05, "groups": 2, "group_policy_weight": 0.1},
    "adaptive KL only": {"kl_weight": 0.05, "groups": 2, "group_kl": True},
    "both": {"kl_weight": 0.05, "groups": 2, "group_policy_weight": 0.1, "group_kl": True},
    "no groups": {"kl_weight": 0.05, "group_policy_weight": 0.1, "variance_over": "replies"},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs_and_tells_what_is_watched(
    name: str, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0, **ABLATIONS[name]))
    first, second = run.iterate(0), run.iterate(1)
    assert set(second) <= documented()
    assert ("group_variance" in second) == ("groups" in ABLATIONS[name])
    assert ("group_weight_least" in second) == ("group_policy_weight" in ABLATIONS[name])
    if "groups" in ABLATIONS[name]:
        assert first["group_variance"] >= 0 and 0 < first["group_share_least"] <= 0.5
        assert first["group_return_low"] <= first["group_return_high"]
    if "group_weight_least" in second:
        assert 0 < second["group_weight_least"] <= second["group_weight_most"] < math.inf
    assert ("group_kl_share" in second) == ("group_kl" in ABLATIONS[name])
    assert 0.2 <= second.get("group_kl_share", 1.0) <= 1


def test_the_penalty_of_each_reply_is_weighed_by_its_label(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    plain = {"critic_pretraining": 0, "gamma": 1.0, "lam": 1.0, "kl_weight": 0.5, "whiten_advantages": False}
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, groups=2, group_kl=True, **plain))
    with torch.no_grad():
        run.policy.get_output_embeddings().weight[20:60] *= 2  # the reference is another model
    learnt, update = [], run.learner.update
    run.learner.update = lambda experience, *rest: learnt.append(experience) or update(experience, *rest)
    seen, rewards = [], run._rewards
    run._rewards = lambda *given: seen.append((given, rewards(*given))) or seen[-1][1]
    run.iterate(0)
    (_, plain_reward), ((*_, share), reward) = seen
    assert 0 < float(share.min()) < float(share.max()) < 1
    score = plain_reward.sum(1) + 0.5 * (learnt[0].rollout.old_logp - seen[0][0][2]).where(
        learnt[0].rollout.mask, 0
    ).sum(1)
    assert torch.allclose(reward.sum(1), score - share * (score - plain_reward.sum(1)), atol=1e-4)
    assert torch.allclose(learnt[0].earned, reward.sum(1))


def test_the_advantages_are_multiplied_by_the_weights_of_the_groups(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    learnt, labels = {}, []
    for weight in (0.0, 0.4):
        run = run_of(
            folder_of(
                tmp_path / str(weight), tiny_policy, pm_path, critic_pretraining=0, groups=2, group_policy_weight=weight
            )
        )
        update, read = run.learner.update, run.learner.read
        run.learner.update = lambda found, *rest, at=weight, update=update: (
            learnt.setdefault(at, found) and update(found, *rest)
        )
        run.learner.read = lambda rollout, read=read: labels.append(read(rollout)) or labels[-1]
        run.iterate(0)
    free, weighted = learnt[0.0], learnt[0.4]
    found, beta = policy_weights(run.config, weighted.earned, labels[-2][1])
    assert 0 < beta <= 0.4 and float(found.max() - found.min()) > 0.02
    assert torch.allclose(weighted.advantage, found[:, None] * free.advantage)
    assert torch.equal(weighted.target, free.target)  # the critic's lesson is not touched


def test_the_head_learns_while_the_policy_stands_still(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    """The features are those of a trunk that does not move: whatever the labels come to is the head's doing."""
    folder = folder_of(
        tmp_path / "run", tiny_policy, pm_path, critic="shared", groups=2, learning_rate=0.0, kl_weight=0.0,
        critic_learning_rate=3e-2, critic_pretraining=0, schedule="constant", episodes=16 * 6,
    )  # fmt: skip
    run = run_of(folder)
    seen, update = [], run.learner.update
    run.learner.update = lambda experience, *rest: seen.append(experience) or update(experience, *rest)
    variances = [run.iterate(0)["group_variance"]]
    for iteration in range(1, 6):
        run.iterate(iteration)
    first = seen[0]
    _, label = run.learner.read(first.rollout)
    variances.append(float(objective.group_variance(first.earned, label)))
    assert variances[1] > 2 * variances[0]


@pytest.mark.parametrize("critic", ["pm", "shared"])
def test_groups_are_told_by_the_state_before_a_replys_last_token(
    critic: str, tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, critic=critic, groups=2, critic_pretraining=0))
    with torch.no_grad():  # so that replies of many lengths are among them
        run.policy.get_output_embeddings().weight[run.end_id] *= 3
    seen, update = [], run.learner.update
    run.learner.update = lambda experience, *rest: seen.append(experience) or update(experience, *rest)
    run.iterate(0)
    rollout = seen[0].rollout
    trunk = run.policy.base_model if critic == "shared" else run.learner.critic.backbone
    _, label = run.learner.read(rollout)
    for row, end in enumerate(rollout.length.tolist()):
        with torch.no_grad():
            state = trunk(rollout.tokens[row : row + 1, :end]).last_hidden_state[0, -2]
            assert torch.allclose(run.learner.groups(state[None])[0], label[row], atol=1e-4)


@pytest.mark.parametrize("critic", ["pm", "shared"])
@pytest.mark.parametrize("features", ["detached", "critic"])
def test_groups_learn_the_same_in_forward_passes_of_any_size(
    features: str, critic: str, tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for part_tokens in (rollouts.PART_TOKENS, 1):
        monkeypatch.setattr(rollouts, "PART_TOKENS", part_tokens)
        monkeypatch.setattr(rollouts, "PART_EVENNESS", 0.0)
        folder = folder_of(
            tmp_path / f"{part_tokens}", tiny_policy, pm_path, critic=critic, critic_pretraining=0, groups=2,
            group_features=features, minibatch_replies=16, inner_epochs=1, group_critic_weight=5.0, adam_eps=1e-3,
            critic_adam_eps=1e-3, value_clip=0.0, max_grad_norm=0.0,
        )  # fmt: skip
        run = run_of(folder)
        with torch.no_grad():  # so that replies of many lengths are among them
            run.policy.get_output_embeddings().weight[run.end_id] *= 3
        run.iterate(0)
        assert run.learner.groups is not None
        modules = (run.learner.groups, run.learner.critic, run.policy)
        found.append([torch.cat([w.detach().flatten() for w in module.parameters()]) for module in modules])
    for whole, parts in zip(*found, strict=True):
        assert torch.allclose(whole, parts, atol=2e-5)
