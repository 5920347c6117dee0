"""Do correlations tell outliers? (Bai et al. 2022 §5.4.) Simplified relative Mahalanobis (SRM) beside plain Mahalanobis, and probes.

Inliers lie near a plane: a few factors move all features, and the size of a point varies as a prompt's does. Outliers have the same spread
in each feature and no correlation. The control has inliers without correlation: of the true covariance the relative distance would be 0
for every point. It is fitted to a sample, in which correlations are never 0; so the control is fitted to more and more points too.
Then the job `training.ood` on the shipped starter model: its helpful prompts against red-team ones, and half its topics against the rest.
"""

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training import objective, ood
from training.config import OodConfig
from training.data.prompts import evenly
from training.experiments import world
from training.experiments.features import normal
from training.experiments.writing import (
    Claim,
    Findings,
    Options,
    differences,
    interval,
    shown,
    surely_above,
)
from training.starter.prompts import read_pool
from training.starter.world import facts

FEATURES, FACTORS, POINTS, NOISE, SHIFT = 40, 8, 600, 0.5, 0.2
SHOWN = (1, 3, 10)
MORE = (10, 100)  # times as many points to fit, of the control
DETECTORS = ("simplified_relative_mahalanobis", "mahalanobis")
STARTER = Path(ood.__file__).parent / "starter" / "model"


def points(seed: int, *, correlated: bool, count: int, fitted: int = 0) -> dict[str, Tensor]:
    """Inliers to fit, inliers to test, outliers; every point has a size of its own.  [fitted or count, d], [count, d] twice

    Outliers of correlated inliers are nearer, one by one, and shifted a little; those of the control are larger and nothing else.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = (
        normal(generator, FACTORS, FEATURES) if correlated else torch.zeros(FACTORS, FEATURES, dtype=torch.float64)
    )
    spread = (directions.square().sum(0) + NOISE**2).sqrt()
    found = {}
    for name in ood.SIDES:
        many = fitted or count if name == "inliers" else count
        plane = normal(generator, many, FACTORS) @ directions + NOISE * normal(generator, many, FEATURES)
        cloud = normal(generator, many, FEATURES) * spread
        size = (0.5 * normal(generator, many, 1)).exp()
        if name != "outliers":
            found[name] = size * plane
        elif correlated:
            found[name] = 0.5 * size * cloud + SHIFT * spread * normal(generator, FEATURES).sign()
        else:
            found[name] = 1.5 * size * cloud
    return found


def areas(parts: dict[str, Tensor], ridge: float) -> dict[str, float]:
    """AUROC of both distances, without the probes."""
    inliers, held, outliers = (parts[name] for name in ood.SIDES)
    gaussian = objective.fitted_gaussian(inliers, ridge)
    distances = (objective.simplified_relative_mahalanobis, objective.mahalanobis)
    return {
        name: objective.auroc(distance(held, gaussian), distance(outliers, gaussian))[0]
        for name, distance in zip(DETECTORS, distances, strict=True)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both worlds over the seeds, the starter once a seed, and write what was found."""
    options = Options.read("ood", __doc__, seeds=6, arguments=arguments, at_once=False)
    findings = Findings("ood", options)
    count, config = (80 if options.quick else POINTS), OodConfig(few_shot=SHOWN, draws=3)
    worlds = {"correlated inliers": True, "control: larger, no correlation": False}
    runs = {
        name: [
            ood.layer_report(points(seed, correlated=correlated, count=count), config) for seed in range(options.seeds)
        ]
        for name, correlated in worlds.items()
    }
    wider = {
        times: [
            areas(points(seed, correlated=False, count=count, fitted=times * count), config.ridge)
            for seed in range(options.seeds)
        ]
        for times in MORE
    }
    starter = {
        name: layers_of(usual, strange, quick=options.quick) for name, (usual, strange) in prompts_of_starter().items()
    }

    def over_seeds(name: str, detector: str) -> list[float]:
        return [run[detector] for run in runs[name]]

    def probes(name: str, place: int) -> list[float]:
        return [run["few_shot"][place]["auroc"] for run in runs[name]]

    rows: list[dict[str, Any]] = [
        {"inliers": name, "SRM": shown(over_seeds(name, DETECTORS[0])), "Mahalanobis": shown(over_seeds(name, DETECTORS[1])),
         **{f"probe, {number} shown": shown(probes(name, place)) for place, number in enumerate(SHOWN)}}
        for name in worlds
    ]  # fmt: skip
    rows += [
        {"inliers": f"control, {times} times as many to fit", "SRM": shown([run[DETECTORS[0]] for run in wider[times]]),
         "Mahalanobis": shown([run[DETECTORS[1]] for run in wider[times]]), **{f"probe, {number} shown": "" for number in SHOWN}}
        for times in MORE
    ]  # fmt: skip
    rows += [
        {"inliers": f"starter, {name}, layer {row['layer']}", "SRM": f"{row[DETECTORS[0]]:.3f}",
         "Mahalanobis": f"{row[DETECTORS[1]]:.3f}",
         **{f"probe, {one['shown']} shown": f"{one['auroc']:.3f}" for one in row["few_shot"]}}
        for name, layers in starter.items()
        for row in layers
    ]  # fmt: skip
    correlated, control = worlds
    ahead = differences(*(over_seeds(correlated, name) for name in DETECTORS))
    behind = [-each for each in differences(*(over_seeds(control, name) for name in DETECTORS))]
    steps = [differences(probes(correlated, place + 1), probes(correlated, place)) for place in range(len(SHOWN) - 1)]
    from_chance = [over_seeds(control, DETECTORS[0]), *([run[DETECTORS[0]] for run in wider[times]] for times in MORE)]
    falls = [differences(less, more) for less, more in itertools.pairwise(from_chance)]
    topics = starter["other topics"]
    best = max(row[DETECTORS[0]] for row in topics)
    probed = max(row["few_shot"][-1]["auroc"] for row in topics)
    claims = [
        Claim("SRM is above Mahalanobis on correlated inliers, in every seed", min(ahead) > 0, f"by {shown(ahead)}"),
        Claim("SRM reaches 0.9 there", surely_above([area - 0.9 for area in over_seeds(correlated, DETECTORS[0])]),
              shown(over_seeds(correlated, DETECTORS[0]))),
        Claim("where nothing is correlated and outliers are only larger, Mahalanobis is above SRM, in every seed", min(behind) > 0, f"by {shown(behind)}"),
        Claim("what SRM tells there comes of fitting a sample: it falls with each tenfold of points to fit",
              all(surely_above(fall) for fall in falls), f"by {', '.join(map(shown, falls))}"),
        Claim("the probe tells more with each number of outliers shown", all(surely_above(step) for step in steps),
              f"by {', '.join(map(shown, steps))}"),
        Claim("on the starter (one run), SRM is above Mahalanobis at every layer, prompts of other topics",
              all(row[DETECTORS[0]] > row[DETECTORS[1]] for row in topics), "see the table"),
        Claim("there, a probe that was shown ten beats SRM, each at its best layer", probed > best, f"{probed:.3f} against {best:.3f}"),
        Claim("red-team prompts are told at the best layer with 0.9 and more",
              max(row[DETECTORS[0]] for row in starter["red team"]) >= 0.9, f"{max(row[DETECTORS[0]] for row in starter['red team']):.3f}"),
    ]  # fmt: skip

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for place, detector in enumerate(DETECTORS):
            label = "SRM" if place == 0 else "Mahalanobis"
            means, halves = zip(*(interval(over_seeds(name, detector)) for name in worlds), strict=True)
            left.errorbar(
                [x + 0.1 * place for x in range(len(worlds))], means, yerr=halves, fmt="o", capsize=3, label=label
            )
            right.plot([row["layer"] for row in topics], [row[detector] for row in topics], marker="o", label=label)
        for place, number in enumerate(SHOWN):
            told = [row["few_shot"][place]["auroc"] for row in topics]
            right.plot([row["layer"] for row in topics], told, ":", marker=".", label=f"probe, {number} shown")
        left.set(xticks=range(len(worlds)), xticklabels=["correlated", "control"], ylabel="AUROC")
        right.set(xlabel="layer of the starter, prompts of other topics")
        right.legend(fontsize="small")

    findings.write(
        rows=rows, claims=claims, numbers={"worlds": runs, "more to fit": wider, "starter": starter}, draw=draw
    )


