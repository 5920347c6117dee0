"""Comparisons as token pairs, and pairs as batches: plain rows, or the prompt once with both replies behind it."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.records import Comparison
from training.snapshots import PromptTooLong, render_reply, render_within


@dataclasses.dataclass(frozen=True)
class Pair:
    """One comparison in tokens; both replies end with the end token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    strength: int | None
    mode: str | None

    @property
    def tokens(self) -> int:
        """Tokens of a row that holds the prompt once and both replies."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


class Tokenised(NamedTuple):
    """The usable pairs, how many comparisons were left out by reason, and how many lost their oldest turns."""

    pairs: list[Pair]
    dropped: Counter[str]
    shortened: int


def tokenised(
    comparisons: Iterable[Comparison], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, weakest_strength: int
) -> Tokenised:
    """Turn comparisons into pairs of at most `max_tokens` a side; nothing is cut inside a turn, and every loss is counted.

    A prompt that is too long loses its oldest turns whole, as it would when the policy answers it ("shortened").
    Dropped: "weakest", a preference at or below `weakest_strength`; "over_long", when the last turn and its longer reply
    alone do not fit; "same_tokens", two texts that the tokenizer cannot tell apart.
    """
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    shortened = 0
    for comparison in comparisons:
        if comparison.strength is not None and comparison.strength <= weakest_strength:
            dropped["weakest"] += 1
            continue
        chosen, rejected = render_reply(tokenizer, comparison.chosen), render_reply(tokenizer, comparison.rejected)
        if chosen == rejected:
            dropped["same_tokens"] += 1
            continue
        try:
            prompt = render_within(tokenizer, comparison.prompt, max_tokens - max(len(chosen), len(rejected)))
        except PromptTooLong:
            dropped["over_long"] += 1
            continue
        shortened += prompt.dropped > 0
        pairs.append(Pair(prompt.ids, chosen, rejected, comparison.strength, comparison.mode))
    return Tokenised(pairs, dropped, shortened)


def order(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch as lists of pair numbers; the same seed and epoch give the same ones.

    A last batch of less than half the size joins the one before it: a few pairs alone would move the model as far as many.
    """
    numbers = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(numbers)
    batches = [numbers[begin : begin + batch] for begin in range(0, count, batch)]
    if len(batches) > 1 and 2 * len(batches[-1]) < batch:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


def by_length(pairs: Sequence[Pair], budget: int) -> list[list[Pair]]:
    """Cut a batch into parts of similar length, each of at most `budget` padded tokens (or one pair)."""
    parts: list[list[Pair]] = []
    for pair in sorted(pairs, key=lambda pair: pair.tokens):
        # sorted upwards, so this pair is the longest of the part it joins
        if parts and (len(parts[-1]) + 1) * pair.tokens <= budget:
            parts[-1].append(pair)
        else:
            parts.append([pair])
    return parts


@dataclasses.dataclass(frozen=True)
class PairRows:
    """B pairs as tensors. The end columns index rows `chosen_row` and `rejected_row`, which are equal when rows are shared."""

    input_ids: Tensor  # [R, T], R = B shared or 2B plain
    position_ids: Tensor | None  # [R, T]; None in plain rows, where columns are positions
    mask: Tensor | None  # [R, 1, T, T] True where a query may look at a key; None in plain rows (causal)
    chosen_row: Tensor  # [B]
    rejected_row: Tensor  # [B]
    chosen_end: Tensor  # [B]
    rejected_end: Tensor  # [B]

    def to(self, device: torch.device) -> "PairRows":
        """Return the same rows on `device`."""
        fields: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: None if part is None else part.to(device) for name, part in fields.items()}
        return PairRows(**moved)


def plain_rows(pairs: Sequence[Pair], pad: int) -> PairRows:
    """Write each pair as two right-padded rows: the B chosen conversations, then the B rejected ones."""
    rows = [pair.prompt + pair.chosen for pair in pairs] + [pair.prompt + pair.rejected for pair in pairs]
    ends = torch.tensor([len(row) - 1 for row in rows])
    count = len(pairs)
    numbers = torch.arange(2 * count)
    return PairRows(right_padded(rows, pad), None, None, numbers[:count], numbers[count:], ends[:count], ends[count:])


def shared_rows(pairs: Sequence[Pair], pad: int) -> PairRows:
    """Write each pair as one row: prompt, chosen, rejected, padding; the prompt is computed once.

    The rejected reply does not see the chosen one and takes the positions right after the prompt.
    """
    rows = [pair.prompt + pair.chosen + pair.rejected for pair in pairs]
    input_ids = right_padded(rows, pad)
    column = torch.arange(input_ids.shape[1])
    prompts = torch.tensor([len(pair.prompt) for pair in pairs])[:, None]
    splits = prompts + torch.tensor([len(pair.chosen) for pair in pairs])[:, None]
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    in_rejected = column[None] >= splits  # [B, T], the padding with it
    position_ids = torch.where(in_rejected, column - splits + prompts, column.expand_as(input_ids))
    in_chosen = (column[None] >= prompts) & ~in_rejected
    causal = column[:, None] >= column[None, :]  # [T, T]: query row, key column
    mask = causal[None] & ~(in_rejected[:, :, None] & in_chosen[:, None, :])
    position_ids = torch.where(column[None] < lengths, position_ids, 0)  # padding must not run past learned positions
    numbers = torch.arange(len(pairs))
    ends = (splits - 1).squeeze(1), (lengths - 1).squeeze(1)
    return PairRows(input_ids, position_ids, mask[:, None], numbers, numbers, *ends)


def right_padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Return rows of token ids as one tensor, padded on the right.  [B, T]"""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
