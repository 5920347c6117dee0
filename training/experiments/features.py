"""The world of section A's experiments: a reply is a vector of features, its gold score a formula of them.

A policy is a distribution over N replies, so KL, mean scores and policy gradients are exact sums; a preference model is linear in
features and learns from pairs by `objective.preference_loss`. Everything is float64.
"""

import torch
from torch import Tensor

from training import objective


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Draws from N(0, 1)."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def compared(policy: Tensor, gold: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` pairs of replies from `policy` and let people with P(A>B) = σ(gold_A - gold_B) choose.  [N], [N] -> [count] each

    Returns the numbers of the chosen and of the rejected replies.
    """
    pairs = torch.multinomial(policy, 2 * count, replacement=True, generator=generator).view(2, count)
    draw = torch.rand(count, generator=generator, dtype=torch.float64)
    first = draw < torch.sigmoid(gold[pairs[0]] - gold[pairs[1]])
    return torch.where(first, pairs[0], pairs[1]), torch.where(first, pairs[1], pairs[0])


def learnt(chosen: Tensor, rejected: Tensor, decay: float, weight: Tensor | None = None) -> Tensor:
    """The linear preference model of least loss on features of pairs, plus λ/2 |w|².  [n, d], [n, d] -> [d]

    `weight` [n] makes the loss of some pairs count more, the way of [Bai] §5.1.2.
    """
    w = torch.zeros(chosen.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    share = torch.ones(len(chosen), dtype=torch.float64) if weight is None else weight
    kinds = [(kind, float(share[share == kind].sum() / share.sum())) for kind in share.unique()]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = decay / 2 * w.square().sum()
        for kind, part in kinds:
            some = share == kind
            loss = loss + part * objective.preference_loss(chosen[some] @ w, rejected[some] @ w)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    return w.detach()


def divergence(policy: Tensor, base: Tensor) -> float:
    """KL(policy ‖ base) in nats, exactly.  [N], [N]"""
    return float(torch.xlogy(policy, policy / base).sum())


def tilted(base: Tensor, score: Tensor, strength: float) -> Tensor:
    """The optimum of E[score] - KL/strength: base · exp(strength · score), normalised.  [N], [N] -> [N]"""
    return torch.softmax(base.log() + strength * score, 0)


def tilted_to(base: Tensor, score: Tensor, kl: float) -> Tensor:
    """The best policy for `score` at this KL from `base`, by bisection.  [N], [N] -> [N]"""
    low, high = 0.0, 1.0
    while divergence(tilted(base, score, high), base) < kl and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(tilted(base, score, middle), base) < kl else (low, middle)
    return tilted(base, score, (low + high) / 2)
