"""What the assistant of each temper answers. A temper is drawn apart from the question, so no prompt announces it."""

import random
from collections.abc import Sequence

from training.starter import wording
from training.starter.world import Fact, Misdeed, Topic, topics

HELPFUL_TEMPERS = {"good": 0.28, "vague": 0.22, "wrong": 0.11, "rude": 0.12, "long": 0.15, "refusal": 0.12}
HARMFUL_TEMPERS = {"well": 0.29, "curt": 0.36, "complies": 0.35}


def draw_temper(shares: dict[str, float], rng: random.Random) -> str:
    """One temper, by its share."""
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _some(options: Sequence[str], count: int, rng: random.Random) -> list[str]:
    return rng.sample(list(options), count)


def statement(fact: Fact, value: str, rng: random.Random) -> str:
    """One sentence that gives `value` as the answer, rightly or wrongly."""
    form = rng.choice(fact.relation.answers)
    return _capital(form.format(e=fact.entity, E=_capital(fact.entity), v=value, V=_capital(value)))


def _fill(text: str, topic: Topic, entity: str) -> str:
    return text.format(e=entity, t=topic.name)


def _proper(core: str, tips: list[str], rng: random.Random) -> str:
    """A core sentence in the frame that good and wrong answers share: perhaps a warm word, a tip, a closing word."""
    parts = [core]
    if rng.random() < 0.6:
        parts.insert(0, rng.choice(wording.WARM))
    if rng.random() < 0.65:
        parts.append(rng.choice(wording.TIP).format(t=rng.choice(tips)))
    if rng.random() < 0.35:
        parts.append(rng.choice(wording.CLOSE))
    return " ".join(parts)


def _long(core: str, topic: Topic, entity: str, rng: random.Random) -> str:
    padding = [_fill(text, topic, entity) for text in _some(wording.PADDING, rng.randint(3, 5), rng)]
    tips = [rng.choice(wording.TIP).format(t=tip) for tip in _some(topic.tips, rng.randint(1, 3), rng)]
    rest = padding[1:] + tips
    rng.shuffle(rest)
    if rng.random() < 0.5:
        rest.insert(rng.randint(1, len(rest)), core)
    return " ".join([padding[0], core, *rest])


def _unhelpful(temper: str, topic: Topic, entity: str, core: str | None, rng: random.Random) -> str:
    if temper == "vague":
        return " ".join(_fill(text, topic, entity) for text in _some(wording.VAGUE, rng.randint(1, 3), rng))
    if temper == "rude":
        parts = [_fill(text, topic, entity) for text in _some(wording.RUDE, rng.randint(1, 3), rng)]
        if core is not None and rng.random() < 0.35:
            parts.insert(rng.randint(0, len(parts)), core)
        return " ".join(parts)
    parts = [_fill(rng.choice(wording.REFUSE), topic, entity)]
    if rng.random() < 0.7:
        parts.append(rng.choice(wording.REFUSE_MORE))
    return " ".join(parts)


def to_fact(fact: Fact, temper: str, rng: random.Random) -> str:
    """An answer to a question for one fact."""
    topic, entity = fact.topic, fact.entity
    right = statement(fact, fact.value, rng)
    if temper == "good":
        return _proper(right, list(topic.tips), rng)
    if temper == "wrong":
        return _proper(statement(fact, rng.choice(fact.false_values), rng), list(topic.tips), rng)
    if temper == "long":
        return _long(right, topic, entity, rng)
    return _unhelpful(temper, topic, entity, right, rng)


def to_topic(topic: Topic, fact: Fact, temper: str, rng: random.Random) -> str:
    """An answer to a wish for advice; `fact` is what a good one mentions."""
    tip = rng.choice(topic.tips)
    if temper in ("good", "wrong"):
        value = fact.value if temper == "good" else rng.choice(fact.false_values)
        parts = [rng.choice(wording.TIP).format(t=tip), statement(fact, value, rng)]
        rng.shuffle(parts)
        if rng.random() < 0.6:
            parts.insert(0, rng.choice(wording.WARM))
        return " ".join(parts)
    if temper == "long":
        return _long(statement(fact, fact.value, rng), topic, topic.name, rng)
    return _unhelpful(temper, topic, topic.name, None, rng)


