"""Who is in training and who measures: by conversation or by person, a share, a half, or one of several folds.

Where a record falls depends on its conversation or person and on a salt alone, so more data moves nothing from one side to
the other. Folds alone are dealt out over the people (or conversations) that are there, so that all are of one size.
"""

import hashlib
from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from training.failure import JobFailed
from training.lines.records import Message

SplitBy = Literal["conversation", "person"]
HALVES = "half"  # the salt that makes the halves independent of what is held out


class Spoken(Protocol):
    """Any record of a conversation."""

    @property
    def prompt(self) -> tuple[Message, ...]: ...
    @property
    def conversation(self) -> str | None: ...


def conversation_key(record: Spoken) -> str:
    """Return what keeps a conversation's records on one side of a split: its id, else its first human message."""
    return text_key(record.prompt) if record.conversation is None else "id:" + record.conversation


def text_key(messages: Sequence[Message]) -> str:
    """Return the key of a conversation that has no id: of its first human message."""
    first = next(message["content"] for message in messages if message["role"] == "user")
    return "text:" + hashlib.sha256(first.encode("utf-8", "surrogatepass")).hexdigest()


def place(key: str, salt: str = "") -> float:
    """Return where in [0, 1) a key falls; another salt gives an independent place."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def is_held_out(record: Spoken, share: float, salt: str = "") -> bool:
    """Say whether the record's conversation falls into the held-out `share` (0.05, 0.35, 0.5, any).

    It depends on the conversation and the salt alone, so more data moves no conversation from one side to the other, and a
    smaller share is contained in a larger one.
    """
    return place(conversation_key(record), salt) < share


def shared_conversations(train: Sequence[Spoken], test: Sequence[Spoken]) -> int:
    """Return how many conversations of the test are in training too."""
    return len(set(map(conversation_key, train)) & set(map(conversation_key, test)))


class Told(Spoken, Protocol):
    """A record of somebody's feedback."""

    @property
    def person(self) -> str | None: ...


Record = TypeVar("Record", bound=Told)


class Split(NamedTuple, Generic[Record]):
    """What is learnt, what measures, and with a split by person what measures the same people's other conversations."""

    train: list[Record]
    test: list[Record]
    in_group: list[Record]


def key_of(record: Told, by: SplitBy) -> str:
    """Return what keeps records on one side; a split by person needs every record to name its person."""
    if by == "conversation":
        return conversation_key(record)
    if record.person is None:
        raise JobFailed("split_by is 'person' and a record names none; give every line a \"person\" or split otherwise")
    return "person:" + record.person


def parted(records: Sequence[Record], share: float, by: SplitBy = "conversation") -> Split[Record]:
    """Hold out about `share` of the conversations (or people); of the other people, that share of the conversations too."""
    test = [record for record in records if place(key_of(record, by)) < share]
    left = [record for record in records if not place(key_of(record, by)) < share]
    if by == "person" and share and not (test and left):
        raise JobFailed(f"no split by person holds out {share:g}: all fall on one side; use folds, or another share")
    return _in_group(left, test, share if by == "person" else 0.0)


def folded(records: Sequence[Record], fold: int, folds: int, share: float, by: SplitBy) -> Split[Record]:
    """Hold out fold number `fold` (from 0) of `folds`; of the other people, `share` of the conversations too."""
    keys = sorted({key_of(record, by) for record in records}, key=lambda key: place(key, "fold"))
    if len(keys) < folds:
        raise JobFailed(f"{folds} folds need as many {by}s and there are {len(keys)}; use fewer folds")
    out = set(keys[fold::folds])
    test = [record for record in records if key_of(record, by) in out]
    left = [record for record in records if key_of(record, by) not in out]
    return _in_group(left, test, share if by == "person" else 0.0)


def _in_group(left: list[Record], test: list[Record], share: float) -> Split[Record]:
    """Hold out conversations of people who stay in training, to tell strangers from mere novelty (IG 4.1)."""
    return Split(
        [record for record in left if not is_held_out(record, share)],
        test,
        [record for record in left if is_held_out(record, share)],
    )


def half_of(records: Sequence[Record], half: Literal["a", "b"], by: SplitBy = "conversation") -> list[Record]:
    """Return one of two disjoint halves, for a preference model to train against and one to test with (HH 4.2)."""
    return [record for record in records if (place(key_of(record, by), HALVES) < 0.5) == (half == "a")]
