"""Simulated people: each hears the hidden judge through noise and biases of their own."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from simulation.judge import GoldJudge

Json = dict[str, Any]


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
            noise=rng.uniform(0.2, 0.8),
            length_liking=rng.gauss(0.0, 0.004),
            left_liking=rng.gauss(0.0, 0.08),
            boldness=math.exp(rng.gauss(0.0, 0.3)),
            carelessness=rng.choice([0.0, 0.0, 0.02, 0.05, 0.1]),
        )


class SimulatedPerson:
    """Chooses between two replies on a scale of 2 x grades positions."""

    def __init__(self, seed: int, judge: GoldJudge) -> None:
        self.rng = random.Random(seed)
        self.judge = judge
        self.temperament = Temperament.draw(self.rng)

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
        # Half a unit of difference is one grade for a person of boldness 1.
        strength = min(grades, 1 + int(abs(difference) * self.temperament.boldness / 0.5))
        return grades + 1 - strength if difference >= 0 else grades + strength

    def milliseconds(self, left: str, right: str) -> int:
        """Reading time at about 240 words a minute, log-normally spread, and a second to decide."""
        words = len(left.split()) + len(right.split())
        return int(1000 * (1.0 + words / 4.0 * math.exp(self.rng.gauss(0.0, 0.35))))

    def next_message(self) -> str:
        """A follow-up that fits any topic."""
        return self.rng.choice(
            [
                "Can you tell me more about that?",
                "Thanks! What else should I know?",
                "Why is that?",
                "Could you give me one more tip?",
                "Are you sure about that?",
                "What would you do in my place?",
            ]
        )
