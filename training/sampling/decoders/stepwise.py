"""What the decoders in torch share: prompts read as rectangles, one token of every reply a call."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from training.data.padding import right_padded
from training.sampling.decoders.decoder import Replies

# Prompts shorter than this share of the longest of their pass go into a pass of their own, to read little padding.
EVENNESS = 0.6


def even_groups(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Split prompts, longest first, so that each group pads little; each by its place in `prompts`."""
    groups: list[list[int]] = []
    for place in sorted(range(len(prompts)), key=lambda place: len(prompts[place]), reverse=True):
        if groups and len(prompts[place]) >= EVENNESS * len(prompts[groups[-1][0]]):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


class StepwiseDecoder(ABC):
    """A decoder made of two forward passes: one over prompts, one over the next token of every reply."""

    device: torch.device

    @abstractmethod
    def prefill(self, tokens: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        """Read right-padded prompts [n, T] into `rows` [n]; the logits after each one's last token.  -> [n, V]"""

    @abstractmethod
    def decode(self, tokens: Tensor, positions: Tensor, reach: int, level: bool) -> Tensor:
        """Read one token [n] at `positions` [n] of rows 0..n-1; reach = max(positions)+1, level: all equal.  -> [n, V]"""

    @abstractmethod
    def copy_row(self, source: int, targets: Sequence[int], length: int) -> None:
        """Give rows `targets` the first `length` columns of row `source`."""

    def move_row(self, source: int, target: int, length: int) -> None:
        self.copy_row(source, [target], length)

    def read(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        found: dict[int, Tensor] = {}
        for group in even_groups(prompts):
            where = torch.tensor([rows[place] for place in group], device=self.device)
            logits = self.prefill(*right_padded([prompts[place] for place in group], self.device), where)
            found |= dict(zip(group, logits, strict=True))
        return torch.stack([found[place] for place in range(len(prompts))])

    def write(self, replies: Replies, n: int, steps: int, stops: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002  # one step
        columns = replies.columns[:n]
        reach = int(columns.max())
        logits = self.decode(replies.token[:n], replies.position[:n], reach, level=int(columns.min()) == reach)
        tokens, logps = replies.draw(logits, replies.numbers[:n])
        return tokens[None], logps[None]