def prompts_of_starter() -> dict[str, tuple[list[str], list[str]]]:
    """(usual, strange) prompts: helpful against red-team ones, and questions of every second topic against the others'."""
    pool = read_pool()
    asked: list[list[str]] = [[], []]
    topics = sorted({fact.topic.name for fact in facts()})
    for fact in facts():
        asked[topics.index(fact.topic.name) % 2] += [
            question.format(e=fact.entity) for question in fact.relation.questions
        ]
    by_mode = [[row["text"] for row in pool if row["mode"] == mode] for mode in ("helpful", "red_team")]
    return {"red team": (by_mode[0], by_mode[1]), "other topics": (evenly(asked[0], 800), evenly(asked[1], 300))}


def layers_of(usual: Sequence[str], strange: Sequence[str], *, quick: bool) -> list[dict[str, Any]]:
    """What the job finds at each layer of the shipped model."""
    inliers, outliers = (
        [{"prompt": text} for text in evenly(side, 60 if quick else len(side))] for side in (usual, strange)
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = world.run_folder(
            Path(scratch) / "run", {"model": str(STARTER), "few_shot": list(SHOWN), "draws": 3, "threads": 1},
            inliers=inliers, outliers=outliers,
        )  # fmt: skip
        found: list[dict[str, Any]] = world.result_of(ood.main, path)["layers"]
        return found


if __name__ == "__main__":
    main(sys.argv[1:])
