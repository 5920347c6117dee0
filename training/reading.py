"""Scoring pairs with a preference model: which row layout, how many tokens at once, on which device, and its self-check."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.batches import Pair, PairRows, by_length, plain_rows, shared_rows
from training.device import Precision, device_of_choice, in_half, products
from training.job import JobFailed
from training.models import PreferenceModel

# Architectures that take a mask of their own for every row, checked by a test and by the self-check of each run.
SHARE_PROMPTS = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma"})
CPU_BUDGET, GPU_BUDGET = 2048, 32768  # padded tokens of one forward pass: what fits the caches / keeps a GPU busy
TOLERANCE = 1e-3  # of a score of order 1, in float32; a real mistake shows as 0.1 and more


class ReadPairs(NamedTuple):
    """Raw scores of both sides [B]; the summed -log p of the chosen replies where it was asked for."""

    chosen: Tensor
    rejected: Tensor
    words_loss: Tensor | None


class Reader:
    """Reads pairs with `model`; the prompt is computed once for both sides where the architecture allows it."""

    def __init__(self, model: PreferenceModel, *, pad: int, precision: Precision = "auto") -> None:
        self.device = device_of_choice()
        self.model = model.to(self.device)
        self.pad = pad
        config = model.backbone.config
        sliding = "sliding_attention" in (getattr(config, "layer_types", None) or [])
        self.shared = config.model_type in SHARE_PROMPTS and not sliding
        self.context = int(getattr(config, "max_position_embeddings", None) or 2**31)
        self.budget = GPU_BUDGET if self.device.type == "cuda" else CPU_BUDGET
        self.half = in_half(precision, self.device, model.width)

    def rows(self, pairs: Sequence[Pair], *, shared: bool) -> PairRows:
        """Lay the pairs out on the device."""
        return (shared_rows if shared else plain_rows)(pairs, self.pad).to(self.device)

    def read(self, pairs: Sequence[Pair], *, words: bool = False) -> ReadPairs:
        """Score both sides of every pair, in the order given, in one pass."""
        with products(self.half, self.device):
            return self._read(pairs, shared=self.shared, words=words)

    def _read(self, pairs: Sequence[Pair], *, shared: bool, words: bool = False) -> ReadPairs:
        rows = self.rows(pairs, shared=shared)
        hidden = self.model.hidden(rows.input_ids, rows.mask, rows.position_ids)
        chosen = self.model.read(hidden[rows.chosen_row, rows.chosen_end])
        rejected = self.model.read(hidden[rows.rejected_row, rows.rejected_end])
        words_loss = None
        if words:  # the state before each token of the chosen reply foretells it
            before = [
                hidden[row, len(pair.prompt) - 1 : len(pair.prompt) + len(pair.chosen) - 1]
                for row, pair in enumerate(pairs)
            ]
            targets = torch.tensor([token for pair in pairs for token in pair.chosen], device=self.device)
            words_loss = self.model.language_loss(torch.cat(before), targets)
        return ReadPairs(chosen, rejected, words_loss)

    @torch.no_grad()
    def scores_of(self, pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
        """Return the raw scores of all (chosen, rejected), in the order of `pairs`."""
        place = {id(pair): number for number, pair in enumerate(pairs)}
        chosen, rejected = [0.0] * len(pairs), [0.0] * len(pairs)
        for part in by_length(pairs, self.budget):
            read = self.read(part)
            for pair, good, bad in zip(part, read.chosen.tolist(), read.rejected.tolist(), strict=True):
                chosen[place[id(pair)]], rejected[place[id(pair)]] = good, bad
        return chosen, rejected

    @torch.no_grad()
    def self_check(self, pairs: Sequence[Pair]) -> None:
        """Fail loudly when a score depends on the padding or on the layout of the rows; in float32."""
        alone = [self._read([pair], shared=False) for pair in pairs]
        self._agree("a padded row scores unlike the same row alone", alone, self._read(pairs, shared=False))
        if self.shared:
            self._agree("a shared prompt gives other scores than two plain rows", alone, self._read(pairs, shared=True))

    def _agree(self, what: str, alone: list[ReadPairs], together: ReadPairs) -> None:
        for side in ("chosen", "rejected"):
            expected = torch.cat([getattr(read, side) for read in alone])
            gap = float((expected - getattr(together, side)).abs().max())
            # `not <=` also catches NaN
            if not gap <= TOLERANCE * (1 + float(expected.abs().max())):
                raise JobFailed(f"self-check failed: {what} (by {gap:.2g}); this model cannot be trained here as it is")
