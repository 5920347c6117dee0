"""Attention over packed sequences, and its gradient; in C where the kernels can be had, else one call of torch a segment.

H query heads share KV key heads, D wide each; M queries, N keys, M = N unless only chosen columns ask (layout.py).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.native import passing
from training.trunk.half import Rows, room, rows_of
from training.trunk.layout import Layout


class Attended:
    """Softmax(q kᵀ / √D) v of every query [M, H, D] over the keys it may see [N, KV, D], and what its gradient needs.

    It is computed in float32; what comes out, and the gradient that comes back, are in bfloat16 where `half` says so.
    """

    found: Rows  # [M or more, H·D]

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, learn: bool, half: bool = False
    ) -> None:
        self._graph: Tensor | None = None
        self._total: Tensor | None = None
        self._layout = layout
        self._inputs = [part.detach() for part in (query, key, value)]
        if passing.takes() and all(part.dtype is torch.float32 and part.is_cpu for part in self._inputs):
            self.found = room(len(query), query.shape[1] * query.shape[2], query, half)
            self._total = passing.attend(query, key, value, layout.tables, self.found.table)
            return
        with torch.set_grad_enabled(learn):
            query, key, value = (part.requires_grad_(learn) for part in self._inputs)
            self._graph = _by_segments(query, key, value, layout)
        self.found = rows_of(self._graph.detach(), half)

    def backward(self, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradients of queries, keys and values in one table [N, H + 2 KV, D]; where M < N in two.  [M, H·D] ->"""
        query, key, value = self._inputs
        if self._total is not None:
            return passing.attend_backward(
                query, key, value, self._layout.tables, self.found.table, self._total, gradient.contiguous()
            )
        assert self._graph is not None
        query, key, value = torch.autograd.grad(self._graph, self._inputs, gradient.float())
        if len(query) == len(key):
            return (torch.cat([query, key, value], dim=1),)
        return query.contiguous(), torch.cat([key, value], dim=1)


def _by_segments(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """One call a segment; `split` and never slices, since a slice's backward fills a zero tensor of the whole batch."""
    many: dict[str, Any] = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    lengths = [segment.length for segment in layout.segments]
    queries = query.transpose(0, 1).split([segment.queries for segment in layout.segments], 1)
    keys, values = (part.transpose(0, 1).split(lengths, 1) for part in (key, value))
    place = {segment.start: number for number, segment in enumerate(layout.segments)}
    found = []
    for number, (segment, mask) in enumerate(zip(layout.segments, layout.masks, strict=True)):
        if not segment.queries:
            continue
        own = [keys[number], values[number]]
        if segment.prefix_length:
            first = place[segment.prefix]
            own = [
                torch.cat([whole[first].narrow(1, 0, segment.prefix_length), part], dim=1)
                for whole, part in zip((keys, values), own, strict=True)
            ]
        asked, told, said = (part[None] for part in (queries[number], *own))
        found.append(
            functional.scaled_dot_product_attention(
                asked, told, said, attn_mask=mask, is_causal=mask is None, **many
            )[0]
        )  # fmt: skip
    return torch.cat(found, dim=1).transpose(0, 1).flatten(1)
