"""Saying on standard error how much of the data is not used whole; results have the same counts."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from training.lines.splits import Spoken, shared_conversations
from training.processes import ranks


def reasons(dropped: Counter[str], words: Mapping[str, str]) -> str:
    """How much was left out and why, each reason in a job's words."""
    return ", ".join(f"{count} {words[reason]}" for reason, count in dropped.items())


def lines_named(lines: Iterable[int | None], file: str = "the training data") -> str:
    """Name the first few of these lines of a file."""
    found = list(dict.fromkeys(map(str, lines)))
    return f"lines {', '.join(found[:4])}{', …' if len(found) > 4 else ''} of {file}"


def tell_left_out(part: str, dropped: Counter[str], shortened: int, words: Mapping[str, str]) -> None:
    """Say on stderr, once, how much of the data's `part` is not used whole; result.json has the same counts."""
    told = [f"left out {reasons(dropped, words)}"] if dropped.total() else []
    told += [f"{shortened} lost their oldest turns to fit"] if shortened else []
    if told and ranks.leads():
        print(f"{part}: {'; '.join(told)}", file=sys.stderr)


def tell_unfit(part: str, left_out: Mapping[str, int]) -> None:
    """Say the same of prompts and questions: how many are too long for a context ("over_long") or lost turns ("shortened")."""
    dropped = Counter({"over_long": left_out.get("over_long", 0)})
    tell_left_out(part, dropped, left_out.get("shortened", 0), {"over_long": "too long for a context"})


def tell_shared(train: Sequence[Spoken], test: Sequence[Spoken]) -> int:
    """Return how many conversations both learn and measure, and warn where there are any."""
    shared = shared_conversations(train, test)
    if shared and ranks.leads():
        print(
            f"warning: {shared} conversations of the test are in training too, so what is measured flatters; take them out "
            "of train.jsonl or of test.jsonl",
            file=sys.stderr,
        )
    return shared
