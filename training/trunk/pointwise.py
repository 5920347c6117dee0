"""The parts of a block that are not matrix products, forward and backward: RMS norm, rotation, gated SiLU.

N rows, d wide; H heads of width D; F hidden units of the feed-forward part.
"""

import torch
from torch import Tensor
from torch.nn import functional


def norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm w · x / √(mean x² + ε), and the inverse root.  [N, d], [d] -> [N, d], [N, 1]"""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x * scale * weight, scale


def norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the weight.  [N, d], [N, d], [d], [N, 1] -> [N, d], [d]"""
    unit = x * scale
    pushed = gradient * weight
    return (pushed - unit * (pushed * unit).mean(-1, keepdim=True)) * scale, (gradient * unit).sum(0)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate components i and i + D/2 of every head by the angle of its row, in place.  [N, H, D], [N, D/2] twice"""
    left, right = x.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    turned = left * cos - right * sin
    right.copy_(right * cos + left * sin)
    left.copy_(turned)


def gate(gate_up: Tensor) -> Tensor:
    """SiLU of the gate half times the other half.  [N, 2F] -> [N, F]"""
    opened, up = gate_up.chunk(2, -1)
    return functional.silu(opened) * up


def gate_backward(gate_up: Tensor, gradient: Tensor) -> Tensor:
    """Turn `gate_up` into its gradient in place; what `gate` had found comes back.  [N, 2F], [N, F] -> [N, F]"""
    opened, up = gate_up.chunk(2, -1)
    share = torch.sigmoid(opened)
    silu = opened * share
    found = silu * up
    opened.copy_(gradient * up * (share + silu * (1 - share)))
    up.copy_(gradient * silu)
    return found
