"""Tables of tokens as products in bfloat16 take them.

oneDNN compiles a kernel for every shape that it meets, which takes it a millisecond and some hundred kilobytes each; no two
batches have the same number of tokens. So tables are filled up with rows of zeros to a multiple of STEP, and shapes come again.
"""

from typing import NamedTuple

import torch
from torch import Tensor

STEP = 64


class Rows(NamedTuple):
    """A table whose first `filled` rows are somebody's; in bfloat16 with rows of zeros below them."""

    table: Tensor
    filled: int

    @property
    def own(self) -> Tensor:
        """The rows that are somebody's."""
        return self.table[: self.filled]


def room(count: int, width: int, like: Tensor, half: bool) -> Rows:
    """A table for so many rows that are still to be written.  -> [N or more, d]"""
    if not half:
        return Rows(like.new_empty(count, width, dtype=torch.float32), count)
    table = like.new_empty(-(-count // STEP) * STEP, width, dtype=torch.bfloat16)
    table[count:] = 0.0
    return Rows(table, count)


def rows_of(x: Tensor, half: bool) -> Rows:
    """The rows of x as products take them: x itself, or a copy in bfloat16.  [N, d] -> [N or more, d]"""
    count = len(x)
    if not half:
        return Rows(x, count)
    if count % STEP == 0:
        return Rows(x.bfloat16(), count)
    found = room(count, x.shape[1], x, half)
    found.own.copy_(x)
    return found
