"""Ranked preference modelling against imitation and binary discrimination (Askell et al. 2021, §3).

    python -m training.experiments.objectives

A graded target: every word has a weight, the better of two replies has more of it. A yes-or-no target: a reply is wrong if it
holds one of 60 words. From the same random weights the same pairs teach a ranked model, a good/bad classifier, and a language model of the good replies.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import preference
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
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

OBJECTIVES = ("ranked", "binary", "imitation")
TARGETS = ("graded", "yes or no")
SIZES = (500, 3000)
WRONG = frozenset(world.WORDS[::6])
Accuracy = dict[str, dict[str, dict[int, float]]]  # by target, objective, pairs


def exchange(draw: random.Random) -> tuple[str, str]:
    """A prompt and a reply of random words."""
    return world.sentence(draw, 3, 3), world.sentence(draw, 5, 8)


def pairs(seed: str, count: int, target: str, gold: world.Gold) -> list[dict[str, Any]]:
    """Pairs of unlike replies: by `gold`, or the one that holds no wrong word."""
    draw = random.Random(seed)
    right = [word for word in world.WORDS if word not in WRONG]
    found: list[dict[str, Any]] = []
    while len(found) < count:
        prompt, one = exchange(draw)
        if target == "graded":
            best, worst = world.preferred(draw, gold, prompt, [one, exchange(draw)[1]], 0.3)
        else:
            best = world.sentence(draw, 5, 8, right)
            words = world.sentence(draw, 5, 8, right).split()
            words[draw.randrange(len(words))] = draw.choice(sorted(WRONG))
            worst = " ".join(words)
        found.append(world.comparison(prompt, best, worst))
    return found


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> Accuracy:
    """Every target, objective and size once; held-out accuracy."""
    start = world.random_policy(root / "policy", seed=seed)
    gold = world.weighed(world.word_weights(seed))
    found: Accuracy = {target: {objective: {} for objective in OBJECTIVES} for target in TARGETS}
    for target in TARGETS:
        test = pairs(f"test {seed}", 100 if quick else 600, target, gold)
        for objective in OBJECTIVES:
            for size in SIZES:
                folder = world.run_folder(
                    root / f"{target[:6]}-{objective}-{size}",
                    {"model": str(start), "objective": objective, "seed": seed, "threads": 1},
                    train=pairs(f"train {seed}", size // (20 if quick else 1), target, gold), test=test,
                )  # fmt: skip
                found[target][objective][size] = world.result_of(preference.main, folder)["accuracy"]
            tick(f"{target}, {objective}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything over the seeds and write what was found."""
    options = Options.read("objectives", __doc__, seeds=4, arguments=arguments)
    findings = Findings("objectives", options)
    each = len(TARGETS) * len(OBJECTIVES)
    runs = each_seed(options, "objectives", each, one_seed)
    rows = [
        {"target": target, "objective": objective}
        | {f"{size} pairs": shown([run[target][objective][size] for run in runs]) for size in SIZES}
        for target in TARGETS
        for objective in OBJECTIVES
    ]
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def claims_of(runs: list[Accuracy]) -> list[Claim]:
    """The paper's expectations against these runs; differences are within seeds."""

    def lead(target: str, objective: str, other: str) -> list[float]:
        return [run[target][objective][3000] - run[target][other][3000] for run in runs]

    graded, binary = lead("graded", "ranked", "imitation"), lead("yes or no", "binary", "imitation")
    over_binary = lead("graded", "ranked", "binary")
    more = differences(graded, lead("yes or no", "ranked", "imitation"))
    return [
        Claim("graded target: ranked is far above imitation, by more than 0.05", surely_above([each - 0.05 for each in graded]),
              f"by {shown(graded)}"),
        Claim("graded target: ranked is above binary discrimination", surely_above(over_binary), f"by {shown(over_binary)}"),
        Claim("yes-or-no target: discrimination and imitation are about equal, the whole interval within ±0.05",
              surely_within(binary, 0.05), f"binary ahead by {shown(binary)}"),
        Claim("ranked gains more over imitation where the target is graded", surely_above(more), f"by {shown(more)}"),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[Accuracy]) -> None:
    """Accuracy by objective, a panel for each target."""
    for panel, target in zip(figure.subplots(1, 2, sharey=True), TARGETS, strict=True):
        for place, size in enumerate(SIZES):
            means = [interval([run[target][objective][size] for run in runs]) for objective in OBJECTIVES]
            at = [number + 0.4 * (place - 0.5) for number in range(len(OBJECTIVES))]
            panel.bar(at, [m for m, _ in means], 0.38, yerr=[h for _, h in means], label=f"{size} pairs")
        panel.set_xticks(range(len(OBJECTIVES)), OBJECTIVES)
        panel.set_title(target)
        panel.set_ylim(0.45, 1)
        panel.legend(fontsize=8)


if __name__ == "__main__":
    main()
