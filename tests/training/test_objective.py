"""The equations against numbers worked by hand, and the properties that PPO code gets wrong most often."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training import objective

NAN = float("nan")


def test_preference_loss_of_equal_scores_is_log_two_and_stays_finite_far_out() -> None:
    assert objective.preference_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2))
    assert objective.preference_loss(torch.tensor([-400.0]), torch.tensor([400.0])).item() == pytest.approx(800.0)
    assert objective.preference_loss(torch.tensor([math.log(3)]), torch.zeros(1)).item() == pytest.approx(
        math.log(4 / 3)
    )


def test_kwise_loss_is_the_mean_of_each_groups_pairs() -> None:
    # Scores ln 3 > 0 = 0: pairs (1,2) and (1,3) cost log(4/3), pair (2,3) costs log 2.
    score = torch.tensor([[math.log(3), 0.0, 0.0]])
    expected = (2 * math.log(4 / 3) + math.log(2)) / 3
    assert objective.kwise_loss(score, torch.tensor([[1, 2, 3]])).item() == pytest.approx(expected)


def test_kwise_loss_gives_a_long_ranking_no_more_weight_than_a_pair() -> None:
    score = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 0.0, NAN]])
    rank, mask = torch.tensor([[1, 2, 3], [1, 2, 9]]), torch.tensor([[True] * 3, [True, True, False]])
    assert objective.kwise_loss(score, rank, mask).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_kwise_loss_of_two_is_the_preference_loss_and_ties_make_no_pair() -> None:
    score = torch.tensor([[0.3, -1.2], [2.0, 2.5]])
    assert objective.kwise_loss(score, torch.tensor([[1, 2], [1, 2]])).item() == pytest.approx(
        objective.preference_loss(score[:, 0], score[:, 1]).item()
    )
    with pytest.raises(ValueError, match="different rank"):
        objective.kwise_loss(score, torch.tensor([[1, 1], [2, 2]]))


def test_a_margin_asks_for_a_larger_lead_and_a_weight_multiplies_a_group() -> None:
    ln3 = math.log(3)
    chosen, rejected = torch.tensor([2 * ln3, 0.0]), torch.tensor([0.0, 0.0])
    found = objective.preference_loss(chosen, rejected, torch.tensor([ln3, -ln3]))
    assert found.item() == pytest.approx(math.log(4 / 3))
    score, rank = torch.stack([chosen, rejected], 1), torch.tensor([[1, 2], [1, 2]])
    margin = torch.tensor([ln3, 0.0])
    found = objective.kwise_loss(score, rank, margin=margin, weight=torch.tensor([0.5, 1.5]))
    assert found.item() == pytest.approx((0.5 * math.log(4 / 3) + 1.5 * math.log(2)) / 2)


def test_binary_loss_by_hand_and_its_symmetry() -> None:
    score, good = torch.tensor([math.log(3), math.log(3), 0.0]), torch.tensor([True, False, True])
    assert objective.binary_loss(score, good).item() == pytest.approx((math.log(4 / 3) + math.log(4) + math.log(2)) / 3)
    assert torch.equal(objective.binary_loss(-score, ~good), objective.binary_loss(score, good))
    weight = torch.tensor([3.0, 0.0, 0.0])
    assert objective.binary_loss(score, good, weight).item() == pytest.approx(math.log(4 / 3))


def test_token_rewards_put_the_score_on_the_last_real_token() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    logp = torch.tensor([[-1.0, -2.0, -1.0], [-1.0, NAN, NAN]])
    ref_logp = torch.tensor([[-1.5, -1.0, -1.0], [-3.0, NAN, NAN]])
    reward = objective.token_rewards(torch.tensor([5.0, -4.0]), logp, ref_logp, mask, kl_weight=0.1)
    assert torch.allclose(reward, torch.tensor([[-0.05, 0.1, 5.0], [-4.2, 0.0, 0.0]]))


def test_the_penalty_by_estimator_unit_and_share() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    logp, ref_logp = torch.tensor([[-1.0, -2.0], [-1.0, NAN]]), torch.tensor([[-2.0, -1.0], [-1.0 + math.log(2), NAN]])
    score = torch.tensor([1.0, 0.0])

    def rewards(**how: object) -> list[float]:
        return objective.token_rewards(score, logp, ref_logp, mask, 0.5, **how).flatten().tolist()

    # log-ratios 1, -1 and -ln 2: squares halved ½, ½, ½ ln² 2; π₀/π - 1 + k1: 1/e, e - 2, 1 - ln 2
    assert rewards() == pytest.approx([-0.5, 1.5, 0.5 * math.log(2), 0.0])
    assert rewards(estimator="k2") == pytest.approx([-0.25, 0.75, -0.25 * math.log(2) ** 2, 0.0])
    assert rewards(estimator="k3") == pytest.approx(
        [-0.5 / math.e, 1 - 0.5 * (math.e - 2), -0.5 * (1 - math.log(2)), 0.0]
    )
    assert rewards(unit="reply") == pytest.approx([0.0, 1.0, 0.5 * math.log(2), 0.0])
    assert rewards(share=torch.tensor([0.5, 0.0])) == pytest.approx([-0.25, 1.25, 0.0, 0.0])
    both = objective.token_rewards(score, logp, ref_logp, mask, 0.5, estimator="k3", unit="reply")
    each = objective.token_rewards(score, logp, ref_logp, mask, 0.5, estimator="k3")
    assert torch.allclose(both.sum(1), each.sum(1))  # where it is taken off, not how much


def test_an_empty_reply_is_refused() -> None:
    mask = torch.tensor([[True], [False]])
    with pytest.raises(ValueError, match="without a token"):
        objective.token_rewards(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, 1), mask, 0.1)


def test_advantages_by_hand() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = objective.advantages(torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3), mask, gamma=0.5, lam=0.5)
    assert found.tolist() == [[1 / 16, 1 / 4, 1.0]]
    # Values 1, 2, 4 and reward 3 at the end, γ=1, λ=0: one-step errors 2-1, 4-2, 3-4.
    value = torch.tensor([[1.0, 2.0, 4.0]])
    assert objective.advantages(torch.tensor([[0.0, 0.0, 3.0]]), value, mask, 1.0, 0.0).tolist() == [[1.0, 2.0, -1.0]]


def test_lambda_one_gives_return_less_value() -> None:
    reward, value = torch.tensor([[1.0, -2.0, 4.0]]), torch.tensor([[0.5, 0.25, -1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = objective.advantages(reward, value, mask, gamma=1.0, lam=1.0)
    assert torch.allclose(found, torch.tensor([[3.0, 2.0, 4.0]]) - value)
    assert torch.allclose(objective.returns(found, value, mask), torch.tensor([[3.0, 2.0, 4.0]]))


def test_padding_neither_decays_nor_bootstraps() -> None:
    mask = torch.tensor([[True, False, True, False]])
    reward, value = torch.tensor([[0.0, NAN, 1.0, NAN]]), torch.tensor([[0.5, NAN, 0.25, NAN]])
    dense = objective.advantages(
        torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.ones(1, 2).bool(), 0.9, 0.8
    )
    found = objective.advantages(reward, value, mask, 0.9, 0.8)
    assert torch.allclose(found[mask], dense[0])
    assert found[~mask].tolist() == [0.0, 0.0]


def test_whitening_removes_the_mean_over_valid_tokens_only() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    found = objective.whiten(torch.tensor([[1.0, 2.0], [3.0, NAN]]), mask)
    assert torch.allclose(found[mask], torch.tensor([-1.0, 0.0, 1.0]) * math.sqrt(1.5))
    assert found[~mask].tolist() == [0.0]
    assert objective.whiten(torch.full((2, 2), 7.0), mask).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    kept = objective.whiten(torch.tensor([[1.0, 2.0], [3.0, NAN]]), mask, keep_mean=True)
    assert kept.flatten().tolist() == pytest.approx([2 - 1.5**0.5, 2.0, 2 + 1.5**0.5, 0.0])


@pytest.mark.parametrize(("advantage", "expected"), [(1.0, -1.2), (-1.0, 2.0)])
def test_the_surrogate_clips_only_what_would_gain(advantage: float, expected: float) -> None:
    logp, mask = torch.tensor([[math.log(2)]]), torch.ones(1, 1, dtype=torch.bool)
    loss = objective.clipped_surrogate(logp, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, clip=0.2)
    assert loss.item() == pytest.approx(expected)


def test_a_nan_in_the_padding_reaches_neither_loss_nor_gradient() -> None:
    mask = torch.tensor([[True, False]])
    logp = torch.tensor([[-1.0, NAN]], requires_grad=True)
    value = torch.tensor([[0.5, NAN]], requires_grad=True)
    rest = torch.tensor([[-1.0, NAN]])
    loss = objective.clipped_surrogate(logp, rest, torch.tensor([[2.0, NAN]]), mask, 0.2)
    (loss + objective.value_error(value, rest, rest, mask, 0.2)).backward()
    assert loss.item() == pytest.approx(-2.0)
    assert logp.grad is not None and value.grad is not None
    assert logp.grad.tolist() == [[-2.0, 0.0]]
    assert value.grad.isfinite().all()


def test_the_parts_of_a_minibatch_add_up_to_its_token_mean() -> None:
    logp, old, gain = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    mask = torch.arange(4) < torch.tensor([[4], [1], [2]])
    whole = objective.clipped_surrogate(logp, old, gain, mask, 0.2)
    parts = [objective.clipped_surrogate(logp[i], old[i], gain[i], mask[i], 0.2, tokens=7) for i in range(3)]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-6)  # type: ignore[union-attr]


def test_an_absurd_log_ratio_stays_finite() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = objective.clipped_surrogate(torch.tensor([[0.0]]), torch.tensor([[-1e4]]), torch.tensor([[-1.0]]), mask, 0.2)
    assert math.isfinite(loss.item())


def test_value_error_takes_the_worse_of_plain_and_clipped() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    old, target = torch.zeros(1, 1), torch.ones(1, 1)
    # V moved from 0 to 1, the target: plain error 0, but only 0.2 of the move is believed: ½·0.8².
    assert objective.value_error(torch.ones(1, 1), old, target, mask, 0.2).item() == pytest.approx(0.32)
    assert objective.value_error(torch.ones(1, 1), old, target, mask, None).item() == 0.0
    # V moved away to -1: plain error 4 is worse than the clipped (-0.2-1)² = 1.44.
    assert objective.value_error(-torch.ones(1, 1), old, target, mask, 0.2).item() == pytest.approx(2.0)


def test_kl_estimators_average_to_the_exact_divergence() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    exact = (p * (p / q).log()).sum().item()
    mask = torch.ones(1, 3, dtype=torch.bool)
    k1, k2, k3 = objective.kl_estimators(p.log()[None], q.log()[None], mask)
    assert (p * k1[0]).sum().item() == pytest.approx(exact, abs=1e-6)
    assert (p * k3[0]).sum().item() == pytest.approx(exact, abs=1e-6)
    assert torch.allclose(k2, k1.square() / 2)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8))
def test_k3_is_never_negative_and_padding_counts_nothing(difference: list[float]) -> None:
    logp = torch.tensor([[*difference, NAN]])
    mask = logp.isfinite()
    k1, k2, k3 = objective.kl_estimators(logp, torch.zeros_like(logp), mask)
    assert (k3 >= 0).all() and (k2 >= 0).all()
    assert k1[0, -1] == k2[0, -1] == k3[0, -1] == 0


def test_entropy_of_a_fair_choice_and_of_a_certain_one() -> None:
    found = objective.entropy(torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0]]))
    assert found.tolist() == pytest.approx([math.log(4), 0.0], abs=1e-6)


def test_explained_variance() -> None:
    target, mask = torch.tensor([[1.0, 2.0, 3.0, NAN]]), torch.tensor([[True, True, True, False]])
    assert objective.explained_variance(target, target, mask) == pytest.approx(1.0)
    assert objective.explained_variance(torch.full((1, 4), 9.0), target, mask) == pytest.approx(0.0)
    assert objective.explained_variance(target, torch.ones(1, 4), mask) == 0.0


def test_the_kl_weight_moves_towards_its_target_by_at_most_a_fifth() -> None:
    assert objective.adapted_kl_weight(0.1, kl=12.0, target=6.0, episodes=1000, horizon=10_000) == pytest.approx(0.102)
    assert objective.adapted_kl_weight(0.1, kl=0.0, target=6.0, episodes=1000, horizon=10_000) == pytest.approx(0.098)
    assert objective.adapted_kl_weight(0.1, kl=6.6, target=6.0, episodes=10_000, horizon=10_000) == pytest.approx(0.11)


def test_clip_fraction_counts_valid_tokens_only() -> None:
    logp = torch.log(torch.tensor([[1.1, 1.5, 0.5, 9.0]]))
    mask = torch.tensor([[True, True, True, False]])
    assert objective.clip_fraction(logp, torch.zeros(1, 4), mask, 0.2).item() == pytest.approx(2 / 3)


def test_the_plain_ratio_and_the_dual_clip() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    rho = torch.tensor([[2.0, 0.5, 8.0, 0.5]])
    gain = torch.tensor([[1.0, 1.0, -1.0, -1.0]])

    def loss(clip: float | None, dual_clip: float | None = None) -> float:
        return objective.clipped_surrogate(rho.log(), torch.zeros(1, 4), gain, mask, clip, dual_clip=dual_clip).item()

    assert loss(None) == pytest.approx(-(2.0 + 0.5 - 8.0 - 0.5) / 4)
    assert loss(0.2) == pytest.approx(-(1.2 + 0.5 - 8.0 - 0.8) / 4)
    assert loss(0.2, 3.0) == pytest.approx(-(1.2 + 0.5 - 3.0 - 0.8) / 4)  # -8 is held at -3


def test_entropy_loss_by_hand_and_in_parts() -> None:
    entropy = torch.tensor([1.0, 2.0, 3.0])
    assert objective.entropy_loss(entropy, 0.1).item() == pytest.approx(-0.2)
    assert objective.entropy_loss(entropy, 0.1, sign=1.0).item() == pytest.approx(0.2)
    parts = sum(objective.entropy_loss(part, 0.1, tokens=3) for part in entropy.split(2))
    assert float(parts) == pytest.approx(-0.2)


def test_pretraining_loss_is_a_weighted_mean_over_tokens_whatever_the_parts() -> None:
    logp, mask = torch.tensor([[-1.0, -3.0], [-2.0, NAN]]), torch.tensor([[True, True], [True, False]])
    assert objective.pretraining_loss(logp, mask, 27.8).item() == pytest.approx(27.8 * 2)
    parts = [objective.pretraining_loss(logp[row : row + 1], mask[row : row + 1], 27.8, tokens=3) for row in (0, 1)]
    assert float(sum(parts)) == pytest.approx(27.8 * 2)


def test_value_clip_fraction_counts_tokens_that_moved_far() -> None:
    value, old = torch.tensor([[0.3, 0.1, NAN]]), torch.tensor([[0.0, 0.0, NAN]])
    assert objective.value_clip_fraction(value, old, torch.tensor([[True, True, False]]), 0.2).item() == 0.5
