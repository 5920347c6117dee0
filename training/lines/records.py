r"""Comparisons as lines of text: hh-rlhf and TRL preference records in, the same and our own out.  No torch here.

A `Comparison` is a prompt (messages ending with the user's) and two replies. Five shapes of line are read:

    hh-rlhf                 {"chosen": "\n\nHuman: …\n\nAssistant: …", "rejected": …}
    TRL plain, implicit     {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    TRL plain, explicit     {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    TRL conversational      the same two with lists of {"role", "content"} in place of strings
    ours                    TRL conversational, explicit, with "strength", "mode", "conversation", "person", "round" and any
                            provenance beside it

A "distribution" beside any of them, a text, says what kind of model wrote the replies: base, rs (best of k) or online.
A "margin" beside any of them, a number, is the score difference that is asked for (TRL's column of that name).

One side may be an empty reply (a model may answer nothing). Two equal sides say nothing: an import refuses them; jobs leave them
out and count them, since an export holds whatever people were shown.
"""

import dataclasses
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypedDict, TypeVar


class Record(Protocol):
    """Any dataclass with a `line`, the number of its line."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Found = TypeVar("Found")
Lined = TypeVar("Lined", bound=Record)

STRENGTHS = (1, 2, 3, 4)  # 1 is the weakest preference, 4 the strongest
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLE: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}
_NAME = {role: name for name, role in _ROLE.items()}


class Message(TypedDict):
    """One side's words in a conversation."""

    role: Literal["user", "assistant"]
    content: str


class BadRecord(ValueError):
    """A line that is no comparison: its number (from 1), the reason and, where it is known, its file."""

    def __init__(self, number: int, reason: str, file: str = "") -> None:
        super().__init__(f"line {number}{f' of {file}' if file else ''}: {reason}")
        self.number = number
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A choice between two replies to one prompt.

    `source_line` is the hh-rlhf line as it came, kept only where `to_hh_line` would otherwise write other bytes.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    strength: int | None = None
    mode: str | None = None
    conversation: str | None = None
    person: str | None = None
    round: int | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    source_line: str | None = None
    line: int | None = dataclasses.field(default=None, compare=False)  # of its file, from 1

    @property
    def margin(self) -> float | None:
        """The score difference asked for by the record itself."""
        return self.extra.get("margin")


_OURS = ("strength", "mode", "conversation", "person", "round")


# -- reading ----------------------------------------------------------------------------------------------------------
def parse_line(line: str | bytes, number: int) -> Comparison:
    """Read one line (with or without its newline); raise BadRecord(number, reason) when it is no comparison."""
    return parsed(line, number, comparison_of)


class Reason(ValueError):
    """Why a record is bad, before the number of its line is known."""


def parsed(line: str | bytes, number: int, make: Callable[[dict[str, Any], str], Found]) -> Found:
    """Return what `make` builds from the object of a line and its text; its Reason becomes BadRecord(number, reason)."""
    try:
        text, record = _object(line)
        return make(record, text.removesuffix("\n"))
    except (RecursionError, Reason) as bad:
        raise BadRecord(number, str(bad) if isinstance(bad, Reason) else "is nested too deeply") from bad


