"""Do comparisons of better and better replies beat as many of the first policy's? (Bai et al. 2022 §4.5, Fig. 16.)

Size-matched: 300 base pairs, or 100 base, 100 of best-of-16 (RS) and 100 of the policy of those 200 (online); then a model and a policy
from scratch on all 300, at equal KL. The gold judge turns over in the tail: a feature is good in moderation and bad in excess,
which only replies from there can tell. Held against it: a judge that turns where base replies already lie, and one that never turns.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training.experiments.features import compared, learnt, normal, tilted_to
from training.experiments.writing import (
    Claim,
    Findings,
    Options,
    differences,
    interval,
    shown,
    surely_above,
    surely_within,
)

FEATURES, REPLIES, PAIRS, BEST_OF, DECAY = 10, 20_000, 300, 16, 1e-2
ROOTS = (1.0, 1.5, 2.0, 2.5)  # √KL at which the final policies are held against each other
AT = 2.0  # the one the claims are about
# gold loses excess · max(0, first feature - from)²: (from, excess)
JUDGES = {"turns in the tail": (1.5, 3.0), "turns early": (0.0, 0.35), "never turns": (0.0, 0.0)}
TAIL, EARLY, NEVER = JUDGES


def best_of_policy(base: Tensor, score: Tensor, k: int) -> Tensor:
    """The distribution of the best by `score` of k draws from `base`.  [N], [N] -> [N]"""
    order = score.argsort()
    below = torch.cat([torch.zeros(1, dtype=torch.float64), base[order].cumsum(0)]).clamp(0, 1)
    return torch.zeros_like(base).scatter(0, order, (below**k).diff().clamp_min(0))


class World:
    """Replies, gold, and preference models that see the excess of every feature too, so that they can learn a turn where data show it."""

    def __init__(self, seed: int, turn: tuple[float, float], replies: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        x = normal(self.generator, replies, FEATURES)
        weights = normal(self.generator, FEATURES) / FEATURES**0.5
        weights[0] = 1.5
        begin, excess = turn
        self.gold = x @ weights - excess * (x[:, 0] - begin).clamp_min(0) ** 2
        self.seen = torch.cat([x, (x - begin).clamp_min(0) ** 2], 1)
        self.base = torch.full((replies,), 1 / replies, dtype=torch.float64)

    def compared(self, policy: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Features of chosen and rejected replies of `policy`."""
        chosen, rejected = compared(policy, self.gold, count, self.generator)
        return self.seen[chosen], self.seen[rejected]

    def scores(self, *sets: tuple[Tensor, Tensor]) -> Tensor:
        """Score of every reply by a model of all these pairs, from scratch."""
        chosen, rejected = (torch.cat([some[side] for some in sets]) for side in (0, 1))
        return self.seen @ learnt(chosen, rejected, DECAY)

    def gains(self, score: Tensor) -> list[float]:
        """Gold over the initial policy of the best policy for `score` at each √KL."""
        zero = float((self.base * self.gold).sum())
        return [float((tilted_to(self.base, score, root**2) * self.gold).sum()) - zero for root in ROOTS]


def one_seed(seed: int, turn: tuple[float, float], pairs: int, replies: int) -> dict[str, list[float]]:
    """Both arms in one world."""
    world, part = World(seed, turn, replies), pairs // 3
    static = world.scores(world.compared(world.base, pairs))
    first = world.compared(world.base, part)
    second = world.compared(best_of_policy(world.base, world.scores(first), BEST_OF), part)
    policy = tilted_to(world.base, world.scores(first, second), AT**2)
    third = world.compared(policy, pairs - 2 * part)
    return {"static": world.gains(static), "online": world.gains(world.scores(first, second, third)),
            "gold itself": world.gains(world.gold)}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both judges over the seeds and write what was found."""
    options = Options.read("online", __doc__, seeds=24, arguments=arguments, at_once=False)
    findings = Findings("online", options)
    replies = 2000 if options.quick else REPLIES
    runs = {
        judge: [one_seed(seed, turn, PAIRS, replies) for seed in range(options.seeds)] for judge, turn in JUDGES.items()
    }

    def over_seeds(judge: str, arm: str, place: int) -> list[float]:
        return [run[arm][place] for run in runs[judge]]

    def leads(judge: str, place: int) -> list[float]:
        pairs = zip(over_seeds(judge, "online", place), over_seeds(judge, "static", place), strict=True)
        return [online - static for online, static in pairs]

    rows: list[dict[str, Any]] = [
        {"gold judge": judge, "√KL": root, **{arm: shown(over_seeds(judge, arm, place), 2) for arm in runs[judge][0]},
         "online − static": shown(leads(judge, place), 2),
         "online ahead": f"{sum(lead > 0 for lead in leads(judge, place))} of {options.seeds}"}
        for judge in JUDGES
        for place, root in enumerate(ROOTS)
    ]  # fmt: skip
    at = ROOTS.index(AT)
    turning, control = leads(TAIL, at), leads(NEVER, at)
    growth, beyond = differences(turning, leads(TAIL, 0)), differences(turning, control)
    claims = [
        Claim(f"where gold turns over in the tail, base/RS/online thirds beat base alone at √KL = {AT:g}",
              surely_above(turning), f"by {shown(turning, 2)}"),
        Claim("where it never turns they are level: the whole interval is within ±0.1", surely_within(control, 0.1),
              shown(control, 3)),
        Claim("they gain more where gold turns in the tail than where it never turns, within seeds", surely_above(beyond),
              f"by {shown(beyond, 2)}"),
        Claim(f"the advantage grows from √KL = {ROOTS[0]:g} to {AT:g} where gold turns over in the tail",
              surely_above(growth), f"by {shown(growth, 2)}"),
    ]  # fmt: skip

    def draw(figure: Figure) -> None:
        for panel, judge in zip(figure.subplots(1, len(JUDGES)), JUDGES, strict=True):
            for arm in runs[judge][0]:
                means, halves = zip(
                    *(interval(over_seeds(judge, arm, place)) for place in range(len(ROOTS))), strict=True
                )
                panel.errorbar(ROOTS, means, yerr=halves, marker="o", markersize=3, capsize=2, label=arm)
            panel.set(title=f"gold {judge}", xlabel="√KL (√nats)", ylabel="gold over the initial policy")
            panel.legend(fontsize="small")

    findings.write(rows=rows, claims=claims, numbers=runs, draw=draw)


if __name__ == "__main__":
    main(sys.argv[1:])