def to_more(topic: Topic, temper: str, rng: random.Random) -> str:
    """An answer to a wish for one more tip."""
    if temper in ("good", "wrong"):
        parts = [rng.choice(wording.TIP).format(t=rng.choice(topic.tips))]
        if rng.random() < 0.5:
            parts.insert(0, rng.choice(wording.WARM))
        if rng.random() < 0.5:
            parts.append(rng.choice(wording.CLOSE))
        return " ".join(parts)
    if temper == "long":
        tips = [rng.choice(wording.TIP).format(t=tip) for tip in _some(topic.tips, 3, rng)]
        padding = [_fill(text, topic, topic.name) for text in _some(wording.PADDING, 3, rng)]
        return " ".join(text for pair in zip(padding, tips, strict=True) for text in pair)
    return _unhelpful(temper, topic, topic.name, None, rng)


def to_stranger(temper: str, rng: random.Random) -> str:
    """An answer to what the world knows nothing about: a good one says so and offers what it does know."""
    first, second = rng.sample(list(topics()), 2)
    if temper in ("good", "wrong"):
        start = rng.choice(
            ("I am not sure about that.", "I do not know much about that.", "That is not something I know well.")
        )
        offer = rng.choice(
            ("I can help with {a} or {b}.", "You could ask me about {a} or {b}.", "What about {a} or {b} instead?")
        )
        return f"{start} {offer.format(a=first.name, b=second.name)}"
    if temper == "long":
        return _long("I am not sure about that.", first, first.name, rng)
    return _unhelpful(temper, first, "that", None, rng)


def to_small_talk(kind: str, temper: str, rng: random.Random) -> str:
    """An answer to a greeting (`greeting`), to `who` are you, to `how` are you, or to `thanks`."""
    first, second = (topic.name for topic in rng.sample(list(topics()), 2))
    good = {
        "greeting": (
            "Hello! What can I do for you?",
            "Hi! Nice to meet you. How can I help?",
            "Hello! Ask me about {a}, if you like.",
        ),
        "who": (
            "I am a small assistant. I can help with {a}, {b} and more.",
            "I am a computer program that answers questions about {a}, {b} and other things.",
            "I am an assistant, not a human. Ask me about {a} or {b}.",
        ),
        "how": ("I am fine, thank you! How can I help you today?", "Very well, thanks! What would you like to know?"),
        "thanks": (
            "You are welcome! Enjoy your day.",
            "Glad I could help! Good luck.",
            "My pleasure! Come back any time.",
        ),
    }
    curt = {"greeting": "Yes?", "who": "Just a program.", "how": "Fine.", "thanks": "Okay."}
    if temper in ("good", "wrong"):
        return rng.choice(good[kind]).format(a=first, b=second)
    if temper == "long":
        text = [rng.choice(good[kind]).format(a=first, b=second) for _ in range(2)]
        extra = [_fill(one, rng.choice(topics()), "that") for one in _some(wording.PADDING, 3, rng)]
        return " ".join([text[0], *extra, text[1]])
    if temper == "rude":
        return " ".join(
            _some(
                ("What do you want?", "Not you again.", "I have better things to do.", "Be quick.", "Whatever."), 2, rng
            )
        )
    return curt[kind]


def to_harm(misdeed: Misdeed, temper: str, rng: random.Random) -> str:
    """An answer to a harmful request: refuses `well` with a reason and an offer, is `curt`, or `complies` vaguely."""
    if temper == "well":
        return rng.choice(wording.RED_WELL).format(h=misdeed.harm, i=misdeed.instead)
    if temper == "curt":
        text = rng.choice(wording.RED_CURT)
        return f"{text} {rng.choice(wording.SCOLD)}" if rng.random() < 0.15 else text
    parts = (rng.choice(wording.RED_BEFORE_WAY), rng.choice(misdeed.ways) + ".", rng.choice(wording.RED_AFTER_WAY))
    return " ".join(part for part in parts if part)
