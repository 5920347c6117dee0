"""Which query looks at which keys: a packing as segments, for attention over N keys from all or from M chosen columns.

A segment is a run of columns that see each other causally and, before them, a prefix: the first reply of a group and its
prompt are one segment without a prefix, every further reply is one whose prefix is the prompt.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from training.native.passing import Tables
from training.trunk.packing import Packed


class Segment(NamedTuple):
    """Columns of the keys, rows of the queries; the queries of a segment lie together."""

    prefix: int  # first column of the prefix
    prefix_length: int
    start: int  # first column of its own
    length: int
    query: int  # first row among the queries
    queries: int


@dataclass(frozen=True)
class Layout:
    """S segments in G groups; a query's reach is how many of its segment's own columns it sees."""

    segments: tuple[Segment, ...]
    groups: tuple[int, ...]  # [G+1] number of the first segment of each group, and S
    reach: Tensor  # [M]
    tokens: int  # N

    @cached_property
    def masks(self) -> list[Tensor | None]:
        """For each segment True where a query may look  [queries, prefix_length + length]; None where causal says it all."""
        found: list[Tensor | None] = []
        for segment in self.segments:
            if not segment.prefix_length and segment.queries == segment.length:
                found.append(None)
                continue
            own = torch.arange(segment.length, device=self.reach.device)
            reach = self.reach[segment.query : segment.query + segment.queries, None]
            prefix = torch.ones(segment.queries, segment.prefix_length, dtype=torch.bool, device=self.reach.device)
            found.append(torch.cat([prefix, own < reach], dim=1))
        return found

    @cached_property
    def tables(self) -> Tables:
        """The same for the kernels."""
        segments, groups = (torch.tensor(part, dtype=torch.int64) for part in (self.segments, self.groups))
        return Tables(segments, groups, self.reach)


def layout_of(packing: Packed, columns: Tensor | None = None) -> Layout:
    """The segments of a packing, with queries at all columns or at the chosen ones (ascending, each once)."""
    segments: list[Segment] = []
    groups = [0]
    for group in packing.groups:
        first = group.starts[1] if group.replies else group.start + group.prompt
        segments.append(Segment(group.start, 0, group.start, first - group.start, group.start, first - group.start))
        for start, length in zip(group.starts[1:-1], group.replies[1:], strict=True):
            segments.append(Segment(group.start, group.prompt, start, length, start, length))
        groups.append(len(segments))
    device = packing.tokens.device
    starts = torch.tensor([segment.start for segment in segments], device=device)
    lengths = torch.tensor([segment.length for segment in segments], device=device)
    if columns is None:
        columns = torch.arange(len(packing.tokens), device=device)
    else:
        # queries of a segment: the chosen columns from its start to the next one's
        bounds = torch.searchsorted(columns, torch.cat([starts, starts.new_tensor([len(packing.tokens)])])).tolist()
        segments = [
            segment._replace(query=begin, queries=end - begin)
            for segment, begin, end in zip(segments, bounds[:-1], bounds[1:], strict=True)
        ]
    reach = columns - torch.repeat_interleave(starts, lengths)[columns] + 1
    return Layout(tuple(segments), tuple(groups), reach, len(packing.tokens))
