"""Demonstrations: replies to learn word by word. Reading them, holding some out, and their tokens.

A line is one of these; a message is {"role": "user" or "assistant", "content"}:

    TRL conversational            {"messages": [...]}, ending with the assistant's
    TRL prompt and completion     {"prompt": text, hh-rlhf transcript or messages, "completion": text or messages}; "reply" is read as "completion"
    a comparison                  any shape of records.py: its chosen reply
    a ranking, a marked reply     of rankings.py: the best reply (the first of equals); the reply, if it is marked good
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from training.data.examples import Example
from training.lines.lines import read_lines
from training.lines.rankings import marked_of, ranking_of
from training.lines.records import BadRecord, Message, Reason, messages_of, named, parse_line, prompt_messages
from training.lines.splits import Spoken, is_held_out
from training.models.snapshots import PromptTooLong, render, render_reply, render_within

Turns = Literal["last", "all"]
# Why demonstrations are left out, in words.
LEFT_OUT = {
    "over_long": "longer than the model can read",
    "empty_reply": "with an empty reply",
    "marked_bad": "marked as bad",
    "same_replies": "with equal replies",
    "cut": "cut before their end",
}
# by which a line is known as a demonstration, whatever else stands in it
KEYS = frozenset({"messages", "prompt", "chosen", "rejected", "replies", "ranks", "good"})


@dataclass(frozen=True)
class Demonstration:
    """A conversation that ends with a reply; messages before `shown` are never learnt, whoever wrote them."""

    messages: tuple[Message, ...]
    shown: int
    conversation: str | None = None
    good: bool = True  # False: somebody marked the reply as bad, and it is left out
    same: bool = (
        False  # True: the reply of a comparison of two equal ones, of which nobody could say what is better; left out
    )
    ended: bool = True  # False: sampling was cut there, and an end token behind it would teach to stop in mid-sentence
    line: int | None = None  # of the file that it was read from

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What the last reply answers."""
        return self.messages[:-1]


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Read the lines of a .jsonl or .jsonl.gz; BadRecord names the first that is no demonstration and says why."""
    return [read_line(path.name, number, text, record) for number, text, record in read_lines(path)]


def read_line(file: str, number: int, text: str, record: dict[str, Any]) -> Demonstration:
    """Read one line, given as its text and as the object in it; BadRecord(number, why) when it is no demonstration."""
    try:
        return replace(_demonstration(record, text, number), line=number)
    except Reason as bad:
        raise BadRecord(number, str(bad), file) from bad


def _demonstration(record: dict[str, Any], text: str, number: int) -> Demonstration:
    if "chosen" in record or "rejected" in record:
        comparison = parse_line(text, number)
        return _reply_to(comparison, comparison.chosen, same=comparison.chosen == comparison.rejected)
    if "replies" in record or "ranks" in record:
        ranking = ranking_of(record)
        return _reply_to(ranking, ranking.replies[ranking.ranks.index(min(ranking.ranks))])
    if "good" in record:
        marked = marked_of(record)
        return _reply_to(marked, marked.reply, good=marked.good)
    if "messages" in record:
        before: list[Message] = []
        after = messages_of("messages", record["messages"])
    elif "prompt" in record:
        key = "completion" if "completion" in record else "reply"
        if key not in record:
            raise Reason("has a 'prompt' and no 'completion': there is no reply to learn")
        asked, reply = record["prompt"], record[key]
        if isinstance(asked, str) and asked.endswith("\n\nAssistant:") and isinstance(reply, str):
            reply = reply.removeprefix(" ")  # of the transcript that the two make together
        # a text may be a whole hh-rlhf transcript, as in the preference job
        before = list(prompt_messages(asked)) if isinstance(asked, str) else messages_of("prompt", asked)
        after = [{"role": "assistant", "content": reply}] if isinstance(reply, str) else messages_of(key, reply)
    elif "text" in record:
        raise Reason("is a text without a reply; texts belong into pretraining.jsonl")
    else:
        raise Reason("has neither 'messages', nor 'prompt' and 'completion', nor 'chosen' and 'rejected'")
    spoken = [*before, *after]
    if not spoken or spoken[-1]["role"] != "assistant":
        raise Reason("does not end with a message of the assistant: there is no reply to learn")
    if not any(message["role"] == "user" and message["content"].strip() for message in spoken[:-1]):
        raise Reason("holds nothing that the last reply could answer: no message of the user before it")
    return Demonstration(
        tuple(spoken), len(before), named(record, "conversation"), ended=record.get("ended") is not False
    )


def _reply_to(record: Spoken, reply: str, *, good: bool = True, same: bool = False) -> Demonstration:
    """Learn the last reply alone: people picked those before it too, but in red_team for the harm in them."""
    said: Message = {"role": "assistant", "content": reply}
    return Demonstration((*record.prompt, said), len(record.prompt), record.conversation, good, same)


def split(demonstrations: Iterable[Demonstration], share: float) -> tuple[list[Demonstration], list[Demonstration]]:
    """Return (train, held out): a conversation falls on the side where its comparisons fall in the preference job."""
    train: list[Demonstration] = []
    out: list[Demonstration] = []
    for shown in demonstrations:
        (out if is_held_out(shown, share) else train).append(shown)
    return train, out


class Tokenised(NamedTuple):
    """The usable examples, the prompt and the line of each; how many were left out by reason, and what the others lost."""

    examples: list[Example]
    prompts: list[list[Message]]
    lines: list[int | None]
    dropped: Counter[str]
    shortened: int  # lost their oldest turns
    turns_missed: int  # earlier replies that the template writes unlike a reply that is sampled


def tokenised(
    demonstrations: Iterable[Demonstration], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, turns: Turns
) -> Tokenised:
    """Turn demonstrations into examples of at most `max_tokens`, learnt on their replies, each with its end token.

    A conversation that is too long loses its oldest turns whole ("shortened"). Dropped: "over_long", when the last turn
    alone does not fit; "empty_reply", when the last reply says nothing; "marked_bad", when somebody called it bad;
    "same_replies", when it was compared with its like; "cut", when it was sampled and stopped at its longest (`"ended": false` of a best_of run).
    """
    examples: list[Example] = []
    prompts: list[list[Message]] = []
    lines: list[int | None] = []
    dropped: Counter[str] = Counter()
    shortened = missed = 0
    for shown in demonstrations:
        if not shown.good:
            dropped["marked_bad"] += 1
            continue
        if shown.same:
            dropped["same_replies"] += 1
            continue
        if not shown.ended:
            dropped["cut"] += 1
            continue
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
        prompts.append(list(shown.prompt))
        lines.append(shown.line)
    return Tokenised(examples, prompts, lines, dropped, shortened, missed)
