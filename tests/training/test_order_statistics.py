"""Best of k and median of m from the same samples: by hand, and against drawing every subset."""

import itertools
import math

import pytest
import torch

from training.objective import best_of_kl, best_of_kl_heuristic, order_statistic_shares


def test_best_of_two_of_three_by_hand() -> None:
    """Of the pairs {3,1}, {3,2}, {1,2} the best are 3, 3 and 2."""
    key = torch.tensor([[3.0, 1.0, 2.0]])
    assert order_statistic_shares(key, 2, 2)[0].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    gold = torch.tensor([[10.0, 99.0, 40.0]])
    assert [taken(key, gold, k, k) for k in (1, 2, 3)] == pytest.approx([149 / 3, 20.0, 10.0])
    assert taken(key, gold, 3, 2) == pytest.approx(40.0)


def taken(key: torch.Tensor, value: torch.Tensor, m: int, j: int) -> float:
    """The mean value of the one prompt's sample that is taken."""
    return float((order_statistic_shares(key, m, j) * value).sum())


def test_equal_scores_share_evenly() -> None:
    key = torch.tensor([[1.0, 1.0, 0.0]])
    assert order_statistic_shares(key, 2, 2)[0].tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert order_statistic_shares(torch.zeros(1, 5), 3, 3)[0].tolist() == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(("m", "j"), [(1, 1), (2, 1), (2, 2), (3, 2), (5, 3), (5, 5), (6, 6)])
def test_every_subset_drawn_gives_the_same(m: int, j: int) -> None:
    key = torch.tensor([[0.4, -1.0, 2.0, 0.4, 3.0, -2.0]])
    found = torch.zeros(6)
    for subset in itertools.combinations(range(6), m):
        taken = sorted(key[0, place].item() for place in subset)[j - 1]
        equal = [place for place in subset if key[0, place].item() == taken]
        for place in equal:
            found[place] += 1 / len(equal)
    # of two equal samples, a subset that holds one alone gives it all; by symmetry both have the same share in the end
    expected = found / math.comb(6, m)
    assert order_statistic_shares(key, m, j)[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_best_of_all_is_the_maximum_and_of_one_the_mean() -> None:
    score = torch.randn(7, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, some, all_of_them = ((order_statistic_shares(score, k, k) * score).sum(1) for k in (1, 8, 64))
    assert torch.allclose(one, score.mean(1))
    assert torch.allclose(all_of_them, score.max(1).values)
    assert bool((one < some).all() and (some < all_of_them).all())


def test_the_divergence_of_the_papers_and_the_exact_one() -> None:
    assert [round(best_of_kl(k), 2) for k in (1, 4, 16, 64)] == [0, 0.64, 1.84, 3.17]
    assert best_of_kl_heuristic(64) == pytest.approx(4.159, abs=1e-3)


def test_the_exact_divergence_is_a_bound_that_fine_scores_reach() -> None:
    """Best of 4 of N equally likely replies: KL = Σ q log(q N) with q = (i/N)⁴ - ((i-1)/N)⁴."""
    gaps = []
    for replies in (10, 100, 10_000):
        rank = torch.arange(replies + 1, dtype=torch.float64) / replies
        share = (rank**4).diff()
        gaps.append(best_of_kl(4) - float((share * (share * replies).log()).sum()))
    assert gaps[0] > gaps[1] > gaps[2] > -1e-12
    assert gaps[2] < 1e-3


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="of 3 samples, 4 cannot be drawn"):
        order_statistic_shares(torch.zeros(1, 3), 4, 4)
