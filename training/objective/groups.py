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


def bounded_weight(weight: float, returns: Tensor) -> float:
    """β_policy, lowered where 1 - 2β(R_g - R̄) would reach 0 for the best group: at most 0.45 over that distance.  [M]"""
    above = float((returns - returns.mean()).max())
    return min(weight, 0.45 / above) if above > 0 else weight


def group_weights(returns: Tensor, label: Tensor, weight: float) -> Tensor:
    """w(x,y) = Σ_g p(g|x,y) w_g,  w_g = 1 - 2β(R_g - R̄): multiplies the advantages of a reply.  [M], [N, M] -> [N]

    The gradient of mean_g R_g - β Var_g ([GI] eq. 5) is mean_g w_g ∇R_g; where the groups are equally large and belong to
    prompts, that is the policy gradient with these weights. β times the spread of R_g must stay below ½ (`bounded_weight`).
    """
    found: Tensor = label @ (1.0 - 2.0 * weight * (returns - returns.mean()))
    return found
