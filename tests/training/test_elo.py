"""Elo by maximum likelihood: two players by hand, errors, and records that have no answer."""

import math

import pytest
import torch

from training.objective import (
    POINTS_A_NAT,
    clustered_covariance,
    comparable,
    fitted_strengths,
    wins_log_likelihood,
)


def test_a_nat_is_174_points() -> None:
    assert round(POINTS_A_NAT) == 174
    assert pytest.approx(math.e / (1 + math.e)) == 1 / (1 + 10 ** (-POINTS_A_NAT / 400))


def test_three_wins_of_four_by_hand() -> None:
    """The maximum is where the win fraction is 3/4: log 3 nats, 400·log10(3) = 190.8 points; variance 1/(4·¾·¼)."""
    wins = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    fitted = fitted_strengths(wins)
    assert fitted.strength.tolist() == pytest.approx([0.0, math.log(3)])
    assert float(fitted.strength[1]) * POINTS_A_NAT == pytest.approx(400 * math.log10(3))
    assert float(fitted.covariance[1, 1]) == pytest.approx(1 / (4 * 0.75 * 0.25))
    best = float(wins_log_likelihood(wins, fitted.strength))
    assert best == pytest.approx(3 * math.log(0.75) + math.log(0.25))
    assert fitted_strengths(wins, reference=1).strength.tolist() == pytest.approx([-math.log(3), 0.0])


def test_strengths_come_back_from_their_expected_wins() -> None:
    truth = torch.tensor([0.0, 1.0, -0.5, 3.0], dtype=torch.float64)
    wins = 1000 * torch.sigmoid(truth[:, None] - truth[None, :])
    assert fitted_strengths(wins).strength.tolist() == pytest.approx(truth.tolist(), abs=1e-8)


def test_a_missing_pairing_is_bridged_by_others() -> None:
    wins = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    assert fitted_strengths(wins).strength.tolist() == pytest.approx([0.0, 0.0, math.log(3)])


def test_a_player_who_always_wins_has_no_finite_strength() -> None:
    with pytest.raises(ValueError, match="never beat"):
        fitted_strengths(torch.tensor([[0.0, 0.0], [5.0, 0.0]]))


def test_who_can_be_held_against_the_reference() -> None:
    """0 beat 1, 1 beat 2, 2 beat 0; 3 lost every game, 4 won every game, 5 beat 4 and nobody beat it."""
    wins = torch.zeros(6, 6)
    for winner, loser in [
        (0, 1),
        (1, 2),
        (2, 0),
        (0, 3),
        (1, 3),
        (2, 3),
        (4, 0),
        (4, 1),
        (4, 2),
        (4, 3),
        (5, 4),
        (5, 0),
    ]:
        wins[winner, loser] = 2.0
    assert comparable(wins) == [0, 1, 2] and comparable(wins, reference=2) == [0, 1, 2]
    assert comparable(wins, reference=3) == [3]
    assert fitted_strengths(wins[:3, :3]).strength.tolist() == pytest.approx([0.0, 0.0, 0.0])


def test_games_that_repeat_each_other_do_not_shrink_the_clustered_error() -> None:
    one = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]] * 3 + [[[0.0, 1.0], [0.0, 0.0]]])
    once, twice = fitted_strengths(one.sum(0)), fitted_strengths(2 * one.sum(0))
    assert float(twice.covariance[1, 1]) == pytest.approx(float(once.covariance[1, 1]) / 2)
    # Σ(y - p)² = 3/16 + 9/16 = n·p·q here, so the sandwich is the likelihood's variance times P/(P-1)
    expected = 4 / 3 * float(once.covariance[1, 1])
    assert float(clustered_covariance(one, once)[1, 1]) == pytest.approx(expected)
    assert float(clustered_covariance(2 * one, twice)[1, 1]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="one prompt"):
        clustered_covariance(one[:1], once)
