"""Attention over packed sequences, and its gradient.

H query heads share KV key heads, D wide each; M queries, N keys, M = N unless only chosen columns ask (layout.py).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.trunk.layout import Layout


class Attended:
    """Softmax(q kᵀ / √D) v of every query [M, H, D] over the keys it may see [N, KV, D], and what its gradient needs."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, learn: bool) -> None:
        self.inputs = [part.detach().requires_grad_(learn) for part in (query, key, value)]
        with torch.set_grad_enabled(learn):
            self.graph = _by_segments(self.inputs[0], self.inputs[1], self.inputs[2], layout)
        self.found = self.graph.detach()  # [M, H·D]

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of query, key and value.  [M, H·D] -> [M, H, D], [N, KV, D] twice"""
        query, key, value = torch.autograd.grad(self.graph, self.inputs, gradient)
        return query, key, value


def _by_segments(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """One call a segment; `split` and never slices, since a slice's backward fills a zero tensor of the whole batch."""
    many: dict[str, Any] = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    lengths = [segment.length for segment in layout.segments]
    queries = query.transpose(0, 1).split([segment.queries for segment in layout.segments], 1)
    keys, values = (part.transpose(0, 1).split(lengths, 1) for part in (key, value))
    found = []
    for number, (segment, mask) in enumerate(zip(layout.segments, layout.masks, strict=True)):
        if not segment.queries:
            continue
        own = [keys[number], values[number]]
        if segment.prefix_length:
            first = next(place for place, other in enumerate(layout.segments) if other.start == segment.prefix)
            own = [
                torch.cat([whole[first].narrow(1, 0, segment.prefix_length), part], dim=1)
                for whole, part in zip((keys, values), own, strict=True)
            ]
        asked, told, said = (part[None] for part in (queries[number], *own))
        found.append(
            functional.scaled_dot_product_attention(asked, told, said, attn_mask=mask, is_causal=mask is None, **many)[
                0
            ]
        )
    return torch.cat(found, dim=1).transpose(0, 1).flatten(1)
