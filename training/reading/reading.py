"""Reading replies with a preference model: packed how, how many tokens at once, on which device, and its self-check."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from training.data.batches import Ranked, by_length
from training.models.context import context_of
from training.models.models import PreferenceModel
from training.processes.device import Precision, device_of_choice, in_half
from training.trunk import FusedTrunk, Trunk, passes, trunk_for
from training.trunk.packing import Packed, packed

Words = Literal["none", "best", "all"]


class Read(NamedTuple):
    """Raw scores of M replies, reply after reply and prompt after prompt  [M];

    the summed -log p of the words of each prompt's best reply [B], or of every reply [M], where they were asked for.
    """

    scores: Tensor
    words: Tensor | None


class Reader:
    """Reads replies with `model`; a prompt is computed once for all its replies where the trunk allows it."""

    def __init__(self, model: PreferenceModel, *, pad: int, precision: Precision = "auto") -> None:
        self.device = device_of_choice()
        self.model = model.to(self.device)
        self.pad = pad
        self.context = context_of(model.backbone.config)
        self.budget = passes.budget(self.device)
        self.half = in_half(precision, self.device, model.width)

    @property
    def trunk(self) -> Trunk:
        """How the backbone is read: as it is now, since adapters and shards come and go."""
        return trunk_for(self.model.backbone, half=self.half)

    @property
    def shared(self) -> bool:
        """Whether a prompt is computed once for all its replies."""
        return self.trunk.shares

    def parts(self, elements: Sequence[Ranked]) -> list[list[Ranked]]:
        """Cut a batch into parts of one pass each, at most `budget` tokens (or one element)."""
        if not isinstance(self.trunk, FusedTrunk):
            return by_length(elements, self.budget)
        total = sum(element.tokens for element in elements)
        even = total / max(1, math.ceil(total / self.budget))  # no small rest at the end
        parts: list[list[Ranked]] = []
        size = 0
        for element in elements:
            if not parts or size + element.tokens > self.budget or size >= even:
                parts.append([])
                size = 0
            parts[-1].append(element)
            size += element.tokens
        return parts

    def read(self, elements: Sequence[Ranked], *, words: Words = "none") -> Read:
        """Score every reply, in the order given, in one pass."""
        return self._read(self.trunk, elements, words, half=self.half)

    def _read(self, trunk: Trunk, elements: Sequence[Ranked], words: Words, *, half: bool) -> Read:
        row = packed((element.prompt, element.replies) for element in elements).to(self.device)
        columns = [row.reply_ends()]
        if words != "none":
            spoken = packed((e.prompt, e.replies if words == "all" else e.replies[:1]) for e in elements)
            columns.append(self._states(row, best=words == "best"))
        states = trunk.hidden(row, torch.cat(columns))
        scores = self.model.read(states[: len(columns[0])])
        if words == "none":
            return Read(scores, None)
        targets = spoken.tokens[spoken.reply_columns()].to(self.device)
        losses = self.model.word_losses(states[len(columns[0]) :], targets, half=half)
        lengths = torch.tensor([length for group in spoken.groups for length in group.replies])
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(self.device)
        return Read(scores, losses.new_zeros(len(lengths)).index_add(0, owner, losses))

    @staticmethod
    def _states(row: Packed, *, best: bool) -> Tensor:
        """The columns of the states before the words of every reply, or of each prompt's best one."""
        columns = row.state_columns()
        if not best:
            return columns
        lengths = [length for group in row.groups for length in group.replies]
        first = [place == 0 for group in row.groups for place in range(len(group.replies))]
        kept = torch.repeat_interleave(torch.tensor(first), torch.tensor(lengths))
        return columns[kept.to(columns.device)]

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
        for part in self.parts(elements):
            read = self.read(part, words=words)
            flat = iter((read.scores if read.words is None else -read.words).tolist())
            for element in part:
                each = [next(flat) / (1 if words == "none" else len(reply)) for reply in element.replies]
                found[place[id(element)]] = each
        return found

    @torch.no_grad()
    def self_check(self, elements: Sequence[Ranked]) -> None:
        """Fail loudly when a score depends on company, padding or layout: against each reply alone, in float32."""
        rows = [element.prompt + reply for element in elements for reply in element.replies]
        each = (torch.tensor([row], device=self.device) for row in rows)
        alone = torch.cat([self.model.raw_scores(row, torch.tensor([row.shape[1] - 1])) for row in each])
        together = self._read(trunk_for(self.model.backbone), elements, "none", half=False).scores
        passes.check_alike(alone, together, "replies read together score unlike each alone")
