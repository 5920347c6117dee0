"""Reading replies with a preference model: which row layout, how many tokens at once, on which device, and its self-check."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from training.batches import Ranked, Rows, by_length, plain_rows, shared_rows
from training.device import Precision, device_of_choice, in_half, products
from training.job import JobFailed
from training.models import PreferenceModel

# Architectures that take a mask of their own for every row, checked by a test and by the self-check of each run.
SHARE_PROMPTS = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma"})
CPU_BUDGET, GPU_BUDGET = 2048, 32768  # padded tokens of one forward pass: what fits the caches / keeps a GPU busy
TOLERANCE = 1e-3  # of a score of order 1, in float32; a real mistake shows as 0.1 and more
Words = Literal["none", "best", "all"]


class Read(NamedTuple):
    """Raw scores of M replies, reply after reply and prompt after prompt  [M];

    the summed -log p of the words of each prompt's best reply [B], or of every reply [M], where they were asked for.
    """

    scores: Tensor
    words: Tensor | None


class Reader:
    """Reads replies with `model`; a prompt is computed once for all its replies where the architecture allows it."""

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

    def rows(self, elements: Sequence[Ranked], *, shared: bool) -> Rows:
        """Lay the elements out on the device."""
        return (shared_rows if shared else plain_rows)(elements, self.pad).to(self.device)

    def read(self, elements: Sequence[Ranked], *, words: Words = "none") -> Read:
        """Score every reply, in the order given, in one pass."""
        with products(self.half, self.device):
            return self._read(elements, shared=self.shared, words=words)

    def _read(self, elements: Sequence[Ranked], *, shared: bool, words: Words = "none") -> Read:
        rows = self.rows(elements, shared=shared)
        hidden = self.model.hidden(rows.input_ids, rows.mask, rows.position_ids)
        scores = self.model.read(hidden[rows.row, rows.end])
        return Read(scores, None if words == "none" else self._words(elements, rows, hidden, best=words == "best"))

    def _words(self, elements: Sequence[Ranked], rows: Rows, hidden: Tensor, *, best: bool) -> Tensor:
        """Return the summed -log p of replies: the state before each token foretells it."""
        before, targets, lengths, number = [], [], [], 0
        places = list(zip(rows.row.tolist(), rows.end.tolist(), strict=True))
        for element in elements:
            for place, reply in enumerate(element.replies):
                row, end = places[number]
                number += 1
                if place and best:
                    continue
                # the state before the first token is the prompt's last; prompts must hold a token
                before += [hidden[row, len(element.prompt) - 1][None], hidden[row, end - len(reply) + 1 : end]]
                targets += reply
                lengths.append(len(reply))
        losses = self.model.word_losses(torch.cat(before), torch.tensor(targets, device=self.device))
        owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(self.device)
        return losses.new_zeros(len(lengths)).index_add(0, owner, losses)

    def scores_of(self, elements: Sequence[Ranked]) -> list[list[float]]:
        """Return the raw scores of the replies of each element, in the order of `elements`."""
        return self._numbers(elements, "none")

    def log_probs_of(self, elements: Sequence[Ranked]) -> list[list[float]]:
        """Return the mean log p of the tokens of each reply, in the order of `elements`   ([Askell] §3: imitation)."""
        return self._numbers(elements, "all")

    @torch.no_grad()
    def _numbers(self, elements: Sequence[Ranked], words: Words) -> list[list[float]]:
        place = {id(element): number for number, element in enumerate(elements)}
        found: list[list[float]] = [[] for _ in elements]
        for part in by_length(elements, self.budget):
            read = self.read(part, words=words)
            flat = iter((read.scores if read.words is None else -read.words).tolist())
            for element in part:
                each = [next(flat) / (1 if words == "none" else len(reply)) for reply in element.replies]
                found[place[id(element)]] = each
        return found

    @torch.no_grad()
    def self_check(self, elements: Sequence[Ranked]) -> None:
        """Fail loudly when a score depends on the padding or on the layout of the rows; in float32."""
        alone = torch.cat([self._read([element], shared=False).scores for element in elements])
        self._agree("a padded row scores unlike the same row alone", alone, self._read(elements, shared=False).scores)
        if self.shared:
            together = self._read(elements, shared=True).scores
            self._agree("a shared prompt gives other scores than plain rows", alone, together)

    def _agree(self, what: str, alone: Tensor, together: Tensor) -> None:
        gap = float((alone - together).abs().max())
        # `not <=` also catches NaN
        if not gap <= TOLERANCE * (1 + float(alone.abs().max())):
            raise JobFailed(f"self-check failed: {what} (by {gap:.2g}); this model cannot be trained here as it is")
