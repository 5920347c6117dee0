"""Log-probabilities of given tokens from hidden states, through a vocabulary head, in one autograd function.

The logits of M states take M·V numbers several times over when autograd keeps them; here they are kept once, as the product
made them, and their gradient takes their place, piece by piece. M states, d wide, V words.
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


class _Known(NamedTuple):
    """What is known of the softmax of m rows of logits."""

    logp: Tensor  # [m] of the tokens
    entropy: Tensor  # [m]
    total: Tensor  # [m] the logarithm of the sum of exponentials


def normalise(logits: Tensor, tokens: Tensor, temperature: float) -> _Known:
    """What softmax(logits / temperature) says of the tokens, in float32.  [m, V] in float32 or bfloat16, [m]"""
    if passing.takes(tables=[logits]):
        return _Known(*passing.normalise(logits, tokens, temperature))
    scaled = logits.float() / temperature
    total = scaled.logsumexp(-1, keepdim=True)
    logp = scaled - total
    # a logit of -inf has probability 0 and adds nothing: 0 · -inf would be NaN
    entropy = -torch.where(logp > -torch.inf, logp.exp() * logp, 0.0).sum(-1)
    return _Known(logp.gather(1, tokens[:, None])[:, 0], entropy, total[:, 0])


def denormalise(
    logits: Tensor,
    tokens: Tensor,
    gradient: Tensor,
    total: Tensor,
    temperature: float,
    spread: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Turn logits into the gradient of logits / temperature in place: (1[token] - p) g.  [m, V], [m], [m], [m]

    `spread`: the entropies H and their gradients h [m] each, which add -p (log p + H) h.
    """
    if spread is None and passing.takes(gradient, total, tables=[logits]):
        passing.denormalise(logits, tokens, gradient, total, temperature)
        return
    probability = (logits.float() / temperature - total[:, None]).exp_()
    share = -gradient[:, None].expand_as(probability)
    if spread is not None:
        entropy, pull = spread
        # where p is 0 the product is 0 whatever its logarithm
        share = (
            share - (probability.clamp_min(torch.finfo(torch.float32).tiny).log() + entropy[:, None]) * pull[:, None]
        )
    logits.copy_(probability.mul_(share).scatter_add_(1, tokens[:, None], gradient[:, None]))


class _Tell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float, half: bool,
        learn: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        rows = max(1, PIECE // len(weight))
        head = weight.bfloat16() if half else weight
        scratch: Tensor | None = None
        kept, known = [], []
        for states, wanted in zip(hidden.split(rows), tokens.split(rows), strict=True):
            table = rows_of(states, half).table
            place = None if scratch is None else scratch[: len(table)]
            logits = torch.mm(table, head.t(), out=place)
            if bias is not None:
                logits[: len(states)] += bias
            known.append(normalise(logits[: len(states)], wanted, temperature))
            if learn:
                kept.append(logits)
            elif scratch is None:  # the first piece is the largest
                scratch = logits
        logp, entropy, total = (torch.cat(parts) for parts in zip(*known, strict=True))
        if learn:
            ctx.save_for_backward(hidden, weight, bias, tokens, entropy, total)
            ctx.kept, ctx.rows, ctx.temperature, ctx.half = kept, rows, temperature, half
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, pull: Tensor | None) -> tuple[Any, ...]:
        if ctx.kept is None:
            raise RuntimeError("the gradient of these log-probabilities can be taken once; run the forward pass again")
        hidden, weight, bias, tokens, entropy, total = ctx.saved_tensors
        by = weight.bfloat16() if ctx.half else weight
        if gradient is None:  # of the log-probabilities; `pull` is that of the entropies
            gradient = torch.zeros_like(entropy)
        into = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        head: Tensor | None = None
        shift = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for number, logits in enumerate(ctx.kept):
            at = slice(number * ctx.rows, min((number + 1) * ctx.rows, len(hidden)))
            states = rows_of(hidden[at], ctx.half)
            own = logits[: states.filled]
            spread = None if pull is None else (entropy[at], pull[at] / ctx.temperature)
            denormalise(own, tokens[at], gradient[at] / ctx.temperature, total[at], ctx.temperature, spread)
            if into is not None:
                into[at] = torch.mm(logits, by)[: states.filled]
            if ctx.needs_input_grad[1]:
                if head is None or ctx.half:
                    part = torch.mm(logits.t(), states.table).float()
                    head = part if head is None else head.add_(part)
                else:
                    head.addmm_(logits.t(), states.table)
            if shift is not None:
                shift += own.sum(0, dtype=shift.dtype)
        ctx.kept = None  # denormalise wrote over it
        return into, head, shift, None, None, None, None
