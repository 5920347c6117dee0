"""Does the score under the preference model trained against run away from that under another one? (Bai et al. 2022 §4.2.)

Two linear preference models on disjoint halves of the comparisons; the best policy for the first at a given KL is scored by both and
by gold, each centred on the initial policy. Expected: the gap grows with KL and shrinks with data. One world a seed: the amounts of
data are the first so many of the same comparisons, so that differences within a seed are of data alone.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training.experiments.features import compared, learnt, normal, tilted_to
from training.experiments.writing import Claim, Findings, Options, differences, interval, shown, surely_above

FEATURES, REPLIES, DECAY = 60, 20_000, 1e-3
PAIRS = (100, 400, 3000)  # of each half
ROOTS = (0.5, 1.0, 1.5, 2.0)  # √KL, √nats


Gains = dict[str, list[float]]  # train and test model's, gold's, and the gap between the first two, at every √KL


def one_seed(seed: int, replies: int) -> dict[int, Gains]:
    """Gains by the amount of data."""
    generator = torch.Generator().manual_seed(seed)
    x = normal(generator, replies, FEATURES)
    gold = x @ (2 * normal(generator, FEATURES) / FEATURES**0.5)
    base = torch.full((replies,), 1 / replies, dtype=torch.float64)
    halves = {name: compared(base, gold, max(PAIRS), generator) for name in ("train", "test")}
    return {pairs: gains(x, gold, base, halves, pairs) for pairs in PAIRS}


def gains(x: Tensor, gold: Tensor, base: Tensor, halves: dict[str, tuple[Tensor, Tensor]], pairs: int) -> Gains:
    """What the best policies for the train model gain, of models of the first `pairs` of each half.  [N, d], [N], [N]"""
    scores = {
        name: x @ learnt(x[chosen[:pairs]], x[rejected[:pairs]], DECAY) for name, (chosen, rejected) in halves.items()
    }
    scores = {name: score - (base * score).sum() for name, score in (scores | {"gold": gold}).items()}
    found: Gains = {name: [] for name in (*scores, "gap")}
    for root in ROOTS:
        policy = tilted_to(base, scores["train"], root**2)
        for name, score in scores.items():
            found[name].append(float((policy * score).sum()))
        found["gap"].append(found["train"][-1] - found["test"][-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every amount of data over the seeds and write what was found."""
    options = Options.read("robustness", __doc__, seeds=10, arguments=arguments, at_once=False)
    findings = Findings("robustness", options)
    replies = 2000 if options.quick else REPLIES
    runs = [one_seed(seed, replies) for seed in range(options.seeds)]

    def over_seeds(pairs: int, name: str, place: int) -> list[float]:
        return [run[pairs][name][place] for run in runs]

    rows: list[dict[str, Any]] = [
        {"pairs": pairs, "√KL": root, **{name: shown(over_seeds(pairs, name, place), 2) for name in ("train", "test", "gold", "gap")}}
        for pairs in PAIRS
        for place, root in enumerate(ROOTS)
    ]  # fmt: skip
    last = len(ROOTS) - 1
    gaps = {pairs: [over_seeds(pairs, "gap", place) for place in range(len(ROOTS))] for pairs in PAIRS}

    def shrinks(few: int, many: int) -> list[list[float]]:
        """By how much the gap of few pairs is above that of many, seed by seed, at every √KL."""
        return [differences(*both) for both in zip(gaps[few], gaps[many], strict=True)]

    def gains_more(few: int, many: int) -> list[float]:
        return differences(over_seeds(many, "gold", last), over_seeds(few, "gold", last))

    claims = [
        *(Claim(f"the gap grows with KL at every step, {pairs} pairs",
                all(surely_above(differences(more, less)) for less, more in itertools.pairwise(gaps[pairs])),
                f"from √KL = {ROOTS[0]:g} to {ROOTS[-1]:g} by {shown(differences(gaps[pairs][last], gaps[pairs][0]), 2)}")
          for pairs in PAIRS),
        *(Claim(f"the gap shrinks from {few} to {many} pairs, at every KL", all(surely_above(some) for some in shrinks(few, many)),
                f"by {', '.join(shown(some, 2) for some in shrinks(few, many))}")
          for few, many in itertools.pairwise(PAIRS)),
        Claim("the train model's gain exceeds the test model's in every seed at the largest KL and 100 pairs",
              min(gaps[100][last]) > 0, f"least {min(gaps[100][last]):.2f}"),
        *(Claim(f"{many} pairs give more gold than {few} at √KL = {ROOTS[-1]:g}", surely_above(gains_more(few, many)),
                f"by {shown(gains_more(few, many), 2)}")
          for few, many in itertools.pairwise(PAIRS)),
    ]  # fmt: skip

    def draw(figure: Figure) -> None:
        for panel, pairs in zip(figure.subplots(1, len(PAIRS)), PAIRS, strict=True):
            for name in ("train", "test", "gold"):
                means, halves = zip(
                    *(interval(over_seeds(pairs, name, place)) for place in range(len(ROOTS))), strict=True
                )
                panel.errorbar(ROOTS, means, yerr=halves, marker="o", markersize=3, capsize=2, label=name)
            panel.set(title=f"{pairs} pairs", xlabel="√KL (√nats)")
            panel.legend(fontsize="small")

    findings.write(rows=rows, claims=claims, numbers=runs, draw=draw)


if __name__ == "__main__":
    main(sys.argv[1:])
