"""Prompts to answer: reading them, holding some out, and the endless order in which training meets them."""

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from training.failure import JobFailed
from training.lines import splits
from training.lines.lines import data_file, read_lines
from training.lines.records import BadRecord, Message, Reason, messages_of, prompt_messages
from training.models.snapshots import PromptTooLong, render_within

Prompt = list[Message]
Item = TypeVar("Item")


def read_prompts(path: Path) -> list[Prompt]:
    """Read {"messages": [...]} or {"prompt": "..."} lines; BadRecord names the first that is neither."""
    return [prompt for prompt, _ in read_prompts_with_modes(path)]


def read_prompts_with_modes(path: Path) -> list[tuple[Prompt, str | None]]:
    """The same with what each line says its "mode" is, None where it says nothing."""
    return [(prompt, mode) for _, prompt, mode in _numbered(path)]


def numbered_prompts(path: Path) -> list[tuple[int, Prompt]]:
    """The same with the number of each line, from 1."""
    return [(number, prompt) for number, prompt, _ in _numbered(path)]


def line_of(path: Path, wanted: Callable[[Prompt], bool]) -> str:
    """Name the first line with such a prompt, for a job that stops at one: it has kept prompts and not their lines."""
    number = next((number for number, prompt in numbered_prompts(path) if wanted(prompt)), None)
    return f"a prompt of {path.name}" if number is None else f"the prompt on line {number} of {path.name}"


def _numbered(path: Path) -> list[tuple[int, Prompt, str | None]]:
    prompts = []
    found = data_file(path.parent, path.name.removesuffix(".jsonl"))
    if found is None:
        raise JobFailed(f"{path} is missing; write one prompt a line into it")
    for number, _, record in read_lines(found):
        try:
            prompts.append((number, _prompt(record), _mode(record)))
        except Reason as bad:
            raise BadRecord(number, str(bad), found.name) from bad
    if not prompts:
        raise JobFailed(f"{path} holds no prompt; write one a line into it")
    return prompts


def _prompt(record: dict[str, Any]) -> Prompt:
    key = next((key for key in ("messages", "prompt", "text") if key in record), None)
    if key is None:
        raise Reason("a prompt needs 'messages' (a list), 'prompt' or 'text' (a text)")
    if isinstance(record[key], str):  # one message, or a whole hh-rlhf transcript as in the preference job
        return list(prompt_messages(record[key]))
    found = messages_of(key, record[key])
    if found[-1]["role"] != "user" or not found[-1]["content"].strip():
        raise Reason("a prompt must end with a message of the user that is not empty")
    return found


def _mode(record: dict[str, Any]) -> str | None:
    mode = record.get("mode")
    if mode is not None and not isinstance(mode, str):
        raise Reason("'mode' must be a text, such as \"helpful\"")
    return mode


def hold_out(prompts: list[Prompt], share: float) -> tuple[list[Prompt], list[Prompt]]:
    """Return (train, held out): a conversation falls on the side where its comparisons fall in the preference job.

    So no policy is trained on what its preference model is measured on. Comparisons that have an id go by that; prompts have
    none. At least one prompt falls on each side where there are two different first messages.
    """
    train, out = held_places(prompts, share)
    return [prompts[place] for place in train], [prompts[place] for place in out]


def held_places(prompts: Sequence[Prompt], share: float) -> tuple[list[int], list[int]]:
    """The same as `hold_out`, as places among `prompts`."""
    places: dict[float, list[int]] = {}
    for number, prompt in enumerate(prompts):
        places.setdefault(splits.place(splits.text_key(prompt)), []).append(number)
    ranked = sorted(places)
    last = max(sum(place < share for place in ranked), 1)
    out = set(ranked[: min(last, len(ranked) - 1)])
    train = [number for place in ranked if place not in out for number in places[place]]
    return train, [number for place in ranked if place in out for number in places[place]]


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items at even distances, in their order: a file that is sorted by anything loses no part whole."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def rendered(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], room: int
) -> tuple[list[list[int]], dict[str, int]]:
    """Prompts as tokens, and how many lost their oldest turns ("shortened") or did not fit at all ("over_long")."""
    found, told = [], {"shortened": 0, "over_long": 0}
    for prompt in prompts:
        try:
            fitted = render_within(tokenizer, prompt, room)
        except PromptTooLong:
            told["over_long"] += 1
            continue
        found.append(fitted.ids)
        told["shortened"] += fitted.dropped > 0
    return found, told


def taken(count: int, seed: int | str, begin: int, number: int) -> list[int]:
    """Which of `count` prompts stand at places begin .. begin+number-1 of an endless row of shuffled passes.

    A function of its arguments alone, so a resumed run needs no cursor but the place.
    """
    found: list[int] = []
    while len(found) < number:
        turn, place = divmod(begin + len(found), count)
        found += _pass(count, seed, turn)[place : place + number - len(found)]
    return found


@functools.lru_cache(maxsize=8)
def _pass(count: int, seed: int | str, turn: int) -> list[int]:
    order = list(range(count))
    random.Random(f"prompts {seed} {turn}").shuffle(order)
    return order


def mixed(
    sizes: Mapping[str, int], weights: Mapping[str, float], seed: int, begin: int, number: int
) -> list[tuple[str, int]]:
    """Which prompt of which mode stands at places begin .. begin+number-1 where each mode has a share of its own.

    `sizes`: prompts of each mode; `weights`: their shares, in any unit. The modes follow the golden ratio's sequence, so
    that every stretch holds them in proportion; the prompts of a mode come in shuffled passes, as in `taken`.
    """
    names = sorted(weights)
    bounds = np.cumsum([weights[name] for name in names]) / sum(weights.values())
    golden = (math.sqrt(5) - 1) / 2
    mode = np.searchsorted(bounds[:-1], np.arange(1, begin + number + 1) * golden % 1.0, side="right")
    found: list[tuple[str, int]] = [("", 0)] * number
    for at, name in enumerate(names):
        here = np.flatnonzero(mode[begin:] == at)
        earlier = int((mode[:begin] == at).sum())
        if len(here):
            for place, prompt in zip(here, taken(sizes[name], f"{seed} {name}", earlier, len(here)), strict=True):
                found[int(place)] = (name, prompt)
    return found
