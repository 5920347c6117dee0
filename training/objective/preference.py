"""What a preference model minimises.  Shapes and sources: __init__.py."""

import torch
from torch import Tensor
from torch.nn import functional


def preference_loss(chosen_score: Tensor, rejected_score: Tensor) -> Tensor:
    """Mean of -log σ(r_chosen - r_rejected)   ([Bai] §2, as log(1 + e^{r_bad - r_good})).  [B], [B] -> []"""
    return -functional.logsigmoid(chosen_score - rejected_score).mean()


def kwise_loss(score: Tensor, rank: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over groups of the mean over ordered pairs of -log σ(r_i - r_j)   ([Ouyang] eq. 1).  [B, K] -> []

    `rank` 1 is best; equal ranks are ties and make no pair; `mask` False marks a missing candidate. A group's C(K,2)
    pairs share one weight, so a long ranking does not outvote a short one. Groups without a pair count for nothing.
    """
    present = torch.ones_like(rank, dtype=torch.bool) if mask is None else mask
    better = (rank[:, :, None] < rank[:, None, :]) & present[:, :, None] & present[:, None, :]
    group, winner, loser = better.nonzero(as_tuple=True)
    if group.numel() == 0:
        raise ValueError("no group holds two candidates of different rank: there is nothing to learn from")
    pair = -functional.logsigmoid(score[group, winner] - score[group, loser])
    pairs_of_group = better.sum((1, 2))
    return (pair / pairs_of_group[group]).sum() / (pairs_of_group > 0).sum()
