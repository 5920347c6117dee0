"""Demonstrations: replies to learn word by word. Reading them, holding some out, and their tokens.

A line is one of these; a message is {"role": "user" or "assistant", "content"}:

    TRL conversational            {"messages": [...]}, ending with the assistant's
    TRL prompt and completion     {"prompt": text or messages, "completion": text or messages}; "reply" is read as "completion"
    a comparison                  any shape of records.py: its chosen reply
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from training.lines import read_lines
from training.records import BadRecord, Comparison, Message, is_held_out, parse_line
from training.snapshots import PromptTooLong, render, render_reply, render_within
from training.words import Example

Turns = Literal["last", "all"]


@dataclass(frozen=True)
class Demonstration:
    """A conversation that ends with a reply; messages before `shown` are never learnt, whoever wrote them."""

    messages: tuple[Message, ...]
    shown: int
    conversation: str | None = None

    @property
    def prompt(self) -> list[Message]:
        """What the last reply answers."""
        return list(self.messages[:-1])


class _Reason(ValueError):
    """Why a record is no demonstration."""


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Read the lines of a .jsonl or .jsonl.gz; BadRecord names the first that is no demonstration and says why."""
    return [read_line(path.name, number, text, record) for number, text, record in read_lines(path)]


def read_line(file: str, number: int, text: str, record: dict[str, Any]) -> Demonstration:
    """Read one line, given as its text and as the object in it; BadRecord(number, why) when it is no demonstration."""
    try:
        return _demonstration(record, text, number)
    except _Reason as bad:
        raise BadRecord(number, f"{file}: {bad}") from bad


def _demonstration(record: dict[str, Any], text: str, number: int) -> Demonstration:
    if "chosen" in record or "rejected" in record:
        comparison = parse_line(text, number)
        reply: Message = {"role": "assistant", "content": comparison.chosen}
        # the replies before were picked by people too, but in red_team picked for the harm in them
        return Demonstration((*comparison.prompt, reply), len(comparison.prompt), comparison.conversation)
    if "messages" in record:
        before: list[Message] = []
        after = _messages("messages", record["messages"])
    elif "prompt" in record:
        key = "completion" if "completion" in record else "reply"
        if key not in record:
            raise _Reason("has a 'prompt' and no 'completion': there is no reply to learn")
        before, after = _side("prompt", record["prompt"], "user"), _side(key, record[key], "assistant")
    elif "text" in record:
        raise _Reason("is a text without a reply; texts belong into pretraining.jsonl")
    else:
        raise _Reason("has neither 'messages', nor 'prompt' and 'completion', nor 'chosen' and 'rejected'")
    spoken = [*before, *after]
    if not spoken or spoken[-1]["role"] != "assistant":
        raise _Reason("does not end with a message of the assistant: there is no reply to learn")
    if not any(message["role"] == "user" and message["content"].strip() for message in spoken[:-1]):
        raise _Reason("holds nothing that the last reply could answer: no message of the user before it")
    conversation = record.get("conversation")
    if conversation is not None and not isinstance(conversation, str):
        raise _Reason(f"'conversation' must be a text, not {conversation!r}")
    return Demonstration(tuple(spoken), len(before), conversation)


def _side(key: str, value: Any, role: Literal["user", "assistant"]) -> list[Message]:
    return [{"role": role, "content": value}] if isinstance(value, str) else _messages(key, value)


def _messages(key: str, items: Any) -> list[Message]:
    if not isinstance(items, list) or not items:
        raise _Reason(f"{key!r} must be a list of messages{'' if key == 'messages' else ' or a text'}")
    for place, item in enumerate(items, 1):
        if not isinstance(item, dict) or not isinstance(item.get("content"), str):
            raise _Reason(f"message {place} of {key!r} has no text in 'content'")
        if item.get("role") not in {"user", "assistant"}:
            raise _Reason(f"message {place} of {key!r} has the role {item.get('role')!r}, not 'user' or 'assistant'")
    return [cast("Message", {"role": item["role"], "content": item["content"]}) for item in items]


def split(demonstrations: Iterable[Demonstration], share: float) -> tuple[list[Demonstration], list[Demonstration]]:
    """Return (train, held out): a conversation falls on the side where its comparisons fall in the preference job."""
    train: list[Demonstration] = []
    out: list[Demonstration] = []
    for shown in demonstrations:
        place = Comparison(tuple(shown.prompt), "", "", conversation=shown.conversation)
        (out if is_held_out(place, share) else train).append(shown)
    return train, out


class Tokenised(NamedTuple):
    """The usable examples and the prompt of each; how many were left out by reason, and what the others lost."""

    examples: list[Example]
    prompts: list[list[Message]]
    dropped: Counter[str]
    shortened: int  # lost their oldest turns
    turns_missed: int  # earlier replies that the template writes unlike a reply that is sampled


def tokenised(
    demonstrations: Iterable[Demonstration], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, turns: Turns
) -> Tokenised:
    """Turn demonstrations into examples of at most `max_tokens`, learnt on their replies, each with its end token.

    A conversation that is too long loses its oldest turns whole ("shortened"). Dropped: "over_long", when the last turn
    alone does not fit; "empty_reply", when the last reply says nothing.
    """
    examples: list[Example] = []
    prompts: list[list[Message]] = []
    dropped: Counter[str] = Counter()
    shortened = missed = 0
    for shown in demonstrations:
        if not shown.messages[-1]["content"].strip():
            dropped["empty_reply"] += 1
            continue
        reply = render_reply(tokenizer, shown.messages[-1]["content"])
        try:
            prompt = render_within(tokenizer, shown.prompt, max_tokens - len(reply))
        except PromptTooLong:
            dropped["over_long"] += 1
            continue
        shortened += prompt.dropped > 0
        tokens = prompt.ids + reply
        learnt = list(range(len(prompt.ids), len(tokens)))
        if turns == "all":
            for place in range(max(shown.shown, prompt.dropped + 1), len(shown.messages) - 1):
                if shown.messages[place]["role"] == "assistant":
                    head = render(tokenizer, shown.messages[prompt.dropped : place])
                    said = head + render_reply(tokenizer, shown.messages[place]["content"])
                    if tokens[: len(said)] == said:
                        learnt += range(len(head), len(said))
                    else:
                        missed += 1
        examples.append(Example(tokens, sorted(learnt)))
        prompts.append(shown.prompt)
    return Tokenised(examples, prompts, dropped, shortened, missed)


def reasons(dropped: Counter[str]) -> str:
    """Say in words what was left out and why."""
    words = {"over_long": "longer than the model can read", "empty_reply": "with an empty reply"}
    return ", ".join(f"{count} {words[reason]}" for reason, count in dropped.items())
