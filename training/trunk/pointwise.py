"""The parts of a block that are not matrix products, forward and backward: RMS norm, rotation, gated SiLU.

Each in C where the kernels can be had (training/native), in torch elsewhere. N rows, d wide; H heads of width D; F hidden
units of the feed-forward part.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.native import passing


def norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm w · x / √(mean x² + ε), and the inverse root.  [N, d], [d] -> [N, d], [N, 1]"""
    if passing.takes(x, weight):
        return passing.norm(x, weight, eps)
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x * scale * weight, scale


def norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, plus: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gradients of x, `plus` added to it, and of the weight.  [N, d], [N, d], [d], [N, 1] -> [N, d], [d]"""
    if passing.takes(gradient, x, weight, *([] if plus is None else [plus])):
        return passing.norm_backward(gradient, x, weight, scale, plus)
    unit = x * scale
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


def gate(gate_up: Tensor) -> Tensor:
    """SiLU of the gate half times the other half.  [N, 2F] -> [N, F]"""
    if passing.takes(gate_up):
        return passing.gate(gate_up)
    opened, up = gate_up.chunk(2, -1)
    return functional.silu(opened) * up


def gate_backward(gate_up: Tensor, gradient: Tensor) -> None:
    """Turn `gate_up` into its gradient and `gradient` into what `gate` had found, in place.  [N, 2F], [N, F]"""
    if passing.takes(gate_up, gradient):
        passing.gate_backward(gate_up, gradient)
        return
    opened, up = gate_up.chunk(2, -1)
    share = torch.sigmoid(opened)
    silu = opened * share
    found = silu * up
    opened.copy_(gradient * up * (share + silu * (1 - share)))
    up.copy_(gradient * silu)
    gradient.copy_(found)
