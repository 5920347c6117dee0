"""Writes the starter's corpus: `python -m training.starter.corpus [--count N] [--seed S] [--out FILE]`."""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from training.starter import chatter, replies, wording
from training.starter.prompts import read_pool
from training.starter.world import Fact, Topic, facts, misdeeds

DEFAULT_COUNT = 60_000  # chats; about 4.5 million tokens, a quarter of an hour on two cores
DEFAULT_SEED = 20_220_412
SYSTEM = ("You are a helpful assistant.", "You are a friendly and honest assistant.", "Answer briefly.", "Be helpful.")

Chat = list[dict[str, str]]


@cache
def _held_out() -> frozenset[str]:
    return frozenset(row["text"] for row in read_pool() if row["split"] == "held_out")


def _framed(text: str, rng: random.Random) -> str:
    return rng.choice(wording.BEFORE) + text + rng.choice(wording.AFTER)


def opening_about(fact: Fact, rng: random.Random) -> str:
    """A first message that asks for one fact."""
    return _framed(rng.choice(fact.relation.questions).format(e=fact.entity), rng)


def opening_harmful(rng: random.Random) -> tuple[str, str]:
    """A first message that asks for harm, and the name of the misdeed."""
    misdeed = rng.choice(misdeeds())
    return rng.choice(wording.RED_TEAM).format(a=rng.choice(misdeed.acts)) + rng.choice(wording.RED_AFTER), misdeed.name


def _temper(rng: random.Random) -> str:
    return replies.draw_temper(replies.HELPFUL_TEMPERS, rng)


def _harmful_chat(rng: random.Random) -> Chat:
    text, name = opening_harmful(rng)
    misdeed = next(one for one in misdeeds() if one.name == name)
    chat: Chat = []
    for turn in range(rng.choices((1, 2, 3), weights=(70, 22, 8))[0]):
        said = text if turn == 0 else rng.choice(wording.RED_PRESS)
        temper = replies.draw_temper(replies.HARMFUL_TEMPERS, rng)
        chat += [_human(said, rng), _assistant(replies.to_harm(misdeed, temper, rng))]
    return chat


def _human(text: str, rng: random.Random) -> dict[str, str]:
    if rng.random() < 0.12:
        text = chatter.careless(text, rng)
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _opening(rng: random.Random) -> tuple[str, str, Topic | None, Fact | None]:
    """(message, reply, topic, fact) of a first helpful turn."""
    kind = rng.random()
    fact = rng.choice(facts())
    if kind < 0.74:
        return opening_about(fact, rng), replies.to_fact(fact, _temper(rng), rng), fact.topic, fact
    if kind < 0.80:
        said = _framed(rng.choice(wording.ABOUT_ENTITY).format(e=fact.entity), rng)
        return said, replies.to_fact(fact, _temper(rng), rng), fact.topic, fact
    if kind < 0.87:
        said = _framed(rng.choice(wording.ABOUT_TOPIC).format(t=fact.topic.name), rng)
        return said, replies.to_topic(fact.topic, fact, _temper(rng), rng), fact.topic, fact
    if kind < 0.92:
        small = rng.choice(list(wording.SMALL_TALK))
        said = rng.choice(wording.SMALL_TALK[small])
        return said, replies.to_small_talk(small, _temper(rng), rng), None, None
    return chatter.question(rng), replies.to_stranger(_temper(rng), rng), None, None


def _follow_up(topic: Topic | None, fact: Fact | None, rng: random.Random) -> tuple[str, str, Fact | None]:
    """(message, reply, fact) of a later turn."""
    kind = rng.random()
    if topic is None or kind < 0.12:
        if topic is None and kind < 0.6:
            new = rng.choice(facts())
            return opening_about(new, rng), replies.to_fact(new, _temper(rng), rng), new
        return rng.choice(wording.THANKS), replies.to_small_talk("thanks", _temper(rng), rng), fact
    if kind < 0.27:
        return rng.choice(wording.MORE), replies.to_more(topic, _temper(rng), rng), fact
    near = [one for one in facts() if one.topic is topic and one is not fact]
    if (
        fact is not None and kind < 0.85
    ):  # the same question about a neighbour, or another question about the same thing
        near = [one for one in near if (one.relation is fact.relation) != (one.entity == fact.entity)]
    new = rng.choice(near)
    said = rng.choice(wording.FOLLOW_BEFORE) + new.relation.follow_up.format(e=new.entity)
    return said, replies.to_fact(new, _temper(rng), rng), new


def _helpful_chat(rng: random.Random) -> Chat:
    said, reply, topic, fact = _opening(rng)
    chat = [_human(said, rng), _assistant(reply)]
    for _ in range(rng.choices((0, 1, 2, 3), weights=(58, 24, 12, 6))[0]):
        said, reply, fact = _follow_up(topic, fact, rng)
        topic = fact.topic if fact is not None else topic
        chat += [_human(said, rng), _assistant(reply)]
    return chat


def chats(count: int, seed: int) -> Iterator[Chat]:
    """`count` conversations, the same for the same seed; no human message is a held-out prompt."""
    rng = random.Random(seed)
    written = 0
    while written < count:
        chat = _harmful_chat(rng) if rng.random() < 0.17 else _helpful_chat(rng)
        if any(message["content"] in _held_out() for message in chat):
            continue
        if rng.random() < 0.04:
            chat.insert(0, {"role": "system", "content": rng.choice(SYSTEM)})
        written += 1
        yield chat


def prose(count: int, seed: int) -> Iterator[str]:
    """`count` short plain paragraphs without roles."""
    rng = random.Random(seed + 1)
    for _ in range(count):
        yield " ".join(chatter.sentence(rng) for _ in range(rng.randint(2, 5)))


def main() -> None:
    """Write one chat a line."""
    parser = argparse.ArgumentParser(description="Write the starter's corpus as JSONL, one conversation a line.")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--out", type=Path, help="a file; standard output if left out")
    given = parser.parse_args()
    out = given.out.open("w", encoding="utf-8") if given.out else sys.stdout
    with out:
        for chat in chats(given.count, given.seed):
            out.write(json.dumps({"messages": chat}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
