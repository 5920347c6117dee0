"""Sequences laid end to end without any padding, the replies to one prompt behind that prompt.

A group is a prompt and its K replies, in the order prompt, reply 1, …, reply K. Each reply sees the prompt and itself and
takes the positions right after the prompt, so its numbers are those of prompt and reply alone: the prompt is computed
once for all of them. A pair is a group of K=2, a ranking one of K=4..9, an episode one of K=1, and a sequence of its own
is a reply to an empty prompt. Shapes: N tokens, M columns; a column is a place among the N.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Lengths of a prompt and of each reply to it, and the column where the prompt begins."""

    start: int
    prompt: int
    replies: tuple[int, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The column where each reply begins, and the one after the last reply."""
        return tuple(accumulate(self.replies, initial=self.start + self.prompt))

    @property
    def end(self) -> int:
        """The column after the group."""
        return self.starts[-1]


@dataclass(frozen=True)
class Packed:
    """N tokens of several groups."""

    tokens: Tensor  # [N]
    positions: Tensor  # [N], counted from the group's first token; every reply goes on after the prompt
    groups: tuple[Group, ...]

    def to(self, device: torch.device) -> "Packed":
        """The same on `device`."""
        return replace(self, tokens=self.tokens.to(device), positions=self.positions.to(device))

    def reply_ends(self) -> Tensor:
        """The column of the last token of each reply, group after group: where a conversation is scored.  -> [M]"""
        ends = [end - 1 for group in self.groups for end in group.starts[1:]]
        return torch.tensor(ends, dtype=torch.long, device=self.tokens.device)

    def reply_columns(self) -> Tensor:
        """The columns of all reply tokens, reply after reply.  -> [M]"""
        return self._columns([(column, end) for group in self.groups for column, end in _spans(group)])

    def state_columns(self) -> Tensor:
        """The column of the state before each reply token, in the order of `reply_columns`.  -> [M]

        The state before a reply's first token is the prompt's last, the same for all replies. Prompts must hold a token.
        """
        spans: list[tuple[int, int]] = []
        for group in self.groups:
            if not group.prompt:
                raise ValueError("a reply to an empty prompt has no state before its first token")
            before = group.start + group.prompt - 1
            for start, end in _spans(group):
                spans += [(before, before + 1), (start, end - 1)]
        return self._columns(spans)

    def _columns(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        columns = [column for start, end in spans for column in range(start, end)]
        return torch.tensor(columns, dtype=torch.long, device=self.tokens.device)


def packed(groups: Iterable[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> Packed:
    """Lay (prompt, replies) groups of token ids end to end; every reply must hold a token."""
    tokens: list[int] = []
    positions: list[int] = []
    found: list[Group] = []
    for prompt, replies in groups:
        if not all(replies):
            raise ValueError("a reply without a token cannot be read")
        found.append(Group(len(tokens), len(prompt), tuple(len(reply) for reply in replies)))
        tokens += prompt
        positions += range(len(prompt))
        for reply in replies:
            tokens += reply
            positions += range(len(prompt), len(prompt) + len(reply))
    return Packed(torch.tensor(tokens, dtype=torch.long), torch.tensor(positions, dtype=torch.long), tuple(found))


def packed_rows(tokens: Tensor, prompt_length: Tensor, length: Tensor) -> Packed:
    """Pack the right-padded rows of a rollout, one reply each; `length` is of prompt and reply.  [B, T], [B], [B]"""
    real = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
    positions = real.nonzero(as_tuple=True)[1]
    prompts, lengths = prompt_length.tolist(), length.tolist()
    starts = accumulate(lengths, initial=0)
    groups = tuple(
        Group(start, prompt, (whole - prompt,))
        for start, prompt, whole in zip(starts, prompts, lengths, strict=False)  # starts has one more: the end
    )
    return Packed(tokens[real], positions, groups)


def _spans(group: Group) -> list[tuple[int, int]]:
    return list(zip(group.starts[:-1], group.starts[1:], strict=True))
