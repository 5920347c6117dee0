"""All pairs of a prompt in one batch element, or shuffled into one pool (Ouyang et al. 2022, §3.5).

    python -m training.experiments.grouping

Rankings of six replies by people who are often unsure. Pooled, a reply comes back in five updates within one epoch, and the
model begins to know it by heart; grouped, it is met once. Equal learning rate; the pool with as many updates, and with eight
times as many. `batch_prompts` counts prompts in both: a pool takes as many pairs an update as so many prompts have.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import preference
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
from training.experiments.speaking import metrics_of
from training.experiments.writing import Claim, Findings, Options, interval, shown, surely_above

K = 6
PAIRS = K * (K - 1) // 2
PROMPTS = 800
NOISE = 1.0  # of a gold score whose deviation is 1: people agree with it in about three of four pairs
ARMS: dict[str, dict[str, Any]] = {
    "grouped": {"grouping": "grouped", "batch_prompts": 8},
    "pooled, as many pairs an update": {"grouping": "pooled", "batch_prompts": 8},
    f"pooled, {PAIRS} pairs an update": {"grouping": "pooled", "batch_prompts": 1},
}


def rankings(seed: str, count: int, gold: world.Gold) -> list[dict[str, Any]]:
    """Prompts with six random replies each, ranked by blurred gold scores."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        prompt = world.sentence(draw, 3, 3)
        order = world.preferred(draw, gold, prompt, [world.sentence(draw, 5, 8) for _ in range(K)], NOISE)
        found.append({"prompt": prompt, "replies": order, "ranks": list(range(1, len(order) + 1))})
    return found


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> dict[str, dict[str, float]]:
    """Every arm once: held-out numbers, and the loss on the last pairs of the epoch before they were learnt."""
    start = world.random_policy(root / "policy", seed=seed)
    gold = world.weighed(world.word_weights(seed))
    train, test = rankings(f"train {seed}", 40 if quick else PROMPTS, gold), rankings(f"test {seed}", 100, gold)
    found = {}
    for number, (arm, settings) in enumerate(ARMS.items()):
        folder = world.run_folder(
            root / f"arm-{number}",
            {"model": str(start), "seed": seed, "threads": 1, "learning_rate": 3e-3, "weakest_strength": 0, **settings},
            train=train, test=test,
        )  # fmt: skip
        result, lines = world.result_of(preference.main, folder), metrics_of(folder)
        assert result["updates"] == math.ceil(len(train) / settings["batch_prompts"]), (
            "an arm's batches are not what it says"
        )
        last = [line["loss"] for line in lines[-max(1, len(lines) // 10) :]]
        late = sum(last) / len(last)
        found[arm] = {"log loss": result["log_loss"], "accuracy": result["accuracy"], "late loss": late,
                      "updates": result["updates"], "gap": result["log_loss"] - late}  # fmt: skip
        tick(arm)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all arms over the seeds and write what was found."""
    options = Options.read("grouping", __doc__, seeds=6, arguments=arguments)
    findings = Findings("grouping", options)
    runs = each_seed(options, "grouped and pooled", len(ARMS), one_seed)
    titles = {"log loss": "held-out log loss", "accuracy": "held-out accuracy",
              "late loss": "training loss, last tenth of the epoch", "gap": "held-out less training"}  # fmt: skip
    rows = [
        {"batches": arm, "updates": int(runs[0][arm]["updates"])}
        | {title: shown([run[arm][name] for run in runs]) for name, title in titles.items()}
        for arm in ARMS
    ]
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def claims_of(runs: list[dict[str, dict[str, float]]]) -> list[Claim]:
    """The paper's expectations against these runs; differences are within seeds."""
    grouped, equal, small = ARMS
    better = {arm: [run[arm]["log loss"] - run[grouped]["log loss"] for run in runs] for arm in (equal, small)}
    wider = {arm: [run[arm]["gap"] - run[grouped]["gap"] for run in runs] for arm in (equal, small)}
    return [
        Claim("grouped batches have the lower held-out log loss than the pool in batches of as many pairs",
              surely_above(better[equal]), f"lower by {shown(better[equal])}"),
        Claim("and than the pool in small batches", surely_above(better[small]), f"lower by {shown(better[small])}"),
        Claim("the gap between held-out and training loss within the epoch is wider in the pool of as many pairs than in grouped batches",
              surely_above(wider[equal]), f"by {shown(wider[equal])}"),
        Claim("and wider in the pool in small batches", surely_above(wider[small]), f"by {shown(wider[small])}"),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[dict[str, dict[str, float]]]) -> None:
    """Training and held-out loss of every arm."""
    panel = figure.subplots()
    for place, name in enumerate(("late loss", "log loss")):
        means = [interval([run[arm][name] for run in runs]) for arm in ARMS]
        at = [number + 0.4 * (place - 0.5) for number in range(len(ARMS))]
        label = "training, last tenth" if name == "late loss" else "held out"
        panel.bar(at, [m for m, _ in means], 0.38, yerr=[h for _, h in means], label=label)
    panel.set_xticks(range(len(ARMS)), list(ARMS))
    panel.set_ylabel("log loss, nats")
    panel.set_ylim(bottom=0.3)
    panel.legend()


if __name__ == "__main__":
    main()
