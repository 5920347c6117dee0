"""What one update of a preference run learns from its elements: the objective, its language term, and what is logged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.config import PreferenceConfig
from training.data.batches import Ranked
from training.measuring.calibration import rightness
from training.objective import binary_loss, kwise_loss
from training.reading.reading import Reader


class Lesson:
    """Fit's `learn`: backward over the elements `mine`, weighted as parts of `batch`."""

    def __init__(self, reader: Reader, elements: Sequence[Ranked], config: PreferenceConfig) -> None:
        self.reader, self.elements = reader, elements
        self.objective, self.lm_weight = config.objective, config.lm_weight

    def __call__(self, batch: list[int], mine: list[int]) -> dict[str, float]:
        """Return loss, accuracy, margin and loss of words as shares of the batch's means."""
        count = len(batch)
        words = sum(_words(self.elements[number]) for number in batch)
        imitation = self.objective == "imitation"
        spoken = imitation or self.lm_weight > 0
        loss = words_loss = right = margin = 0.0
        for part in self.reader.parts([self.elements[number] for number in mine]):
            read = self.reader.read(part, words="best" if spoken else "none")
            terms = [] if imitation else [self.loss(read.scores, part) * (len(part) / count)]
            loss += sum(float(term.detach()) for term in terms)
            if read.words is not None and words:
                said = (read.words * self._weights_of_words(part)).sum() / words
                terms.append(said if imitation else self.lm_weight * said)
                words_loss += float(said.detach())
            total = torch.stack(terms).sum()
            total.backward()
            for element, scores in zip(part, by_element(part, read.scores.tolist()), strict=True):
                leads = leads_of(element, scores)
                margin += sum(leads) / len(leads) / count
                right += sum(map(rightness, leads)) / len(leads) / count
        if imitation:
            return {"loss": words_loss}
        numbers = {"loss": loss, "accuracy": right, "margin": margin}
        return numbers | ({"words_loss": words_loss} if self.lm_weight else {})

    def loss(self, scores: Tensor, part: Sequence[Ranked]) -> Tensor:
        """Return the mean loss of the elements of a part from their flat scores.  [M] -> []"""
        given: dict[str, Any] = {"device": scores.device, "dtype": scores.dtype}
        weight = torch.tensor([element.weight for element in part], **given)
        if self.objective == "binary":
            return binary_loss(scores, torch.tensor([bool(e.good) for e in part], device=scores.device), weight)
        lengths = [len(element.replies) for element in part]
        ranks = [[*element.ranks, *[0] * (max(lengths) - len(element.ranks))] for element in part]
        mask = torch.tensor([[place < length for place in range(max(lengths))] for length in lengths])
        mask = mask.to(scores.device)
        return kwise_loss(
            scores.new_zeros(mask.shape).masked_scatter(mask, scores),
            torch.tensor(ranks, device=scores.device),
            mask,
            margin=torch.tensor([element.margin for element in part], **given),
            weight=weight,
        )

    def _weights_of_words(self, part: Sequence[Ranked]) -> Tensor:
        """Return the weight of each element's words; a bad sample is not to be imitated.  -> [B]"""
        weights = [element.weight if element.good is not False else 0.0 for element in part]
        return torch.tensor(weights, device=self.reader.device)


def _words(element: Ranked) -> int:
    return len(element.replies[0]) if element.good is not False else 0


def by_element(elements: Sequence[Ranked], flat: Sequence[float]) -> list[list[float]]:
    """Cut flat scores into those of each element's replies."""
    rest = iter(flat)
    return [[next(rest) for _ in element.replies] for element in elements]


def leads_of(element: Ranked, scores: Sequence[float]) -> list[float]:
    """Return score(better) - score(worse) of each pair; of a reply of its own, its score towards the side it is on."""
    if element.good is not None:
        return [scores[0] if element.good else -scores[0]]
    return [scores[better] - scores[worse] for better, worse in element.pairs]