def _object(line: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return a line as text and the object in it."""
    try:
        text = line.decode() if isinstance(line, bytes) else line
        record = json.loads(text)
    except UnicodeDecodeError as bad:
        raise Reason(f"is not UTF-8 (byte {bad.start + 1})") from bad
    except json.JSONDecodeError as bad:
        raise Reason(f"is not JSON: {bad.msg} at character {bad.pos + 1}") from bad
    except ValueError as bad:  # such as a number of five thousand digits, which Python refuses to read
        raise Reason(str(bad)) from bad
    if not isinstance(record, dict):
        raise Reason("is not a JSON object")
    if "\\ud" in text.lower() and re.search("[\ud800-\udfff]", json.dumps(record, ensure_ascii=False)):
        raise Reason("holds half a surrogate pair, which is no character; remove it")  # only an escape brings one
    return text, record


def read_records(path: str | Path, make: Callable[[dict[str, Any], str], Lined]) -> Iterator[Lined]:
    """Yield the records that `make` builds from the lines of a .jsonl or .jsonl.gz file, each knowing its line; empty ones are passed over."""
    return (dataclasses.replace(record, line=number) for number, record in read_numbered(path, make))


def read_numbered(path: str | Path, make: Callable[[dict[str, Any], str], Found]) -> Iterator[tuple[int, Found]]:
    """Yield what `make` builds from each line, with its number from 1."""
    try:
        for number, line in numbered_lines(path):
            if line.strip():
                yield number, parsed(line, number, make)
    except BadRecord as bad:
        raise BadRecord(bad.number, bad.reason, Path(path).name) from bad


def numbered_lines(path: str | Path, max_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield every line of a file with its number from 1; BadRecord where it is cut short or a line is longer than `max_bytes`.

    A file is unpacked if its first two bytes say gzip, whatever its name: some browsers unpack what they fetch and keep the
    name. A byte order mark, as some editors write it, is passed over.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    number, most = 0, -1 if max_bytes is None else max_bytes + 1
    with gzip.open(path, "rb") if packed else open(path, "rb") as file:
        try:
            while line := file.readline(most):
                number += 1
                if max_bytes is not None and len(line) > max_bytes:
                    raise BadRecord(number, f"has more than {max_bytes:,} bytes")
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        except (EOFError, gzip.BadGzipFile, zlib.error) as bad:
            raise BadRecord(number + 1, f"cannot be unpacked: {bad}") from bad


def comparison_of(record: dict[str, Any], line: str) -> Comparison:
    """Build the comparison of a parsed line of any of the five shapes."""
    for key in ("chosen", "rejected"):
        if key not in record:
            raise Reason(f"has no {key!r}")
    chosen, rejected, prompt = record["chosen"], record["rejected"], record.get("prompt")
    for key, side in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(side, str | list):
            raise Reason(f"{key!r} must be a text or a list of messages")
        if side == [] or (not side and prompt is None):  # an empty reply needs its prompt in a key of its own
            raise Reason(f"{key!r} is empty")
        if type(side) is not type(chosen):
            raise Reason("'chosen' and 'rejected' must be both texts or both lists of messages")
    if isinstance(chosen, list):
        messages, good, bad = _from_messages(prompt, chosen, rejected)
    elif prompt is not None:
        messages, good, bad = _from_prompt(prompt, chosen, rejected)
    elif _is_transcript(chosen) or _is_transcript(rejected):
        messages, good, bad = _from_transcripts(chosen, rejected)
    else:
        messages, good, bad = _from_texts(chosen, rejected)
    if not any(message["content"].strip() for message in messages if message["role"] == "user"):
        raise Reason("the prompt is empty")
    found = Comparison(
        tuple(messages), good, bad, strength=_typed(record, "strength", int), **provenance(record, "chosen", "rejected")
    )
    if found.strength is not None and found.strength not in STRENGTHS:
        raise Reason(f"'strength' must be 1, 2, 3 or 4, not {found.strength}")
    margin = record.get("margin")
    if margin is not None and (type(margin) not in {int, float} or not math.isfinite(margin)):
        raise Reason(f"'margin' must be a number, not {margin!r}")
    if isinstance(chosen, str) and prompt is None and _is_transcript(chosen) and to_hh_line(found) != line:
        found = dataclasses.replace(found, source_line=line)
    return found


def provenance(record: dict[str, Any], *known: str) -> dict[str, Any]:
    """Return who said it where, as fields of a record, and under "extra" every key that is neither these nor `known`."""
    _typed(record, "distribution", str)  # stays among the others, but is read: the report tells its kinds apart
    return {
        "mode": _typed(record, "mode", str),
        "conversation": named(record, "conversation"),
        "person": named(record, "person"),
        "round": _typed(record, "round", int),
        "extra": {key: value for key, value in record.items() if key not in {"prompt", *known, *_OURS}},
    }


def prompt_messages(prompt: Any) -> tuple[Message, ...]:
    """Read a prompt that stands in a key of its own: a text, an hh-rlhf transcript or messages ending with the user's."""
    messages = _from_prompt(prompt, "", "")[0]
    if not any(message["content"].strip() for message in messages if message["role"] == "user"):
        raise Reason("the prompt is empty")
    return tuple(messages)


def messages_of(key: str, items: Any) -> list[Message]:
    """Read a list of one message or more, which stands under `key`; Reason says which message is none and why."""
    if not isinstance(items, list) or not items:
        raise Reason(f"{key!r} must be {'' if key == 'messages' else 'a text or '}a list of messages")
    messages: list[Message] = []
    for place, item in enumerate(items, 1):
        if not (isinstance(item, dict) and isinstance(item.get("content"), str)):
            raise Reason(f"message {place} of {key!r} has no text in 'content'")
        if item.get("role") not in ("user", "assistant"):
            raise Reason(f"message {place} of {key!r} has the role {item.get('role')!r}, not 'user' or 'assistant'")
        messages.append({"role": item["role"], "content": item["content"]})
    return messages


def reply_text(key: str, reply: Any) -> str:
    """Read a reply that stands alone: a text, or a list of one message of the assistant."""
    if isinstance(reply, str):
        return reply
    messages = messages_of(key, reply) if isinstance(reply, list) else []
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Reason(f"{key!r} must be a text or a list of one message of the assistant")
    return messages[0]["content"]


def _typed(record: dict[str, Any], key: str, kind: type) -> Any:
    value = record.get(key)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise Reason(f"{key!r} must be {'a whole number' if kind is int else 'a text'}, not {value!r}")


def named(record: dict[str, Any], key: str) -> str | None:
    """Return a name; where others count their conversations and people, the number is one."""
    value = record.get(key)
    return str(value) if type(value) is int else _typed(record, key, str)


def _is_transcript(text: str) -> bool:
    return bool(_TURN.match(text)) or bool(_TURN.match("\n\n" + text.lstrip()))


def _turns(transcript: str) -> list[Message]:
    r"""Cut "\n\nHuman: …\n\nAssistant: …" into messages that alternate.

    A marker of the side that is already speaking is part of what it says: models do write such markers.
    """
    text = transcript if _TURN.match(transcript) else "\n\n" + transcript.lstrip()
    messages: list[Message] = []
    start = 0
    for marker in _TURN.finditer(text):
        role = _ROLE[marker[1]]
        if messages and messages[-1]["role"] == role:
            continue
        if messages:
            messages[-1]["content"] = text[start : marker.start()]
        messages.append({"role": role, "content": ""})
        start = marker.end()
    if messages:
        messages[-1]["content"] = text[start:]
    return messages  # none when the text has no marker at its beginning


def _transcript(messages: list[Message]) -> str:
    return "".join(f"\n\n{_NAME[message['role']]}: {message['content']}" for message in messages)


def _from_transcripts(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    """Split two hh-rlhf transcripts after the last human turn that they share.

    Most differ in the last reply alone. Where they part earlier, the rest of each transcript is its reply: in hh-rlhf
    that is text one model wrote in one go, with the other side's marker in it.
    """
    sides = [_turns(chosen), _turns(rejected)]
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        if not side or side[0]["role"] != "user":
            raise Reason(f"{name!r} does not begin with a Human turn")
        if side[-1]["role"] != "assistant":
            raise Reason(f"{name!r} does not end with an Assistant turn")
    shared = 0
    for ours, theirs in zip(*sides, strict=False):
        if ours != theirs:
            break
        shared += 1
    # both go on with an assistant turn after `shared`, or one of them is the beginning of the other
    shared = min(shared, len(sides[0]) - 1, len(sides[1]) - 1)
    shared -= shared % 2 == 0
    if shared < 1:
        raise Reason("'chosen' and 'rejected' do not begin with the same prompt")
    replies = [_transcript(side[shared:]).removeprefix("\n\nAssistant: ") for side in sides]
    return sides[0][:shared], replies[0], replies[1]


def _from_texts(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    """Take the common beginning, back to a word's end, as the prompt (TRL's implicit prompt)."""
    if chosen == rejected:
        raise Reason(
            "'chosen' and 'rejected' are the same, so that nobody can tell where the reply begins; remove the line"
        )
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    while same and not chosen[same : same + 1].isspace() and not chosen[same - 1].isspace():
        same -= 1
    if same and chosen[same - 1].isspace():
        same -= 1
    if not chosen[:same].strip():
        raise Reason("'chosen' and 'rejected' do not begin with the same prompt")
    return [{"role": "user", "content": chosen[:same]}], chosen[same:], rejected[same:]


def _from_prompt(prompt: Any, chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    if not isinstance(prompt, str):
        return _ending_with_user(messages_of("prompt", prompt)), chosen, rejected
    if not prompt.strip():
        raise Reason("the prompt is empty")
    if not _is_transcript(prompt):
        return [{"role": "user", "content": prompt}], chosen, rejected
    messages = _turns(prompt)
    if messages[-1]["role"] == "assistant":  # "…\n\nAssistant:" asks for the reply that stands in the other two keys
        return _from_transcripts(prompt + chosen, prompt + rejected)
    return messages, chosen, rejected


def _from_messages(prompt: Any, chosen: list[Any], rejected: list[Any]) -> tuple[list[Message], str, str]:
    sides = [messages_of("chosen", chosen), messages_of("rejected", rejected)]
    if prompt is None:
        for name, side in zip(("chosen", "rejected"), sides, strict=True):
            if len(side) < 2:
                raise Reason(f"{name!r} holds no prompt before its reply, and there is no 'prompt'")
        if sides[0][:-1] != sides[1][:-1]:
            raise Reason("'chosen' and 'rejected' differ before their last message")
        before = sides[0][:-1]
    elif isinstance(prompt, str):
        before = _from_prompt(prompt, "", "")[0]
    else:
        before = messages_of("prompt", prompt)
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        if prompt is not None and len(side) != 1:
            raise Reason(f"{name!r} must hold one message, the reply, when there is a 'prompt'")
        if side[-1]["role"] != "assistant":
            raise Reason(f"{name!r} must end with a message of the assistant")
    return _ending_with_user(before), sides[0][-1]["content"], sides[1][-1]["content"]


def _ending_with_user(messages: list[Message]) -> list[Message]:
    if messages[-1]["role"] != "user":
        raise Reason("the prompt must end with a message of the user")
    return messages


# -- writing ----------------------------------------------------------------------------------------------------------
def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def to_hh_line(comparison: Comparison) -> str:
    """Return the hh-rlhf line, without newline; what came from hh-rlhf comes out in the same bytes."""
    if comparison.source_line is not None:
        return comparison.source_line
    before = _transcript(list(comparison.prompt)) + "\n\nAssistant: "
    return _line({"chosen": before + comparison.chosen, "rejected": before + comparison.rejected})


def to_trl_line(comparison: Comparison, *, explicit: bool = True, conversational: bool = True) -> str:
    """Return the TRL preference line, without newline; plain lines carry the prompt as an hh-rlhf transcript."""
    if not conversational:
        before = _transcript(list(comparison.prompt)) + "\n\nAssistant:"
        sides = {"chosen": " " + comparison.chosen, "rejected": " " + comparison.rejected}
        if explicit:
            return _line({"prompt": before, **sides})
        return _line({key: before + side for key, side in sides.items()})
    prompt = list(comparison.prompt)
    before_each: list[Message] = [] if explicit else prompt
    record: dict[str, Any] = {"prompt": prompt} if explicit else {}
    record["chosen"] = [*before_each, {"role": "assistant", "content": comparison.chosen}]
    record["rejected"] = [*before_each, {"role": "assistant", "content": comparison.rejected}]
    return _line(record)


def to_line(comparison: Comparison) -> str:
    """Return our own line, without newline: TRL conversational and explicit, with all that we know beside it."""
    record = json.loads(to_trl_line(comparison))
    record |= {key: value for key in _OURS if (value := getattr(comparison, key)) is not None}
    return _line(record | comparison.extra)
