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


def rows_of(x: Tensor, half: bool) -> Rows:
    """The rows of x as products take them: x itself, or a copy in bfloat16.  [N, d] -> [N or more, d]"""
    count = len(x)
    if not half:
        return Rows(x, count)
    if count % STEP == 0:
        return Rows(x.bfloat16(), count)
    table = torch.empty(-(-count // STEP) * STEP, x.shape[1], dtype=torch.bfloat16, device=x.device)
    table[:count] = x
    table[count:] = 0.0
    return Rows(table, count)
