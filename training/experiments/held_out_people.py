"""People with biases of their own: accuracy on those who taught a preference model, and on those who did not (Ouyang et al. 2022, App. E.2).

    python -m training.experiments.held_out_people

What each of ten people likes is partly shared and partly their own. Five times a model learns from eight of them and is tried on
new comparisons of these eight and of the other two: InstructGPT's five folds over groups of people, 72.4% within and 69.6% beyond.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from training import preference
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
from training.experiments.writing import Claim, Findings, Options, interval, shown, surely_above, surely_within

PEOPLE, FOLDS = 10, 5
# Correlation of what a person likes with what all share; its square is the shared part of the variance, and two people's tastes
# correlate by that. At 1 nobody has a bias.
SHARED = (0.5, 0.7, 1.0)
EACH = 500  # comparisons of a person to learn from
NOISE = 0.3  # of a score whose deviation is 1
Folds = list[dict[str, float]]


def tastes(seed: int, shared: float) -> list[world.Gold]:
    """The score of each person."""
    common = world.word_weights(seed)
    return [world.weighed(world.mixed(common, world.word_weights(f"{seed} of {who}"), shared)) for who in range(PEOPLE)]


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> dict[str, Folds]:
    """Every fold at every strength of bias; accuracy within and beyond the people that taught."""
    start = world.random_policy(root / "policy", seed=seed)
    each, tried = (40, 10) if quick else (EACH, 100)
    found: dict[str, Folds] = {}
    for shared in SHARED:
        people = tastes(seed, shared)
        found[str(shared)] = []
        for fold in range(FOLDS):
            beyond = [who for who in range(PEOPLE) if who % FOLDS == fold]
            within = [who for who in range(PEOPLE) if who % FOLDS != fold]
            lines = {
                name: [line for who in group for line in world.comparisons(f"{name} {seed} {who}", count, people[who], NOISE)]
                for name, group, count in (
                    ("train", within, each), ("within", within, tried), ("beyond", beyond, tried * len(within) // len(beyond)),
                )
            }  # fmt: skip
            random.Random(f"order {seed} {fold}").shuffle(lines["train"])
            marked = [line | {"mode": name} for name in ("within", "beyond") for line in lines[name]]
            folder = world.run_folder(
                root / f"{shared}-{fold}",
                {"model": str(start), "seed": seed, "threads": 1, "learning_rate": 3e-3},
                train=lines["train"], test=marked,
            )  # fmt: skip
            parts = world.result_of(preference.main, folder)["accuracy_by_mode"]
            found[str(shared)].append({name: parts[name]["accuracy"] for name in ("within", "beyond")})
            tick(f"shared {shared}, fold {fold + 1}")
    return found


def mean_of(folds: Folds, name: str) -> float:
    """Mean accuracy over the folds of a seed."""
    return sum(fold[name] for fold in folds) / len(folds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all folds over the seeds and write what was found."""
    options = Options.read("held_out_people", __doc__, seeds=4, arguments=arguments)
    findings = Findings("held_out_people", options)
    total = len(SHARED) * FOLDS
    runs = each_seed(options, "people", total, one_seed)
    rows = [
        {"correlation of a taste with the shared one": shared}
        | {
            f"accuracy {name} the group": shown([mean_of(run[str(shared)], name) for run in runs])
            for name in ("within", "beyond")
        }
        | {"within less beyond": shown(gaps(runs, shared))}
        for shared in SHARED
    ]
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def gaps(runs: list[dict[str, Folds]], shared: float) -> list[float]:
    """Accuracy within less accuracy beyond, of each seed."""
    return [mean_of(run[str(shared)], "within") - mean_of(run[str(shared)], "beyond") for run in runs]


def claims_of(runs: list[dict[str, Folds]]) -> list[Claim]:
    """The paper's expectations against these runs; differences are within seeds."""
    middle = gaps(runs, 0.7)
    more = [strong - weak for strong, weak in zip(gaps(runs, 0.5), middle, strict=True)]
    beyond = [mean_of(run["0.7"], "beyond") for run in runs]
    none = gaps(runs, 1.0)
    return [
        Claim("accuracy beyond the group is below that within it", surely_above(middle), f"by {shown(middle)}"),
        Claim("by a few points: at most eight", surely_above([0.08 - each for each in middle]), shown(middle)),
        Claim("beyond the group it is still far above chance", surely_above([each - 0.55 for each in beyond]), shown(beyond)),
        Claim("stronger biases make the gap wider", surely_above(more), shown(more)),
        Claim("without biases there is none: the whole interval is within ±0.02", surely_within(none, 0.02), shown(none)),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[dict[str, Folds]]) -> None:
    """Accuracy within and beyond by how much of a taste is shared."""
    panel = figure.subplots()
    for name in ("within", "beyond"):
        means = [interval([mean_of(run[str(shared)], name) for run in runs]) for shared in SHARED]
        panel.errorbar(
            SHARED, [m for m, _ in means], yerr=[h for _, h in means], marker="o", capsize=3, label=f"{name} the group"
        )
    panel.set_xlabel("correlation of a person's taste with what all share")
    panel.set_ylabel("held-out accuracy")
    panel.legend()


if __name__ == "__main__":
    main()
