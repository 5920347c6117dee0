"""What the engine asks of a model, and the table of the replies it is writing."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.sampling.sampling import choose
from training.trunk.llama_family import is_llama_shaped


class Replies:
    """Per row, what the next token of its reply is drawn with. Rows 0..n-1 are being written."""

    def __init__(self, slots: int, max_length: int, device: torch.device) -> None:
        def per_row(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        self.columns = np.zeros(slots, dtype=np.int64)  # how many its row holds, the token drawn last included
        self.last_column = np.zeros(slots, dtype=np.int64)  # the reply ends when `columns` reaches it
        self.numbers = torch.arange(slots, device=device)
        self.token = per_row(dtype=torch.long)  # the one not yet read
        self.position = per_row(dtype=torch.long)  # the column where it belongs
        self.temperature = per_row(dtype=torch.float32)
        self.top_p = per_row(dtype=torch.float32)
        self.uniform = per_row(max_length, dtype=torch.float32)  # by the column of the state it is used at
        self.plain = True  # every temperature and top_p is 1
        self.whole = True  # every top_p is 1

    def draw(self, logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the tokens after the states of rows `index` [n] and note them.  [n, V] -> [n], [n]"""
        position = self.position[index]
        tokens, logps = choose(
            logits,
            self.uniform[index, position],
            None if self.plain else self.temperature[index],
            None if self.whole else self.top_p[index],
        )
        self.token[index], self.position[index] = tokens, position + 1
        return tokens, logps

    def move(self, source: int, target: int) -> None:
        """Row `target` becomes what row `source` is."""
        for counts in (self.columns, self.last_column):
            counts[target] = counts[source]
        for table in (self.token, self.position, self.temperature, self.top_p, self.uniform):
            table[target] = table[source]


class Decoder(Protocol):
    """A causal language model over a table of key-value rows, one a reply."""

    def read(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """Read each prompt into its row; the logits after its last token.  -> [n, V]"""

    def write(self, replies: Replies, n: int, steps: int, stops: Tensor) -> tuple[Tensor, Tensor]:
        """Write up to `steps` tokens of rows 0..n-1, fewer if one in `stops` [V] is drawn.  -> tokens, logps [s, n]"""

    def copy_row(self, source: int, targets: Sequence[int], length: int) -> None:
        """Give rows `targets` the first `length` columns of row `source`."""

    def move_row(self, source: int, target: int, length: int) -> None:
        """Row `target` becomes what row `source` is; `source` may be used anew."""

    def refresh(self, model: nn.Module) -> None:
        """Take over the present weights of `model`."""

    def release(self) -> None:
        """Give back what the next refresh writes anew; nothing is read or written before it."""


def decodes_fused(model: Any) -> bool:
    """Whether it is what FusedDecoder and NativeDecoder compute; they turn a head's halves."""
    return is_llama_shaped(model.config) and all(layer.self_attn.head_dim % 2 == 0 for layer in model.model.layers)


def rotations(model: Any, max_length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, in float32.  -> [max_length, head_dim/2] each"""
    half = model.model.layers[0].self_attn.head_dim // 2
    device = model.model.embed_tokens.weight.device
    with torch.no_grad():
        positions = torch.arange(max_length, device=device)[None]
        cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float32, device=device), positions)
    return cos[0, :, :half].float().contiguous(), sin[0, :, :half].float().contiguous()


def causal_bias(positions: Tensor, reach: int, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """0 where a token at `positions` [n, T] may look, the lowest number elsewhere.  -> [n, 1, T, reach]"""
    column = torch.arange(reach, device=positions.device)
    hidden = column > positions[:, None, :, None]
    if window is not None:
        hidden |= column <= positions[:, None, :, None] - window
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(hidden, torch.finfo(dtype).min)
