"""Any backbone over packed sequences, through its own forward pass: right-padded rows, the prompt shared where it can be."""

from typing import Any

import torch
from torch import Tensor

from training.processes.device import products
from training.trunk.packing import Group, Packed
from training.trunk.recomputing import recomputing

# Architectures that take a mask of their own for every row, checked by a test and by the self-check of each run.
SHARE_PROMPTS = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma"})


class GeneralTrunk:
    """A backbone that is run as it is."""

    def __init__(self, backbone: Any, *, half: bool) -> None:
        self.backbone, self.half = backbone, half
        config = backbone.config
        sliding = "sliding_attention" in (getattr(config, "layer_types", None) or [])
        self.shares = config.model_type in SHARE_PROMPTS and not sliding

    def hidden(self, packing: Packed, columns: Tensor | None = None) -> Tensor:
        """The last hidden states at `columns` [M], or at all columns; differentiable in the backbone's parameters.  -> [M, d]"""
        several = any(len(group.replies) > 1 for group in packing.groups)
        rows = _shared_rows(packing.groups) if several and self.shares else _plain_rows(packing.groups)
        device = packing.tokens.device
        length = max(len(row) for row in rows)
        # the column that stands at each place of the table; padding repeats column 0, which nothing looks at
        source = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device)
        more: dict[str, Tensor] = {}
        if several and self.shares:
            real = torch.arange(length, device=device) < torch.tensor([[len(row)] for row in rows], device=device)
            # learned positions end at the context: padding must not run past them
            more["position_ids"] = torch.where(real, packing.positions[source], 0)
            more["attention_mask"] = _visible(packing.groups, length, device)[:, None]
        else:  # padding lies behind what is read and is never looked at; without a mask GPT-2 warns of it
            more["attention_mask"] = torch.ones(source.shape, dtype=torch.long, device=device)
        with products(self.half, device), recomputing(self.backbone):
            states: Tensor = self.backbone(
                input_ids=packing.tokens[source], use_cache=False, **more
            ).last_hidden_state  # [R, T, d]
        # of each column, its first place in the table; padding lies behind column 0's own, which is place 0
        places = torch.arange(source.numel(), device=device)
        first = places.new_full((len(packing.tokens),), source.numel())
        first.scatter_reduce_(0, source.flatten(), places, "amin")
        return states.flatten(0, 1)[first if columns is None else first[columns]]


def _plain_rows(groups: tuple[Group, ...]) -> list[list[int]]:
    """The columns of each conversation, the prompt again for every reply."""
    rows = []
    for group in groups:
        prompt = list(range(group.start, group.start + group.prompt))
        rows += [
            prompt + list(range(start, end)) for start, end in zip(group.starts[:-1], group.starts[1:], strict=True)
        ]
    return rows


def _shared_rows(groups: tuple[Group, ...]) -> list[list[int]]:
    """The columns of each group: the prompt once, its replies behind it."""
    return [list(range(group.start, group.end)) for group in groups]


def _visible(groups: tuple[Group, ...], length: int, device: torch.device) -> Tensor:
    """True where a place of a group's row may look at another: earlier ones of the prompt and of its own reply.  -> [R, T, T]"""
    part = torch.zeros(len(groups), length, dtype=torch.long, device=device)  # 0 the prompt, k reply k
    for row, group in enumerate(groups):
        for number, start in enumerate(group.starts[:-1]):
            part[row, start - group.start :] = number + 1
    column = torch.arange(length, device=device)
    causal = column[:, None] >= column
    return causal & ((part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0))
