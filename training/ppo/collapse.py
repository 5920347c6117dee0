"""The alarm for a policy that has learnt to please the preference model and nobody else.

Scores and losses do not show it (Zheng et al. 2023 §5.2): replies grow, their perplexity falls and the KL climbs. Perplexity need
not fall where replies grow without end: of the twenty collapsed runs of docs/experiments/length_bug.md it rose in sixteen. And a rate
that tears the policy at once leaves neither long nor sure replies, but tokens that the initial policy would hardly ever say.
"""

import math
from dataclasses import dataclass, field
from statistics import fmean

NEARLY_ALL = 0.9


@dataclass
class CollapseAlarm:
    """Compares the last `window` iterations with the first; `state` is what a checkpoint keeps."""

    window: int
    length_factor: float  # of the first window's mean length
    perplexity_factor: float  # of the first window's perplexity less one, which is 0 where the policy is certain
    kl_bound: float  # nats per token
    runaway_factor: float  # of the first window's mean length: whatever the perplexity
    cap: int  # tokens that a reply may have; nearly all of them are as far as any can run away
    noise_bound: float  # nats per token by which the initial policy finds replies less likely than its own
    first: list[tuple[float, float]] = field(default_factory=list)  # (length, perplexity)
    last: list[tuple[float, float, float]] = field(default_factory=list)  # (length, perplexity, KL per token)
    # -log p of the initial policy, nats per token: of the first iteration, whose replies are its own, and of the last `window`
    surprise: list[float] = field(default_factory=list)

    def observe(self, length: float, perplexity: float, kl_per_token: float, perplexity_initial: float) -> str | None:
        """Take in one iteration, with what the initial policy makes of its replies; the reason to stop, or None."""
        return self._grown(length, perplexity, kl_per_token) or self._noise(perplexity_initial)

    def _noise(self, perplexity_initial: float) -> str | None:
        """Whether the replies of the last window are noise to the initial policy; the first window need not be over."""
        own, *since = [*self.surprise, math.log(perplexity_initial)]
        since = since[-self.window :]
        self.surprise = [own, *since]
        if len(since) == self.window and fmean(since) - own >= self.noise_bound:
            return (
                f"the policy has turned to noise: over {self.window} iterations the initial policy found a token of its replies "
                f"{fmean(since) - own:.1f} nats less likely than of its own; lower learning_rate or raise kl_weight"
            )
        return None

    def _grown(self, length: float, perplexity: float, kl_per_token: float) -> str | None:
        if len(self.first) < self.window:
            self.first.append((length, perplexity))
            return None
        self.last = [*self.last, (length, perplexity, kl_per_token)][-self.window :]
        if len(self.last) < self.window:
            return None
        length0, perplexity0 = (fmean(column) for column in zip(*self.first, strict=True))
        length1, perplexity1, kl = (fmean(column) for column in zip(*self.last, strict=True))
        longer = length1 >= self.length_factor * length0
        surer = perplexity1 - 1 <= self.perplexity_factor * (perplexity0 - 1)
        runaway = length1 > length0 and length1 >= min(self.runaway_factor * length0, NEARLY_ALL * self.cap)
        if ((longer and surer) or runaway) and kl >= self.kl_bound:
            return (
                f"the policy has collapsed: over {self.window} iterations replies grew from {length0:.0f} to {length1:.0f} "
                f"tokens, perplexity went from {perplexity0:.2f} to {perplexity1:.2f} and the KL reached {kl:.2f} nats a "
                "token; raise kl_weight or lower learning_rate, or stop after fewer episodes"
            )
        return None

    def state(self) -> dict[str, list[list[float]]]:
        """What a checkpoint keeps."""
        rows = {"first": [list(row) for row in self.first], "last": [list(row) for row in self.last]}
        return rows | {"surprise": [list(self.surprise)]}

    def restore(self, state: dict[str, list[list[float]]]) -> None:
        """Go on from `state`."""
        self.first = [(row[0], row[1]) for row in state["first"]]
        self.last = [(row[0], row[1], row[2]) for row in state["last"]]
        (self.surprise,) = state.get("surprise", [[]])  # absent in checkpoints of before it was watched
