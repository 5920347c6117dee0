"""The best of k replies (rejection sampling, Bai et al. 2022 section 4.5): drawn from a policy, scored by a preference model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from server.services.chat import failures
from training.lines.records import Message
from training.models.context import context_of
from training.models.snapshots import Fitted, PromptTooLong, render, render_reply, render_within
from training.reading.likelihood import reply_scores
from training.sampling.rollouts import sample_seeds
from workers.reply.asks import TOLD_BROKEN, Ask, BestOf, CannotAnswer, Failed, Outcome, Written
from workers.reply.loading import Scorer
from workers.reply.stream import Pen, StreamWriter

DIGITS = 4  # of a score in a candidate's notes; scores of training have a standard deviation of 1


class Draw:
    """The replies to choose from for one candidate.

    Reply i has seed i of `sample_seeds(ask.seed, 0, k)`, as in `training.best_of`: the same seed gives the same k replies and
    the same choice, whichever worker writes them.
    """

    def __init__(self, pen: Pen, best_of: BestOf, writer: StreamWriter, whole: Callable[[Draw], None]) -> None:
        """`whole` is called once, from the writer's thread, when the last of them has ended."""
        self.pen, self.best_of, self._whole = pen, best_of, whole
        self._ended: dict[int, Outcome] = {}  # by place
        asks = [replace(pen.ask, source=best_of.policy, seed=seed) for seed in sample_seeds(pen.ask.seed, 0, best_of.k)]
        self.pens = [Pen(writer, ask, self, withheld=True, sample_of=pen) for ask in asks]

    def put(self, item: tuple[Ask, Outcome], /) -> None:
        """Take the end of one of the replies."""
        ask, outcome = item
        self._ended[next(place for place, pen in enumerate(self.pens) if pen.ask is ask)] = outcome
        if len(self._ended) == len(self.pens):
            self._whole(self)

    def failed(self) -> Failed | None:
        """Why nothing can be chosen: the first of the replies that failed, since what stops one stops all."""
        ends = [self._ended[place] for place in range(len(self.pens))]
        return next((end for end in ends if isinstance(end, Failed)), None)

    def choose(self, scorer: Scorer) -> Outcome:
        """Score all replies at once and take the highest; of equal ones the first.

        The candidate has no log-probability, since the best of k is not drawn from the policy's distribution: what the policy
        gave the reply is in the notes, with all scores.
        """
        if self.pen.dropped:
            return Failed("Another worker has taken it over.", TOLD_BROKEN)
        replies = [end for place in range(len(self.pens)) if isinstance(end := self._ended[place], Written)]
        try:
            scored = scores_of(scorer, self.pen.ask.messages, [reply.text for reply in replies])
        except PromptTooLong as error:
            return Failed(f"Snapshot {scorer.source.name}: {error}.", failures.TOO_LONG)
        except CannotAnswer as error:
            return error.failed
        known = {place: score for place, score in enumerate(scored.scores) if score is not None}
        if not all(map(math.isfinite, known.values())):
            return Failed(f"Snapshot {scorer.source.name} gave a score that is no number.", TOLD_BROKEN)
        taken = max(known, key=known.__getitem__)
        notes = {
            "k": len(replies),
            "scores": [score if score is None else round(score, DIGITS) for score in scored.scores],
            "taken": taken,
            "policy_log_probability": replies[taken].log_probability,
        }
        if unscored := len(replies) - len(known):
            notes["unscored"] = unscored
        if scored.dropped:
            notes["dropped_messages"] = scored.dropped
        return replace(replies[taken], log_probability=None, notes=replies[taken].notes | {"best_of": notes})


class Scored(NamedTuple):
    """The score of each reply, None where it is too long to be read; messages left out before all of them alike."""

    scores: list[float | None]
    dropped: int


def scores_of(scorer: Scorer, messages: Sequence[Message], texts: Sequence[str]) -> Scored:
    """Score replies as the preference model learnt to read them: text by its own tokenizer, whole, behind one conversation.

    The oldest turns are left out whole until the longest reply fits behind them. Replies that do not fit behind the last message
    are not scored, rather than read without their ends; PromptTooLong when none fits.
    """
    try:
        replies, places, prompt = _rendered(scorer, messages, texts)
    except PromptTooLong:
        raise
    except Exception as error:  # a chat template may refuse in any way, and the model is none the worse for it
        told = f"Snapshot {scorer.source.name} cannot render this conversation: {error!r}"[:2000]
        raise CannotAnswer(told, TOLD_BROKEN) from error
    found = reply_scores(
        scorer.pm, [prompt.ids] * len(places), [replies[place] for place in places], int(scorer.tokenizer.eos_token_id)
    )
    by_place = dict(zip(places, found.tolist(), strict=True))
    return Scored([by_place.get(place) for place in range(len(replies))], prompt.dropped)


def _rendered(
    scorer: Scorer, messages: Sequence[Message], texts: Sequence[str]
) -> tuple[list[list[int]], list[int], Fitted]:
    """All replies as tokens, the places of those that can be read, and the conversation before them."""
    tokenizer, context = scorer.tokenizer, context_of(scorer.pm.backbone.config)
    replies = [render_reply(tokenizer, text) for text in texts]
    last = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    least = len(render(tokenizer, messages[last:]))
    places = [place for place, reply in enumerate(replies) if least + len(reply) <= context]
    if not places:
        raise PromptTooLong(
            f"the last message takes {least} tokens and the shortest of {len(replies)} replies {min(map(len, replies))}, and it "
            f"reads {context}"
        )
    return replies, places, render_within(tokenizer, messages, context - max(len(replies[place]) for place in places))
