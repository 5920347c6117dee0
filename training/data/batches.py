"""Feedback in tokens, what of it an objective learns, and batches of it: plain rows, or the prompt once with all replies behind it."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from training.data.feedback import Feedback
from training.failure import JobFailed
from training.lines.pmp import Answers
from training.lines.rankings import Marked
from training.lines.records import Comparison
from training.lines.splits import conversation_key
from training.models.snapshots import PromptTooLong, render_reply, render_within

# Why feedback is left out, in words.
LEFT_OUT = {
    "weakest": "of the weakest strength",
    "over_long": "longer than the model can read",
    "same_tokens": "with equal replies once tokenised",
    "all_tied": "with no reply better than another",
    "too_few_answers": "with fewer than two answers",
    "no_pair": "marked replies, which only the objective 'binary' learns from",
    "bad": "marked bad, which imitation does not learn",
}


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A prompt with K replies in tokens, the best first; every reply ends with the end token.

    A comparison has the ranks (1, 2), a reply of its own has `good`.
    """

    prompt: list[int]
    replies: tuple[list[int], ...]
    ranks: tuple[int, ...]
    strength: int | None = None
    mode: str | None = None
    distribution: str | None = None
    turn: int = 1  # messages of the human in the whole prompt
    margin: float = 0.0  # by how much the better reply is to lead
    good: bool | None = None
    weight: float = 1.0  # of its loss; the mean over what is learnt is 1
    group: str | None = None  # its conversation or question; what is of one group is not independent
    line: int | None = None  # of the file that it was read from

    @property
    def tokens(self) -> int:
        """Tokens of a row that holds the prompt once and all replies."""
        return len(self.prompt) + sum(map(len, self.replies))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Places of (better, worse) replies; equal ranks make no pair."""
        places = range(len(self.ranks))
        return [(i, j) for i in places for j in places[i + 1 :] if self.ranks[i] < self.ranks[j]]


class Tokenised(NamedTuple):
    """The usable records, how many were left out by reason, and how many lost their oldest turns."""

    ranked: list[Ranked]
    dropped: Counter[str]
    shortened: int


def tokenised(
    records: Iterable[Feedback],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    weakest_strength: int = 0,
    strength_margins: Sequence[float] | None = None,
) -> Tokenised:
    """Turn records into tokens, at most `max_tokens` for a prompt and each reply; nothing is cut inside a turn.

    A prompt that is too long loses its oldest turns whole, as it would when the policy answers it ("shortened").
    Dropped: "weakest", a comparison of at most `weakest_strength`; "over_long", when the last turn and the longest reply
    alone do not fit; "same_tokens", texts that the tokenizer cannot tell apart; "all_tied", no reply better than another;
    "too_few_answers". `strength_margins` asks of each strength its lead, where the record asks for none itself.
    """
    found: list[Ranked] = []
    dropped: Counter[str] = Counter()
    shortened = 0
    for record in records:
        texts, ranks = _sides(record)
        strength = record.strength if isinstance(record, Comparison) else None
        if strength is not None and strength <= weakest_strength:
            dropped["weakest"] += 1
            continue
        if isinstance(record, Answers) and len(texts) < 2:
            dropped["too_few_answers"] += 1
            continue
        if len(texts) > 1 and min(ranks) == max(ranks):
            dropped["all_tied"] += 1
            continue
        replies = [render_reply(tokenizer, text) for text in texts]
        if len({tuple(reply) for reply in replies}) < len(replies):
            dropped["same_tokens"] += 1
            continue
        try:
            prompt = render_within(tokenizer, record.prompt, max_tokens - max(map(len, replies)))
        except PromptTooLong:
            dropped["over_long"] += 1
            continue
        shortened += prompt.dropped > 0
        order = sorted(range(len(replies)), key=lambda place: ranks[place])  # stable
        found.append(
            Ranked(
                prompt.ids,
                tuple(replies[place] for place in order),
                tuple(ranks[place] for place in order),
                strength=strength,
                mode=record.mode,
                distribution=record.extra.get("distribution"),
                turn=sum(message["role"] == "user" for message in record.prompt),
                margin=_margin(record, strength_margins),
                good=record.good if isinstance(record, Marked) else None,
                group=conversation_key(record),
                line=record.line,
            )
        )
    return Tokenised(found, dropped, shortened)


def _sides(record: Feedback) -> tuple[Sequence[str], Sequence[int]]:
    """Return the replies of a record and the rank of each."""
    if isinstance(record, Comparison):
        return (record.chosen, record.rejected), (1, 2)
    if isinstance(record, Marked):
        return (record.reply,), (1,)
    if isinstance(record, Answers):  # those that gave no pair
        return record.texts, (1,) * len(record.texts)
    return record.replies, record.ranks


def _margin(record: Feedback, of_strengths: Sequence[float] | None) -> float:
    if not isinstance(record, Comparison):
        return 0.0
    if record.margin is not None:
        return record.margin
    return of_strengths[record.strength - 1] if of_strengths is not None and record.strength is not None else 0.0


class Learnt(NamedTuple):
    """What an objective learns, one element a place in a batch; what it cannot use, by reason; the prompts behind it."""

    elements: list[Ranked]
    dropped: Counter[str]
    prompts: int


def learnt_of(ranked: Sequence[Ranked], objective: str, grouping: str) -> Learnt:
    """Return the elements of an objective.

    ranked, grouped     each prompt with all its pairs ([Ouyang] §3.5)
    ranked, pooled      each pair for itself, the baseline that sees a reply K-1 times an epoch
    binary              the best reply as good and the worst as bad, each for itself, and what is marked
    imitation           the best reply alone, and what is marked good
    """
    elements: list[Ranked] = []
    dropped: Counter[str] = Counter()
    prompts = 0
    for item in ranked:
        if objective == "ranked" and item.good is not None:
            dropped["no_pair"] += 1
            continue
        if objective == "imitation" and item.good is False:
            dropped["bad"] += 1
            continue
        prompts += 1
        if objective == "ranked" and grouping == "pooled":
            elements += [_some(item, (i, j)) for i, j in item.pairs]
        elif objective == "ranked" or (objective == "binary" and item.good is not None):
            elements.append(item)
        else:
            elements.append(dataclasses.replace(_some(item, (0,)), good=True))
            if objective == "binary":
                elements.append(dataclasses.replace(_some(item, (len(item.replies) - 1,)), good=False))
    return Learnt(elements, dropped, prompts)


def _some(item: Ranked, places: Sequence[int]) -> Ranked:
    """Return the item with the replies of these places alone."""
    return dataclasses.replace(
        item,
        replies=tuple(item.replies[place] for place in places),
        ranks=tuple(item.ranks[place] for place in places),
    )


def weighted(elements: Sequence[Ranked], of_modes: dict[str, float]) -> list[Ranked]:
    """Give each element its mode's weight (λ of [Bai] §5.1.2), all divided by their mean.

    So the size of an update stays what the learning rate was chosen for, and the mix alone changes.
    """
    weights = [of_modes.get(element.mode or "", 1.0) for element in elements]
    mean = sum(weights) / len(weights)
    if not mean:
        raise JobFailed("mode_weights gives everything in the data the weight 0; leave one mode a weight")
    return [dataclasses.replace(element, weight=w / mean) for element, w in zip(elements, weights, strict=True)]


def order(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch as lists of element numbers; the same seed and epoch give the same ones.

    A last batch of less than half the size joins the one before it: a few pairs alone would move the model as far as many.
    """
    numbers = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(numbers)
    batches = [numbers[begin : begin + batch] for begin in range(0, count, batch)]
    if len(batches) > 1 and 2 * len(batches[-1]) < batch:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


def by_length(elements: Sequence[Ranked], budget: int) -> list[list[Ranked]]:
    """Cut a batch into parts of similar length, each of at most `budget` padded tokens (or one element)."""
    parts: list[list[Ranked]] = []
    for element in sorted(elements, key=lambda element: element.tokens):
        # sorted upwards, so this element is the longest of the part it joins
        if parts and (len(parts[-1]) + 1) * element.tokens <= budget:
            parts[-1].append(element)
        else:
            parts.append([element])
    return parts
