"""Gradient checkpointing: a block keeps its input alone, and is computed again when the backward pass comes to it.

transformers' blocks do so only while they are in training mode, which nothing here is (it would switch dropout on and the
sampler's key-value table off): `recomputing` puts the blocks alone into it for as long as a forward pass that learns lasts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from training.failure import JobFailed


def recompute(model: Any) -> None:
    """Let every block of a model of transformers be computed again in the backward pass, from now on."""
    if not model.supports_gradient_checkpointing:
        raise JobFailed(f"a {model.config.model_type} cannot recompute its blocks; set gradient_checkpointing to false")
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.disable_input_require_grads()  # a hook that only the other kind of checkpoint needs


def recomputes(backbone: nn.Module) -> bool:
    """Whether `recompute` was said of it."""
    return bool(_blocks(backbone))


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Inside, a forward pass that learns keeps no more of a block than its input; nothing where it is not switched on."""
    blocks = _blocks(model) if torch.is_grad_enabled() else []
    for block in blocks:
        block.training = True  # not its parts: dropout stays as it is
    try:
        yield
    finally:
        for block in blocks:
            block.training = False


def _blocks(model: nn.Module) -> list[nn.Module]:
    return [
        block
        for blocks in model.modules()
        if isinstance(blocks, nn.ModuleList)
        for block in blocks
        if getattr(block, "gradient_checkpointing", False)
    ]
