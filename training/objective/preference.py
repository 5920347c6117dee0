"""What a preference model minimises.  Shapes and sources: __init__.py."""

import torch
from torch import Tensor
from torch.nn import functional


def preference_loss(chosen_score: Tensor, rejected_score: Tensor, margin: Tensor | None = None) -> Tensor:
    """Mean of -log σ(r_chosen - r_rejected - m)   ([Bai] §2 with m = 0; [Touvron] eq. 2).  [B], [B], [B] -> []"""
    lead = chosen_score - rejected_score
    return -functional.logsigmoid(lead if margin is None else lead - margin).mean()


def kwise_loss(
    score: Tensor,
    rank: Tensor,
    mask: Tensor | None = None,
    *,
    margin: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean over groups of the mean over ordered pairs of -log σ(r_i - r_j)   ([Ouyang] eq. 1).  [B, K] -> []

    `rank` 1 is best; equal ranks are ties and make no pair; `mask` False marks a missing candidate. A group's C(K,2)
    pairs share one weight, so a long ranking does not outvote a short one. Groups without a pair count for nothing.
    `margin` [B] is taken off every lead of a group ([Touvron] eq. 2); `weight` [B] multiplies its loss ([Bai] §5.1.2: λ).
    """
    present = torch.ones_like(rank, dtype=torch.bool) if mask is None else mask
    better = (rank[:, :, None] < rank[:, None, :]) & present[:, :, None] & present[:, None, :]
    group, winner, loser = better.nonzero(as_tuple=True)
    if group.numel() == 0:
        raise ValueError("no group holds two candidates of different rank: there is nothing to learn from")
    lead = score[group, winner] - score[group, loser]
    pair = -functional.logsigmoid(lead if margin is None else lead - margin[group])
    if weight is not None:
        pair = pair * weight[group]
    pairs_of_group = better.sum((1, 2))
    return (pair / pairs_of_group[group]).sum() / (pairs_of_group > 0).sum()


def binary_loss(score: Tensor, good: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of -log σ(r) for good samples and of -log σ(-r) for bad ones   ([Askell] §3.2).  [B], [B] bool -> []"""
    loss = -functional.logsigmoid(torch.where(good, score, -score))
    return (loss if weight is None else loss * weight).mean()
