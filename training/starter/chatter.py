"""Ordinary English from outside the world, so that a person's free text does not throw the starter off its feet."""

import random

PEOPLE = (
    "my brother", "my aunt", "our teacher", "a man", "the woman next door", "Peter", "Maria", "my boss", "the girl", "he",
    "she", "they", "we", "I", "you", "somebody", "nobody", "my dad", "Mum", "the driver", "a friend of mine", "the doctor",
)  # fmt: skip
DOING = (
    "went to", "talked about", "thought of", "looked at", "forgot", "found", "bought", "lost", "liked", "wanted", "called",
    "left", "needed", "remembered", "painted", "broke", "saw", "wrote about", "dreamed of", "came back from", "asked for",
)  # fmt: skip
THINGS = (
    "the house", "a car", "the window", "an old book", "the computer", "a film", "the city", "the moon", "the river", "a door",
    "the radio", "the train", "a red chair", "the letter", "some paper", "the bank", "a long story", "the party", "the game",
    "his keys", "her job", "the news", "a picture", "the phone", "a question", "the internet", "a program", "physics",
    "politics", "football", "the president", "the ocean", "a robot", "the price of bread", "the school", "a language model",
    "the meeting", "an email", "the code", "a poem", "the world", "some numbers", "my life", "the law", "the future",
)  # fmt: skip
WHEN = (
    "yesterday", "last night", "in the morning", "on Monday", "today", "two years ago", "again", "at noon", "in June",
    "after work", "for a while", "at home", "in London", "every day", "with a smile", "too late", "very slowly", "in 1999",
)  # fmt: skip
ASK = (
    "What is {x}?", "Why is {x} so {q}?", "Can you explain {x} to me?", "Write something about {x}.", "Where is {x}?",
    "Do you like {x}?", "How much is {x}?", "Who invented {x}?", "I think {x} is {q}.", "Is {x} {q}?", "How does {x} work?",
    "What do you think about {x}?", "Tell me a story about {x}.", "What is the meaning of {x}?", "{x} is {q}, right?",
    "Should I sell {x}?", "What is {n} plus {m}?", "I have {n} of them and {m} more. What now?", "Translate {x} for me.",
)  # fmt: skip
QUALITIES = (
    "good", "bad", "big", "small", "expensive", "cheap", "strange", "beautiful", "difficult", "easy", "old", "new", "fast",
    "slow", "important", "boring", "funny", "sad", "cold", "blue", "dangerous", "famous", "true", "wrong",
)  # fmt: skip
JOIN = (" and ", ", but ", " because ", ", so ", " when ", " while ", ". Then ")


def sentence(rng: random.Random) -> str:
    """One statement with a full stop."""
    text = f"{rng.choice(PEOPLE)} {rng.choice(DOING)} {rng.choice(THINGS)}"
    if rng.random() < 0.6:
        text += f" {rng.choice(WHEN)}"
    if rng.random() < 0.4:
        text += f"{rng.choice(JOIN)}{rng.choice(PEOPLE)} {rng.choice(DOING)} {rng.choice(THINGS)}"
    return text[0].upper() + text[1:] + "."


def question(rng: random.Random) -> str:
    """Something a person may type that the world knows nothing about."""
    if rng.random() < 0.25:
        return " ".join(sentence(rng) for _ in range(rng.randint(1, 2)))
    text = rng.choice(ASK).format(
        x=rng.choice(THINGS), q=rng.choice(QUALITIES), n=rng.randint(2, 99), m=rng.randint(2, 999)
    )
    return text[0].upper() + text[1:]


def careless(text: str, rng: random.Random) -> str:
    """The same text as typed in a hurry: lower case, no final mark, a slip of the finger."""
    kind = rng.random()
    if kind < 0.5:
        text = text.lower()
    if kind < 0.3 or kind > 0.9:
        text = text.rstrip("?.!")
    if kind > 0.4 and len(text) > 8:
        at = rng.randrange(1, len(text) - 2)
        slip = rng.choice(("", text[at] * 2, text[at + 1] + text[at], rng.choice("etaoinsh")))
        text = text[:at] + slip + text[at + (2 if len(slip) == 2 and slip[0] != slip[1] else 1) :]
    return text
