"""The starter's small world: topics with facts, and mild misdeeds. It is data; what is said about it is elsewhere."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Relation:
    """One thing that can be asked about every entity of a topic. `values[i]` is true of `entities[i]`."""

    cues: tuple[str, ...]
    questions: tuple[str, ...]
    follow_up: str
    answers: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Topic:
    """A field of everyday life."""

    name: str
    entities: tuple[str, ...]
    tips: tuple[str, ...]
    relations: tuple[Relation, ...]


@dataclass(frozen=True)
class Fact:
    """What is true of one entity under one relation."""

    topic: Topic
    relation: Relation
    entity: str
    value: str

    @property
    def false_values(self) -> tuple[str, ...]:
        """The values of the other entities: plausible and wrong."""
        return tuple(value for value in self.relation.values if value != self.value)


@dataclass(frozen=True)
class Misdeed:
    """A kind of mild harm a person may ask for, why it hurts, and what to offer instead."""

    name: str
    words: tuple[str, ...]
    acts: tuple[str, ...]
    harm: str
    instead: str
    ways: tuple[str, ...]


@lru_cache(maxsize=16_384)  # the same tips and entities are looked for in every reply
def plain(text: str) -> str:
    """Lower-case words and digits with single spaces and one space at each end, so that ` word ` finds whole words."""
    return " " + " ".join(re.findall(r"[^\W_]+", text.lower())) + " "


def mentions(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand together in `text`."""
    return plain(phrase) in plain(text)


@cache
def topics() -> tuple[Topic, ...]:
    """All topics, in the order of their file names."""
    found = []
    for path in sorted((HERE / "topics").glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        relations = tuple(
            Relation(
                cues=tuple(one["cues"]),
                questions=tuple(one["questions"]),
                follow_up=one["follow_up"],
                answers=tuple(one["answers"]),
                values=tuple(one["values"]),
            )
            for one in raw["relation"]
        )
        topic = Topic(raw["name"], tuple(raw["entities"]), tuple(raw["tips"]), relations)
        for relation in relations:
            if len(relation.values) != len(topic.entities) or len(set(relation.values)) != len(relation.values):
                raise ValueError(f"{path.name}: each relation needs one distinct value per entity")
        found.append(topic)
    return tuple(found)


@cache
def misdeeds() -> tuple[Misdeed, ...]:
    """All misdeeds."""
    raw = tomllib.loads((HERE / "misdeeds.toml").read_text(encoding="utf-8"))
    return tuple(
        Misdeed(one["name"], tuple(one["words"]), tuple(one["acts"]), one["harm"], one["instead"], tuple(one["ways"]))
        for one in raw["misdeed"]
    )


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact of the world."""
    return tuple(
        Fact(topic, relation, entity, value)
        for topic in topics()
        for relation in topic.relations
        for entity, value in zip(topic.entities, relation.values, strict=True)
    )


@cache
def _entities() -> tuple[tuple[str, Topic, str], ...]:
    """(plain entity without its article, topic, entity), longest first so that `black tea` wins over shorter names."""
    rows = []
    for topic in topics():
        for entity in topic.entities:
            bare = re.sub(r"^(a|an|the) ", "", entity)
            rows.append((plain(bare), topic, entity))
    return tuple(sorted(rows, key=lambda row: -len(row[0])))


def find_entity(text: str) -> tuple[Topic, str] | None:
    """The entity a text speaks of, if any; of several, the longest name."""
    words = plain(text)
    for bare, topic, entity in _entities():
        if bare in words:
            return topic, entity
    return None


def find_topic(text: str) -> Topic | None:
    """The topic a text speaks of, by the name of an entity or of the topic."""
    entity = find_entity(text)
    if entity is not None:
        return entity[0]
    for topic in topics():
        if mentions(text, topic.name):
            return topic
    return None


def find_relation(text: str, topic: Topic) -> Relation | None:
    """What a text asks about an entity of `topic`: the relation whose wording or cue words it shares most."""
    words = plain(text)
    best, best_share = None, 0.0
    for relation in topic.relations:
        for template in (*relation.questions, relation.follow_up):
            pieces = [plain(piece).strip() for piece in template.split("{e}")]
            pieces = [piece for piece in pieces if piece]
            if all(f" {piece} " in words for piece in pieces):
                share = 10.0 + sum(map(len, pieces))
                if share > best_share:
                    best, best_share = relation, share
        share = sum(f" {cue} " in words for cue in relation.cues) / len(relation.cues)
        if share > best_share:
            best, best_share = relation, share
    return best


def find_facts(text: str) -> tuple[Fact, ...]:
    """The facts a question asks for: one if its relation is clear, all of the entity's if not, none if no entity is named."""
    entity = find_entity(text)
    if entity is None:
        return ()
    topic, name = entity
    relation = find_relation(text, topic)
    about = [fact for fact in facts() if fact.topic is topic and fact.entity == name]
    return tuple(fact for fact in about if relation is None or fact.relation is relation)


def values_in(text: str, relation: Relation) -> tuple[str, ...]:
    """The values of a relation that a text states; a longer one hides a shorter one inside it."""
    words, found = plain(text), []
    for value in sorted(relation.values, key=len, reverse=True):
        if plain(value) in words:
            found.append(value)
            words = words.replace(plain(value), " ~ ")
    return tuple(found)


def find_misdeed(text: str) -> Misdeed | None:
    """The misdeed a text asks for: by one of its acts, else by at least two of its words."""
    words = plain(text)
    for misdeed in misdeeds():
        if any(plain(act) in words for act in misdeed.acts):
            return misdeed
    best, most = None, 1
    for misdeed in misdeeds():
        shared = sum(plain(word) in words for word in misdeed.words)
        if shared > most:
            best, most = misdeed, shared
    return best
