"""Preference-model pretraining: answers with public scores become pairs, and pairs become tagged ones (Askell et al. 2021).

    answers     {"prompt": …, "answers": [{"text": "…", "upvotes": 12, "accepted": true}, …]}

An answer may hold a "score", a number, in place of "upvotes"; "mode", "conversation", "person" and any provenance may stand
beside the answers.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from training.lines.rankings import Ranking, ranked_by
from training.lines.records import Comparison, Message, Reason, prompt_messages, provenance, reply_text

GOOD, BAD = "GOOD:", "BAD:"  # the tags of binarised pairs, as the paper writes them


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers of the public to one question with the score of each."""

    prompt: tuple[Message, ...]
    texts: tuple[str, ...]
    scores: tuple[float, ...]
    mode: str | None = None
    conversation: str | None = None
    person: str | None = None
    round: int | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    line: int | None = dataclasses.field(default=None, compare=False)  # of its file, from 1


def stack_exchange_score(upvotes: int, *, accepted: bool) -> int:
    """round(log2(1 + upvotes)), one more if accepted; -1 if upvotes are negative   (Askell et al. 2021, C.1)."""
    return -1 if upvotes < 0 else round(math.log2(1 + upvotes)) + accepted


def answers_of(record: dict[str, Any], _line: str = "") -> Answers:
    """Build the answers of a parsed line; Reason says what is wrong with it."""
    answers = record.get("answers")
    if not isinstance(answers, list):
        raise Reason("'answers' must be a list of answers")
    texts, scores = [], []
    for number, answer in enumerate(answers, 1):
        if not isinstance(answer, dict) or "text" not in answer:
            raise Reason(f"answer {number} has no 'text'")
        texts.append(reply_text("text", answer["text"]))
        scores.append(_score(answer, number))
    return Answers(prompt_messages(record.get("prompt")), tuple(texts), tuple(scores), **provenance(record, "answers"))


def _score(answer: dict[str, Any], number: int) -> float:
    upvotes, accepted, score = answer.get("upvotes"), answer.get("accepted", False), answer.get("score")
    if score is not None and upvotes is None:
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise Reason(f"the 'score' of answer {number} must be a number, not {score!r}")
        return float(score)
    if type(upvotes) is not int:
        raise Reason(f"the 'upvotes' of answer {number} must be a whole number, not {upvotes!r}")
    if not isinstance(accepted, bool):
        raise Reason(f"'accepted' of answer {number} must be true or false, not {accepted!r}")
    return float(stack_exchange_score(upvotes, accepted=accepted))


def pairs_of_answers(answers: Answers | Ranking) -> list[Comparison]:
    """Return pairs of unequal score, the best with the worst, the second with the last but one, and so on.

    Each answer stands in one pair at most: in all C(K,2) pairs it would be seen K-1 times in the one epoch.
    """
    texts = answers.texts if isinstance(answers, Answers) else answers.replies
    ranks = ranked_by(answers.scores) if isinstance(answers, Answers) else answers.ranks
    order = sorted(range(len(texts)), key=lambda place: ranks[place])  # stable: of equal ranks the earlier goes first
    found = []
    for better, worse in zip(order[: len(order) // 2], reversed(order), strict=False):
        if ranks[better] < ranks[worse] and texts[better] != texts[worse]:
            found.append(
                Comparison(
                    answers.prompt, texts[better], texts[worse],
                    mode=answers.mode, conversation=answers.conversation, person=answers.person, round=answers.round,
                    line=answers.line,
                )
            )  # fmt: skip
    return found


def binarised(pairs: Sequence[Comparison]) -> list[Comparison]:
    """Turn each A > B into GOOD:A > BAD:A and BAD:B > GOOD:B, in which the tag must agree with the reply.

    The tag stands before the reply: what is told good or bad there is the reply, and both sides share their prompt.
    """
    found = []
    for pair in pairs:
        for first, second, reply in ((GOOD, BAD, pair.chosen), (BAD, GOOD, pair.rejected)):
            found.append(dataclasses.replace(pair, chosen=first + reply, rejected=second + reply, source_line=None))
    return found
