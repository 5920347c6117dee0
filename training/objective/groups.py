"""Group-invariant learning ([GI] Zheng et al. 2023, 2310.11971): groups by soft labels, and the variance of their returns.

N replies, M groups; `label` [N, M] is p_φ(g|x,y), rows sum to 1; `earned` [N] is R(x,y), a reply's whole reward.
"""

import torch
from torch import Tensor


def group_returns(earned: Tensor, label: Tensor) -> Tensor:
    """R_g = Σ p(g|x,y) R / Σ p(g|x,y)   ([GI] eq. 4 with soft labels).  [N], [N, M] -> [M]"""
    found: Tensor = earned @ label / label.sum(0)
    return found


def group_variance(earned: Tensor, label: Tensor) -> Tensor:
    """Var_g = mean_g (R_g - R̄)², R̄ = mean_g R_g: what φ maximises and the policy minimises   ([GI] eqs. 4-5).  -> []"""
    found = group_returns(earned, label)
    variance: Tensor = (found - found.mean()).square().mean()
    return variance


def group_balance(label: Tensor) -> Tensor:
    """Entropy of the groups' shares of the replies, in nats: log M when they are even, 0 when one has all.  [N, M] -> []"""
    share = label.mean(0)
    found: Tensor = -torch.special.xlogy(share, share).sum()
    return found


def group_loss(earned: Tensor, label: Tensor, weight: float, balance: float) -> Tensor:
    """-β_critic Var_g - b·H(shares), what φ descends; the second term is ours, against empty groups.  [N], [N, M] -> []"""
    return -weight * group_variance(earned, label) - balance * group_balance(label)


def label_gradient(earned: Tensor, label: Tensor, weight: float, balance: float) -> Tensor:
    """∂/∂p of `group_loss` over all replies of a minibatch.  [N], [N, M] -> [N, M]

    R_g is a quotient of sums over the minibatch, so forward passes over parts of it could not add up to it. With these as
    constants they can: Σ ∂·p_φ over a part has the gradient that φ would get from the whole.
    """
    with torch.enable_grad():
        free = label.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(group_loss(earned, free, weight, balance), free)
        return found


def group_sizes(label: Tensor) -> Tensor:
    """M s_g, a group's share of the replies in units of an even share: 1 where all are equally large.  [N, M] -> [M]"""
    return label.mean(0) * label.shape[1]


def group_leads(returns: Tensor, label: Tensor, floor: float) -> Tensor:
    """d_g = (R_g - R̄) / (M s_g): a reply's part in ∂Var_g is 2 Σ_g p(g|x,y) d_g.  [M], [N, M] -> [M]

    M s_g counts as no less than `floor`: of a group of a few replies R_g is mostly noise, and the few would get all its weight.
    """
    return (returns - returns.mean()) / group_sizes(label).clamp(min=floor)


def bounded_weight(weight: float, leads: Tensor) -> float:
    """β_policy, lowered where 1 - 2β d_g would reach 0 for some group: at most 0.45 over the largest d_g.  [M]"""
    above = float(leads.max())
    return min(weight, 0.45 / above) if above > 0 else weight


def group_weights(leads: Tensor, label: Tensor, weight: float) -> Tensor:
    """w(x,y) = 1 - 2β Σ_g p(g|x,y) d_g: multiplies the advantages of a reply.  [M], [N, M] -> [N]

    The policy gradient of E[R] - β Var_g ([GI] eq. 5) where labels belong to prompts: ∂R_g = E[p(g|x,y) ∂R] / s_g, so a
    reply of a small group moves its R_g more. The mean of w is 1 while no group is below the floor of `group_leads`.
    β times the largest d_g must stay below ½ (`bounded_weight`).
    """
    found: Tensor = 1.0 - 2.0 * weight * (label @ leads)
    return found
