"""Preference-model pretraining saves comparisons, and binarised pairs are easier to unlearn (Askell et al. 2021, §4).

    python -m training.experiments.pmp_efficiency

The public scores answers by one set of word weights; people judge replies by a related one (correlation 0.8), or by its reverse.
A preference model learns from 100, 500 or 2,000 of their comparisons, after no PMP, PMP on ranked pairs, or on binarised ones. A
ranked pair makes two binarised ones; so binarised PMP once has the same questions, and once half of them: as many pairs and updates.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import preference
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
from training.experiments.writing import Claim, Findings, Options, differences, interval, shown, surely_above

SIZES = (100, 500, 2000)
QUESTIONS = 2500
HALF = "binarised, half the questions"
STAGES: dict[str, tuple[str, int] | None] = {  # the pairs of PMP, and of how many questions
    "none": None,
    "ranked": ("ranked", QUESTIONS),
    "binarised": ("binarised", QUESTIONS),
    HALF: ("binarised", QUESTIONS // 2),
}
ORDERS = ("related", "reversed")
Accuracy = dict[str, dict[str, dict[int, float]]]  # by order, stage, comparisons


def question(draw: random.Random, gold: world.Gold) -> dict[str, Any]:
    """A prompt with two to four scored answers, whole numbers as the public gives them."""
    prompt = world.sentence(draw, 3, 3)
    texts = [world.sentence(draw, 5, 8) for _ in range(draw.randint(2, 4))]
    return {"prompt": prompt, "answers": [{"text": text, "score": round(2 * gold(prompt, text))} for text in texts]}


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> Accuracy:
    """Every order, stage and size once; held-out accuracy."""
    start = world.random_policy(root / "policy", seed=seed)
    public = world.word_weights(2 * seed)
    people = world.mixed(public, world.word_weights(2 * seed + 1), 0.8)
    draw = random.Random(f"public {seed}")
    asked = [question(draw, world.weighed(public)) for _ in range(QUESTIONS)]
    begins = {"none": start}
    for stage, pretraining in STAGES.items():
        if pretraining is None:
            continue
        pairs, questions = pretraining
        folder = world.run_folder(
            root / f"pmp-{stage}",
            {"preset": "pmp", "pmp_pairs": pairs, "max_tokens": 0, "model": str(start), "seed": seed, "threads": 1,
             "held_out": 0.02},
            train=asked[: questions // (40 if quick else 1)],
        )  # fmt: skip
        world.result_of(preference.main, folder)
        begins[stage] = folder / "model"
    found: Accuracy = {order: {stage: {} for stage in STAGES} for order in ORDERS}
    for order in ORDERS:
        gold = world.weighed(people if order == "related" else {word: -weight for word, weight in people.items()})
        test = world.comparisons(f"test {seed}", 60 if quick else 600, gold, 0)
        for stage in STAGES:
            for size in SIZES:
                folder = world.run_folder(
                    root / f"{order}-{stage}-{size}", {"model": str(begins[stage]), "seed": seed, "threads": 1},
                    train=world.comparisons(f"train {seed}", size // (20 if quick else 1), gold, 0.3), test=test,
                )  # fmt: skip
                found[order][stage][size] = world.result_of(preference.main, folder)["accuracy"]
            tick(f"{order}, {stage}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything over the seeds and write what was found."""
    options = Options.read("pmp_efficiency", __doc__, seeds=4, arguments=arguments)
    findings = Findings("pmp_efficiency", options)
    each = len(ORDERS) * len(STAGES)
    runs = each_seed(options, "PMP", each, one_seed)
    rows = [
        {"downstream order": order, "PMP": stage}
        | {f"{size} comparisons": shown([run[order][stage][size] for run in runs]) for size in SIZES}
        for order in ORDERS
        for stage in STAGES
    ]
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def claims_of(runs: list[Accuracy]) -> list[Claim]:
    """The paper's expectations against these runs; differences are within seeds."""

    def gain(order: str, stage: str, other: str, size: int) -> list[float]:
        return [run[order][stage][size] - run[order][other][size] for run in runs]

    few = {stage: gain("related", stage, "none", 500) for stage in STAGES}
    shrunk = {stage: differences(few[stage], gain("related", stage, "none", 2000)) for stage in STAGES}
    ahead, flipped = gain("related", HALF, "ranked", 500), gain("reversed", HALF, "ranked", 100)
    left = {stage: gain("reversed", stage, "none", 500) for stage in STAGES}
    return [
        *(Claim(f"PMP helps at 500 comparisons: {stage}", surely_above(few[stage]), f"by {shown(few[stage])}")
          for stage in STAGES if stage != "none"),
        *(Claim(f"the gain shrinks from there to 2,000: {stage}", surely_above(shrunk[stage]), f"by {shown(shrunk[stage])}")
          for stage in STAGES if stage != "none"),
        Claim("related order, 500 comparisons: binarised PMP is ahead of ranked PMP of as many pairs", surely_above(ahead), f"by {shown(ahead)}"),
        Claim("reversed order, 100 comparisons: binarised PMP is ahead of ranked PMP of as many pairs", surely_above(flipped), f"by {shown(flipped)}"),
        *(Claim(f"reversed order: at 500 comparisons PMP is still a burden: {stage}", surely_above([-each for each in left[stage]]),
                f"{shown(left[stage])} above none")
          for stage in STAGES if stage != "none"),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[Accuracy]) -> None:
    """Accuracy against comparisons, a panel for each order."""
    for panel, order in zip(figure.subplots(1, 2, sharey=True), ORDERS, strict=True):
        for stage in STAGES:
            means = [interval([run[order][stage][size] for run in runs]) for size in SIZES]
            panel.errorbar(SIZES, [m for m, _ in means], yerr=[h for _, h in means], marker="o", label=f"PMP: {stage}")
        panel.set_xscale("log")
        panel.set_xlabel("comparisons")
        panel.set_title(f"{order} order")
        panel.axhline(0.5, color="grey", linewidth=0.5)
        panel.legend(fontsize=8)


if __name__ == "__main__":
    main()
