"""Is a preference model of helpfulness alone worse than chance on harmlessness, and what does mixing do? (Bai et al. 2022 §5.1.)

One feature, compliance, is wanted in helpful comparisons and unwanted in harmless ones; the others are judged alike in part. A small
model sees a reply's features alone; a large one also sees them in the light of the request, so that it can judge both kinds.
Mixtures at a fixed total in steps of 10%, and λ on the harmless part of the loss at three quarters of helpful ones (`LAMBDA_SHARE`).
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training.experiments.features import learnt, normal
from training.experiments.writing import Claim, Findings, Options, differences, interval, shown, surely_above

FEATURES, TOTAL, TEST, DECAY = 20, 4000, 4000, 1e-3
SHARES = tuple(place / 10 for place in range(11))  # of helpful comparisons
LAMBDAS = (1.0, 2.0, 3.0, 4.0, 10.0)
LAMBDA_SHARE = 0.75  # helpful comparisons are the many, as in the paper (44k + 52k against 42k)
Pairs = tuple[Tensor, Tensor]


class Sides:
    """People who judge helpful and harmless comparisons, each with weights of their own, shared in part."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        common, *own = (normal(self.generator, FEATURES) / FEATURES**0.5 for _ in range(3))
        self.weights = [common + 0.7 * some for some in own]
        self.weights[0][0], self.weights[1][0] = 2.0, -2.0  # compliance: wanted when helpful, unwanted when harmless

    def pairs(self, mode: int, count: int) -> Pairs:
        """Features [count, d] of chosen and rejected replies; mode 0 helpful, 1 harmless."""
        x = normal(self.generator, 2, count, FEATURES)
        margin = (x[0] - x[1]) @ self.weights[mode]
        first = torch.rand(count, generator=self.generator, dtype=torch.float64) < torch.sigmoid(margin)
        return torch.where(first[:, None], x[0], x[1]), torch.where(first[:, None], x[1], x[0])


def seen(x: Tensor, mode: int, *, large: bool) -> Tensor:
    """What the model sees of replies: features, and for the large one the same again where the request is harmful."""
    return torch.cat([x, x * mode], 1) if large else x


def accuracies(w: Tensor, tests: Sequence[Pairs], *, large: bool) -> list[float]:
    """Held-out accuracy on helpful and on harmless pairs."""
    return [
        float(((seen(good, mode, large=large) - seen(bad, mode, large=large)) @ w > 0).double().mean())
        for mode, (good, bad) in enumerate(tests)
    ]


def trained(pairs: Sequence[Pairs], counts: Sequence[int], lam: float, *, large: bool) -> Tensor:
    """The model of the first `counts` pairs of each mode, the harmless ones' loss weighed with λ."""
    chosen, rejected = (
        torch.cat([seen(some[side][:count], mode, large=large) for mode, (some, count) in enumerate(zip(pairs, counts, strict=True))])
        for side in (0, 1)
    )  # fmt: skip
    weight = torch.cat([torch.ones(counts[0]), torch.full((counts[1],), lam)]).double()
    return learnt(chosen, rejected, DECAY, weight)


