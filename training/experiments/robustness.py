"""Does the score under the preference model trained against run away from that under another one? (Bai et al. 2022 §4.2.)

Two linear preference models on disjoint halves of the comparisons; the best policy for the first at a given KL is scored by both and
by gold, each centred on the initial policy. Expected: the gap grows with KL and shrinks with data.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from training.experiments.features import compared, learnt, normal, tilted_to
from training.experiments.writing import Claim, Findings, Options, interval, shown

FEATURES, REPLIES, DECAY = 60, 20_000, 1e-3
PAIRS = (100, 400, 3000)  # of each half
ROOTS = (0.5, 1.0, 1.5, 2.0)  # √KL, √nats


def one_seed(seed: int, pairs: int, replies: int) -> dict[str, list[float]]:
    """Train and test model's and gold's gain at every √KL."""
    generator = torch.Generator().manual_seed(1000 * seed + pairs)
    x = normal(generator, replies, FEATURES)
    gold = x @ (2 * normal(generator, FEATURES) / FEATURES**0.5)
    base = torch.full((replies,), 1 / replies, dtype=torch.float64)
    scores = {}
    for name in ("train", "test"):
        chosen, rejected = compared(base, gold, pairs, generator)
        score = x @ learnt(x[chosen], x[rejected], DECAY)
        scores[name] = score - (base * score).sum()
    scores["gold"] = gold - (base * gold).sum()
    found: dict[str, list[float]] = {name: [] for name in (*scores, "gap")}
    for root in ROOTS:
        policy = tilted_to(base, scores["train"], root**2)
        for name, score in scores.items():
            found[name].append(float((policy * score).sum()))
        found["gap"].append(found["train"][-1] - found["test"][-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every amount of data over the seeds and write what was found."""
    options = Options.read("robustness", __doc__, seeds=10, arguments=arguments)
    findings = Findings("robustness", options)
    replies = 2000 if options.quick else REPLIES
    runs = {pairs: [one_seed(seed, pairs, replies) for seed in range(options.seeds)] for pairs in PAIRS}

    def over_seeds(pairs: int, name: str, place: int) -> list[float]:
        return [run[name][place] for run in runs[pairs]]

    rows: list[dict[str, Any]] = [
        {"pairs": pairs, "√KL": root, **{name: shown(over_seeds(pairs, name, place), 2) for name in ("train", "test", "gold", "gap")}}
        for pairs in PAIRS
        for place, root in enumerate(ROOTS)
    ]  # fmt: skip
    gaps = {pairs: [interval(over_seeds(pairs, "gap", place))[0] for place in range(len(ROOTS))] for pairs in PAIRS}
    last = len(ROOTS) - 1
    claims = [
        Claim("the gap grows with KL, for every amount of data",
              all(one < other for some in gaps.values() for one, other in itertools.pairwise(some)),
              "; ".join(f"{pairs} pairs: {', '.join(f'{gap:.2f}' for gap in some)}" for pairs, some in gaps.items())),
        Claim("the gap shrinks with data, at every KL",
              all(gaps[100][place] > gaps[400][place] > gaps[3000][place] for place in range(len(ROOTS))), "as above"),
        Claim("the train model's gain exceeds the test model's in every seed at the largest KL and 100 pairs",
              all(gap > 0 for gap in over_seeds(100, "gap", last)), f"least {min(over_seeds(100, 'gap', last)):.2f}"),
        Claim("more data give more gold at the same KL",
              all(interval(over_seeds(100, "gold", place))[0] < interval(over_seeds(3000, "gold", place))[0]
                  for place in range(len(ROOTS))), "see the table"),
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

    findings.write(rows=rows, claims=claims, numbers={str(pairs): some for pairs, some in runs.items()}, draw=draw)


if __name__ == "__main__":
    main(sys.argv[1:])
