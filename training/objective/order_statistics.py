"""Best of k and median of m, from the same n samples.  P prompts, N samples of each; shapes and sources: __init__.py."""

import math
from functools import cache

import torch
from torch import Tensor


def best_of_kl(k: int) -> float:
    """KL(best of k ‖ one sample) ≤ log k - (k-1)/k in nats, with equality where no two samples score the same."""
    return math.log(k) - (k - 1) / k


def best_of_kl_heuristic(k: int) -> float:
    """The figure log k of [Bai] §4.3 in nats: above `best_of_kl` by (k-1)/k."""
    return math.log(k)


@cache
def _at_most(n: int, m: int, j: int) -> tuple[float, ...]:
    """P(the j-th smallest of m drawn from n without replacement is among the i smallest of the n), i = 0 .. n."""
    return tuple(
        sum(math.comb(i, t) * math.comb(n - i, m - t) for t in range(j, min(i, m) + 1)) / math.comb(n, m)
        for i in range(n + 1)
    )


def order_statistic_shares(key: Tensor, m: int, j: int) -> Tensor:
    """How often each of N samples is the j-th smallest by `key` of m drawn without replacement.  [P, N] -> [P, N], rows sum to 1

    Samples of equal key share evenly, as where a coin decides. j = m is the best of m; j = (m+1)/2 of an odd m its median
    ([Bai] §6.1: 17). Any value of the samples weighted so, the key itself, another model's score or whether it beats a rival,
    sums to its mean over all C(N, m) subsets, not over one: an unbiased estimate for the sample that would be taken of m.
    """
    n = key.shape[1]
    if not 1 <= j <= m <= n:
        raise ValueError(f"of {n} samples, {m} cannot be drawn and their {j}-th taken; need 1 <= j <= m <= n")
    table = torch.tensor(_at_most(n, m, j), dtype=torch.float64, device=key.device)
    ordered = key.sort(1).values
    below = torch.searchsorted(ordered, key.contiguous())
    up_to = torch.searchsorted(ordered, key.contiguous(), right=True)
    return (table[up_to] - table[below]) / (up_to - below)
