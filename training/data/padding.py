"""Rows of token ids as one table."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def right_padded(rows: Sequence[Sequence[int]], device: torch.device | str, pad: int = 0) -> tuple[Tensor, Tensor]:
    """The rows filled up with `pad`, which causal attention never reaches, and their true lengths.  -> [n, T], [n]

    The table is filled on the CPU and moved once: a row at a time would be a copy to the device each.
    """
    table = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=pad)
    return table.to(device), torch.tensor([len(row) for row in rows], device=device)
