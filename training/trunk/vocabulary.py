"""Log-probabilities of given tokens from hidden states, through a vocabulary head, in one autograd function.

The logits of M states take M·V numbers several times over when autograd keeps them; here the probabilities alone are kept,
in the place of the logits, piece by piece. M states, d wide, V words.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.native import passing
from training.trunk.half import rows_of

PIECE = 4 * 2**20  # logits at once: 16 MiB stay near the cores, and the allocator gives the same memory again


class Told(NamedTuple):
    """What a vocabulary head says of M tokens."""

    logp: Tensor  # [M] log π of each; differentiable
    entropy: Tensor  # [M] of each distribution, in nats; differentiable


def tell(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float = 1.0, *, half: bool = False
) -> Told:
    """Log-probability and entropy of softmax((h Wᵀ + b) / temperature).  [M, d], [V, d], [V], [M] -> [M], [M]"""
    learn = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return Told(*_Tell.apply(hidden, weight, bias, tokens, temperature, half, learn))


def normalise(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Turn logits into probabilities in place; log-probability of the tokens and entropy.  [m, V], [m] -> [m], [m]"""
    if passing.takes(logits):
        return passing.normalise(logits, tokens, temperature)
    if temperature != 1.0:
        logits /= temperature
    total = logits.logsumexp(-1, keepdim=True)
    logp = (logits.gather(1, tokens[:, None]) - total)[:, 0]
    probability = (logits - total).exp_()
    # a logit of -inf has probability 0 and adds nothing: 0 · -inf would be NaN
    mean = torch.where(probability > 0, probability * logits, 0.0).sum(-1)
    logits.copy_(probability)
    return logp, total[:, 0] - mean


def denormalise(
    probability: Tensor, tokens: Tensor, gradient: Tensor, spread: tuple[Tensor, Tensor] | None = None
) -> None:
    """Turn probabilities into the gradient of the logits in place: (1[token] - p) g.  [m, V], [m], [m]

    `spread`: the entropies H and their gradients h [m] each, which add -p (log p + H) h.
    """
    if spread is None and passing.takes(probability, gradient):
        passing.denormalise(probability, tokens, gradient)
        return
    share = -gradient[:, None].expand_as(probability)
    if spread is not None:
        entropy, pull = spread
        # where p is 0 the product is 0 whatever its logarithm
        share = (
            share - (probability.clamp_min(torch.finfo(torch.float32).tiny).log() + entropy[:, None]) * pull[:, None]
        )
    probability.mul_(share)
    probability.scatter_add_(1, tokens[:, None], gradient[:, None])


class _Tell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float, half: bool,
        learn: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        rows = max(1, PIECE // len(weight))
        transposed = (weight.bfloat16() if half else weight).t()
        scratch = None if learn else hidden.new_empty(min(rows, len(hidden)), len(weight))
        kept, logps, entropies = [], [], []
        for states, wanted in zip(hidden.split(rows), tokens.split(rows), strict=True):
            if half:
                logits = torch.mm(rows_of(states, half).table, transposed)[: len(states)].float()
            else:
                place = None if scratch is None else scratch[: len(states)]
                logits = torch.mm(states, transposed, out=place)
            if bias is not None:
                logits += bias
            logp, entropy = normalise(logits, wanted, temperature)
            logps.append(logp)
            entropies.append(entropy)
            if learn:
                kept.append(logits)
        found = torch.cat(logps), torch.cat(entropies)
        if learn:
            ctx.save_for_backward(hidden, weight, bias, tokens, found[1])
            ctx.kept, ctx.rows, ctx.temperature, ctx.half = kept, rows, temperature, half
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, pull: Tensor | None) -> tuple[Any, ...]:
        if ctx.kept is None:
            raise RuntimeError("the gradient of these log-probabilities can be taken once; run the forward pass again")
        hidden, weight, bias, tokens, entropy = ctx.saved_tensors
        if gradient is None:  # of the log-probabilities; `pull` is that of the entropies
            gradient = torch.zeros_like(entropy)
        into = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        head: Tensor | None = None
        shift = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        rows = ctx.rows
        for number, probability in enumerate(ctx.kept):
            at = slice(number * rows, number * rows + len(probability))
            spread = None if pull is None else (entropy[at], pull[at] / ctx.temperature)
            denormalise(probability, tokens[at], gradient[at] / ctx.temperature, spread)
            count = len(probability)
            pushed, states = (rows_of(table, ctx.half).table for table in (probability, hidden[at]))
            by = weight.bfloat16() if ctx.half else weight
            if into is not None:
                into[at] = torch.mm(pushed, by)[:count]
            if ctx.needs_input_grad[1]:
                if head is None or ctx.half:
                    part = torch.mm(pushed.t(), states).float()
                    head = part if head is None else head.add_(part)
                else:
                    head.addmm_(pushed.t(), states)
            if shift is not None:
                shift += probability.sum(0)
        ctx.kept = None  # denormalise wrote over it
        return into, head, shift, None, None, None, None
