"""Groups that are inferred, not given: a head on the critic's features, trained to make the groups' returns differ.

Group-invariant learning (Zheng et al. 2023, 2310.11971) alternates: the head φ looks for the groups whose returns differ
most, the policy learns to make them equal. Here φ learns together with the critic, in the same minibatches, from replies that
the policy has written; the policy learns with the labels that φ gave before. The features are the critic's state before the
last token of a reply, so it has seen the prompt and all but the end of what was said.
"""

import math

import torch
from torch import Tensor, nn

from training import objective
from training.config import PolicyConfig
from training.failure import JobFailed


class GroupHead(nn.Module):
    """p_φ(g|x,y): one linear layer and a softmax. Its start is random, since equal labels have no gradient to part by."""

    def __init__(self, width: int, groups: int, seed: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, groups)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.linear.weight.normal_(0.0, 1 / math.sqrt(width + 1), generator=generator)
            self.linear.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Soft labels.  [N, d] -> [N, M]"""
        return torch.softmax(self.linear(features.float()), dim=-1)


def penalty_share(earned: Tensor, label: Tensor, floor: float) -> Tensor:
    """p_φ(g_high|x,y), what a reply's KL penalty is multiplied by (eq. 6).  [N], [N, M] -> [N]

    g_high is the group with the larger mean return, found anew in every iteration: strong on what is easy, slack on what is
    hard. `earned` is here what the replies would earn under the plain penalty. A group below `floor` even shares is passed
    over, since almost no reply would be held near the initial policy; where that leaves one group, the penalty is the plain one.
    """
    large = (objective.group_sizes(label) >= floor).nonzero()[:, 0]
    if len(large) < 2:  # one group has nothing to be higher than
        return torch.ones_like(earned)
    return label[:, int(large[objective.group_returns(earned, label)[large].argmax()])]


def policy_weights(config: PolicyConfig, earned: Tensor, label: Tensor | None) -> tuple[Tensor, float]:
    """What the advantages of each reply are multiplied by [N], and the β_policy in it after its bound.

    With `variance_over` "replies" every reply is a group of its own: the penalty on the variance of returns as such.
    """
    if config.variance_over == "replies":
        label = torch.eye(len(earned), device=earned.device)
    assert label is not None
    leads = objective.group_leads(objective.group_returns(earned, label), label, config.group_floor)
    beta = objective.bounded_weight(config.group_policy_weight, leads)
    return objective.group_weights(leads, label, beta), beta


def group_numbers(earned: Tensor, label: Tensor, after: Tensor) -> dict[str, float]:
    """What is watched of the groups; `after` are the labels of the same replies when φ had learnt from them."""
    found = objective.group_returns(earned, label)
    if not bool(found.isfinite().all()):
        raise JobFailed("a group has lost all its replies; set group_balance above 0, or fewer groups")
    share, low, high = label.mean(0), int(found.argmin()), int(found.argmax())
    return {
        "group_share_high": float(share[high]),
        "group_share_least": float(share.min()),
        "group_return_low": float(found[low]),
        "group_return_high": float(found[high]),
        "group_variance": float(objective.group_variance(earned, label)),
        "group_certainty": float(label.max(1).values.mean()),
        "group_churn": float((label.argmax(1) != after.argmax(1)).float().mean()),
    }