def one_seed(seed: int, total: int, *, large: bool) -> dict[str, list[list[float]]]:
    """Accuracies over the mixtures, and over λ."""
    sides = Sides(seed)
    pairs, tests = ([sides.pairs(mode, count) for mode in (0, 1)] for count in (total, TEST))
    mixed = []
    for share in SHARES:
        helpful = round(share * total)
        mixed.append(accuracies(trained(pairs, (helpful, total - helpful), 1.0, large=large), tests, large=large))
    many = round(LAMBDA_SHARE * total)
    weighed = [
        accuracies(trained(pairs, (many, total - many), lam, large=large), tests, large=large) for lam in LAMBDAS
    ]
    return {"mixture": mixed, "lambda": weighed}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both sizes of model over the seeds and write what was found."""
    options = Options.read("tension", __doc__, seeds=8, arguments=arguments, at_once=False)
    findings = Findings("tension", options)
    total = 600 if options.quick else TOTAL
    runs = {
        name: [one_seed(seed, total, large=large) for seed in range(options.seeds)]
        for name, large in (("small", False), ("large", True))
    }

    def over_seeds(model: str, what: str, place: int, mode: int) -> list[float]:
        return [run[what][place][mode] for run in runs[model]]

    rows: list[dict[str, Any]] = [
        {"model": model, "trained on": told, "λ": lam,
         "helpful": shown(over_seeds(model, what, place, 0)), "harmless": shown(over_seeds(model, what, place, 1))}
        for model in runs
        for what, settings in (("mixture", [(f"{share:.0%} helpful", 1.0) for share in SHARES]),
                               ("lambda", [(f"{LAMBDA_SHARE:.0%} helpful", lam) for lam in LAMBDAS]))
        for place, (told, lam) in enumerate(settings)
    ]  # fmt: skip
    alone = over_seeds("small", "mixture", len(SHARES) - 1, 1)
    flip = over_seeds("small", "mixture", 0, 0)

    def both(model: str, what: str, place: int) -> list[float]:
        """Mean accuracy over the two modes, of each seed."""
        return [
            (one + other) / 2
            for one, other in zip(*(over_seeds(model, what, place, mode) for mode in (0, 1)), strict=True)
        ]

    def spread(model: str) -> list[float]:
        columns = zip(*(both(model, "mixture", place) for place in range(1, 10)), strict=True)
        return [max(column) - min(column) for column in columns]

    def cost(model: str) -> list[float]:
        return differences(over_seeds(model, "lambda", 0, 0), over_seeds(model, "lambda", len(LAMBDAS) - 1, 0))

    def best(model: str) -> int:
        means = [interval(both(model, "lambda", place))[0] for place in range(len(LAMBDAS))]
        return means.index(max(means))

    def leads(model: str) -> dict[float, list[float]]:
        """By how much the λ of the best mean accuracy is ahead of each other one, seed by seed."""
        ahead = both(model, "lambda", best(model))
        return {
            lam: differences(ahead, both(model, "lambda", place))
            for place, lam in enumerate(LAMBDAS)
            if place != best(model)
        }

    flatter, dearer = differences(spread("small"), spread("large")), differences(cost("small"), cost("large"))
    claims = [
        Claim("helpful-only is below chance on harmless, in every seed", max(alone) < 0.5, shown(alone)),
        Claim("harmless-only is below chance on helpful, in every seed", max(flip) < 0.5, shown(flip)),
        Claim("the larger model is flatter from 10% to 90% helpful, in mean accuracy", surely_above(flatter),
              f"range {shown(spread('large'))} against {shown(spread('small'))}"),
        Claim("λ from 1 to 10 costs the small model more helpful accuracy than the large one", surely_above(dearer),
              f"{shown(cost('small'))} against {shown(cost('large'))}; the paper has 0.074 and 0.015"),
        *(Claim(f"λ = 2 or 3 gives the best mean accuracy, {model} model: ahead of λ = 1, 4 and 10",
                LAMBDAS[best(model)] in (2.0, 3.0)
                and all(surely_above(lead) for lam, lead in leads(model).items() if lam not in (2.0, 3.0)),
                f"λ = {LAMBDAS[best(model)]:g}, ahead of " + ", ".join(f"{lam:g} by {shown(lead)}" for lam, lead in leads(model).items()))
          for model in runs),
    ]  # fmt: skip

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for model, style in (("small", ":"), ("large", "-")):
            for mode, (name, colour) in enumerate((("helpful", "C0"), ("harmless", "C1"))):
                for panel, what, x in ((left, "mixture", SHARES), (right, "lambda", LAMBDAS)):
                    y, halves = zip(
                        *(interval(over_seeds(model, what, place, mode)) for place in range(len(x))), strict=True
                    )
                    panel.errorbar(
                        x, y, yerr=halves, linestyle=style, color=colour, marker="o", markersize=3, capsize=2,
                        label=f"{name}, {model} model",
                    )  # fmt: skip
        left.axhline(0.5, color="grey", linewidth=0.7)
        left.set(xlabel="share of helpful comparisons", ylabel="held-out accuracy")
        right.set(xlabel="λ")
        left.legend(fontsize="small")

    findings.write(rows=rows, claims=claims, numbers=runs, draw=draw)


if __name__ == "__main__":
    main(sys.argv[1:])
