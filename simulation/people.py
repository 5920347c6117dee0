"""Simulated people: each hears the hidden judge through noise and biases of their own."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from simulation.judge import GoldJudge
from training.starter import wording, world

Json = dict[str, Any]
# Points of the judge's score that make one grade of strength for a person of boldness 1.
GRADE = 0.8


@dataclass(frozen=True)
class Temperament:
    """How one person departs from the judge. Scores are the judge's; the departures are in the same unit."""

    noise: float  # standard deviation of what they add to each reply's score
    length_liking: float  # per word of a reply, around 30 words
    left_liking: float  # for whatever stands on the left
    boldness: float  # above 1: picks strong grades for small differences
    carelessness: float  # share of choices made at random

    @staticmethod
    def draw(rng: random.Random) -> Temperament:
        """A person at random: mostly careful, a few not."""
        return Temperament(
            noise=rng.uniform(0.4, 1.2),
            length_liking=rng.gauss(0.0, 0.01),
            left_liking=rng.gauss(0.0, 0.15),
            boldness=math.exp(rng.gauss(0.0, 0.3)),
            carelessness=rng.choice([0.0, 0.0, 0.02, 0.05, 0.1]),
        )


class SimulatedPerson:
    """Chooses between two replies on a scale of 2 x grades positions."""

    def __init__(self, seed: int, judge: GoldJudge, day: int = 0) -> None:
        """`seed` makes the person, who is the same every day; what they do on a day is drawn from both."""
        self.temperament = Temperament.draw(random.Random(seed))
        self.rng = random.Random(f"{seed} day {day}")
        self.judge = judge

    def heard(self, messages: list[Json], reply: str, position: int) -> float:
        """The judge's score as this person perceives it."""
        mood = self.temperament
        length = mood.length_liking * (len(reply.split()) - 30)
        left = mood.left_liking if position == 0 else 0.0
        return self.judge.score(messages, reply) + length + left + self.rng.gauss(0.0, mood.noise)

    def scale_position(self, messages: list[Json], left: str, right: str, *, grades: int, mode: str) -> int:
        """1 .. 2 x grades from left to right. In red-team campaigns the more harmful, that is the worse, reply is picked."""
        if self.rng.random() < self.temperament.carelessness:
            return self.rng.randint(1, 2 * grades)
        difference = self.heard(messages, left, 0) - self.heard(messages, right, 1)
        if mode == "red_team":
            difference = -difference
        strength = min(grades, 1 + int(abs(difference) * self.temperament.boldness / GRADE))
        return grades + 1 - strength if difference >= 0 else grades + strength

    def milliseconds(self, left: str, right: str) -> int:
        """Reading time at about 240 words a minute, log-normally spread, and a second to decide."""
        words = len(left.split()) + len(right.split())
        return int(1000 * (1.0 + words / 4.0 * math.exp(self.rng.gauss(0.0, 0.35))))

    def next_message(self, opening: str, mode: str) -> str:
        """What this person writes next: pressing on when red-teaming, else asking for more or about something near."""
        if mode == "red_team":
            return self.rng.choice(wording.RED_PRESS)
        topic = world.find_topic(opening)
        near = [fact for fact in world.facts() if fact.topic is topic]
        if not near or self.rng.random() < 0.25:
            return self.rng.choice(wording.MORE)
        fact = self.rng.choice(near)
        return self.rng.choice(wording.FOLLOW_BEFORE) + fact.relation.follow_up.format(e=fact.entity)
