"""The parts of a block that are not matrix products, forward and backward: RMS norm, rotation, gated SiLU.

Each in C where the kernels can be had (training/native), in torch elsewhere. N rows, d wide; H heads of width D; F hidden
units of the feed-forward part. Numbers are computed in float32; what a product made or takes may lie in bfloat16, since
writing it in float32 between the two would only cost time.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.native import passing
from training.trunk.half import Rows, room, rows_of


def norm(x: Tensor, weight: Tensor, eps: float, *, half: bool = False) -> tuple[Rows, Tensor]:
    """The norm w · x / √(mean x² + ε) as products take it, and the inverse root.  [N, d], [d] -> [N or more, d], [N, 1]

    In float32 x may have more dimensions.
    """
    if passing.takes(x, weight):
        found = room(len(x), x.shape[-1], x, half) if half else Rows(torch.empty_like(x), len(x))
        return found, passing.norm(x, weight, eps, found.table)
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return rows_of(x * scale * weight, half), scale


def norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, plus: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gradients of x, `plus` added to it, and of the weight.  [N, d], [N, d], [d], [N, 1] -> [N, d], [d]"""
    if passing.takes(x, weight, *([] if plus is None else [plus]), tables=[gradient]):
        return passing.norm_backward(gradient, x, weight, scale, plus)
    unit, gradient = x * scale, gradient.float()
    pushed = gradient * weight
    found = (pushed - unit * (pushed * unit).mean(-1, keepdim=True)) * scale
    return found if plus is None else found + plus, (gradient * unit).flatten(0, -2).sum(0)


def turn(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> None:
    """Rotate components i and i + D/2 of every head by the angle of its row, in place.  [N, H, D], [N, D/2] twice

    The heads may be some of a larger table; `back` turns the other way.
    """
    if passing.takes(cos, sin) and x.dtype is torch.float32 and x.stride()[1:] == (x.shape[2], 1):
        passing.turn(x, cos, sin, back=back)
        return
    left, right = x.chunk(2, -1)
    cos, sin = cos[:, None], -sin[:, None] if back else sin[:, None]
    turned = left * cos - right * sin
    right.copy_(right * cos + left * sin)
    left.copy_(turned)


def turned(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """The table in float32 with its first `heads` heads turned: x itself, or a new one where x is in bfloat16.  [N, H, D]"""
    if x.dtype is torch.bfloat16 and passing.takes(cos, sin, tables=[x]):
        found = x.new_empty(x.shape, dtype=torch.float32)
        passing.turn_into(found, x, cos, sin, heads, back=False)
        return found
    x = x.float()
    turn(x[:, :heads], cos, sin)
    return x


def turned_back(x: Tensor, cos: Tensor, sin: Tensor, heads: int, *, half: bool) -> Rows:
    """The gradient before `turned` as products take it, from that behind it, which is written over.  [N, H, D] -> [N or more, H·D]"""
    if half and passing.takes(x, cos, sin):
        found = room(len(x), x.shape[1] * x.shape[2], x, half)
        passing.turn_into(found.table, x, cos, sin, heads, back=True)
        return found
    turn(x[:, :heads], cos, sin, back=True)
    return rows_of(x.flatten(1), half)


def gate(gate_up: Tensor) -> Tensor:
    """SiLU of the gate half times the other half, in the precision of both.  [N, 2F] -> [N, F]"""
    if passing.takes(tables=[gate_up]):
        return passing.gate(gate_up)
    opened, up = gate_up.float().chunk(2, -1)
    return (functional.silu(opened) * up).to(gate_up.dtype)


def gate_backward(gate_up: Tensor, gradient: Tensor) -> None:
    """Turn `gate_up` into its gradient and `gradient` into what `gate` had found, in place.  [N, 2F], [N, F]"""
    if passing.takes(tables=[gate_up, gradient]):
        passing.gate_backward(gate_up, gradient)
        return
    opened, up = gate_up.float().chunk(2, -1)
    pulled, share = gradient.float(), torch.sigmoid(opened)
    silu = opened * share
    into = torch.cat([pulled * up * (share + silu * (1 - share)), pulled * silu], -1)
    gradient.copy_(silu * up)
    gate_up.copy_(into)
