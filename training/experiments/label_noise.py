"""Group-invariant learning where the hard family is nothing but noise in the labels (Zheng et al. 2023, 2310.11971; its reviewers' question).

    python -m training.experiments.label_noise

People want the same of every prompt: good words. CLEAN prompts were compared with care; the comparisons of NOISY ones were
decided by a coin, so that their scores say nothing. To a learner that looks for groups of unlike return, NOISY looks hard.
Arms: PPO with its penalty, the paper's parts of group-invariant learning alone and together, and the penalty without groups.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import policy, preference
from training.experiments import easy_hard, world
from training.experiments.easy_hard import FIXED, GROUPED, PENALTY
from training.experiments.seeds import Tick, each_seed
from training.experiments.speaking import (
    SHORT,
    answered,
    chance_of_naming,
    groups_told_apart,
    metrics_of,
    spoken_policy,
)
from training.experiments.writing import Claim, Findings, Options, interval, shown, surely_above, surely_within

SPOKEN = world.WORDS[:24]
GOOD = frozenset(SPOKEN[:6])
FAMILIES = {"clean": world.WORDS[24:30], "noisy": world.WORDS[30:36]}
HELD_OUT = 96  # prompts of each family
TOLD = HELD_OUT * len(FAMILIES)  # replies on which groups and families are held against each other
CAP = 12  # tokens of a reply at most
ARMS: dict[str, dict[str, Any]] = {
    "PPO + KL": {**FIXED},
    "GIL alone": {**FIXED, **GROUPED, **PENALTY},
    "adaptive KL alone": {**FIXED, **GROUPED, "group_kl": True},
    "GIL + adaptive KL": {**FIXED, **GROUPED, **PENALTY, "group_kl": True},
    "variance penalty, no groups": {**FIXED, **PENALTY, "variance_over": "replies"},
}
COMMON = easy_hard.COMMON | {"max_new_tokens": CAP}


def gold(_prompt: str, reply: str) -> float:
    """The share of good words, whatever the prompt."""
    words = reply.split()
    return sum(word in GOOD for word in words) / max(1, len(words))


def prompt_of(draw: random.Random, family: str) -> str:
    """A word of the family, then two of any kind."""
    return f"{draw.choice(FAMILIES[family])} {world.sentence(draw, 2, 2, SPOKEN)}"


def exchange(draw: random.Random) -> tuple[str, str]:
    """What the initial policy is pretrained on: both families, replies of random words."""
    return prompt_of(draw, draw.choice(list(FAMILIES))), world.sentence(draw, 4, 8, SPOKEN)


def candidate(draw: random.Random) -> str:
    """A reply for the comparisons, of any share of good words."""
    share = draw.random()
    words = [
        draw.choice(SPOKEN[:6]) if draw.random() < share else draw.choice(SPOKEN) for _ in range(draw.randint(3, 9))
    ]
    return " ".join(words)


def comparisons(seed: str, count: int, families: Sequence[str] = tuple(FAMILIES)) -> list[dict[str, Any]]:
    """Pairs of candidates: by gold where the prompt is clean, by a coin where it is noisy."""
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        family = draw.choice(families)
        prompt, one, other = prompt_of(draw, family), candidate(draw), candidate(draw)
        if gold(prompt, one) != gold(prompt, other):
            best, worst = world.preferred(draw, gold, prompt, [one, other], 0.05)
            if family == "noisy" and draw.random() < 0.5:
                best, worst = worst, best
            found.append(world.comparison(prompt, best, worst, mode="helpful" if family == "clean" else "red_team"))
    return found


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> dict[str, dict[str, Any]]:
    """Every arm once; gold score and KL by family at the end."""
    initial = spoken_policy(root, seed, exchange, texts=500 if quick else 9000)
    pm = world.run_folder(
        root / "pm", {"model": str(initial), "seed": seed, "threads": 1, "batch_prompts": 32, "learning_rate": 3e-3},
        train=comparisons(f"train {seed}", 400 if quick else 20_000), test=comparisons(f"test {seed}", 400),
    )  # fmt: skip
    by_mode = world.result_of(preference.main, pm)["accuracy_by_mode"]
    accuracy = {"clean": by_mode["helpful"]["accuracy"], "noisy": by_mode["red_team"]["accuracy"]}
    draw = random.Random(f"prompts {seed}")
    asked = [prompt_of(draw, draw.choice(list(FAMILIES))) for _ in range(400)]
    chance = random.Random(f"held out {seed}")
    held_out = {family: [prompt_of(chance, family) for _ in range(HELD_OUT)] for family in FAMILIES}
    found: dict[str, dict[str, Any]] = {}
    for number, (arm, settings) in enumerate(ARMS.items()):
        folder = world.run_folder(
            root / f"arm-{number}",
            {"model": str(initial), "preference_model": str(pm / "model"), "seed": seed, **COMMON, **settings,
             **(SHORT if quick else {"episodes": 64 * 40})},
            prompts=[{"prompt": text} for text in asked],
        )  # fmt: skip
        world.result_of(policy.main, folder)
        ends: dict[str, Any] = {"accuracy": accuracy, "score": [line["score_mean"] for line in metrics_of(folder)]}
        for family, prompts in held_out.items():
            said = answered(folder / "model", prompts, CAP, seed, reference=initial)
            ends[family] = sum(map(gold, prompts, said.replies)) / len(prompts)
            ends[f"{family} KL"] = sum(said.kl) / len(prompts)
        if settings.get("groups"):
            mixed = [(prompt, family == "clean") for family in FAMILIES for prompt in held_out[family]]
            ends["agreement"] = groups_told_apart(folder, mixed, CAP)
        found[arm] = ends
        tick(arm)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all arms over the seeds and write what was found."""
    options = Options.read("label_noise", __doc__, seeds=5, arguments=arguments)
    findings = Findings("label_noise", options)
    runs = each_seed(options, "label noise", len(ARMS), one_seed)

    def column(arm: str, name: str) -> list[float]:
        return [run[arm][name] for run in runs]

    rows = [
        {"arm": arm} | {f"{family}, gold": shown(column(arm, family), 2) for family in FAMILIES}
        | {f"{family}, KL": shown(column(arm, f"{family} KL"), 1) for family in FAMILIES}
        for arm in ARMS
    ]  # fmt: skip
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def claims_of(runs: list[dict[str, dict[str, Any]]]) -> list[Claim]:
    """What chasing noise would look like, against these runs; differences are within seeds."""

    def gaps(arm: str, name: str, other: str = "PPO + KL", other_name: str = "") -> list[float]:
        return [run[arm][name] - run[other][other_name or name] for run in runs]

    told = [run["GIL + adaptive KL"]["agreement"] for run in runs]
    chance = chance_of_naming(TOLD)
    lost = [-gap for gap in gaps("GIL + adaptive KL", "clean")]
    lost_alone = [-gap for gap in gaps("GIL alone", "clean")]
    spent = gaps("GIL + adaptive KL", "noisy KL")
    leaning = gaps("adaptive KL alone", "noisy KL", "adaptive KL alone", "clean KL")
    blind = [run["PPO + KL"]["accuracy"]["noisy"] for run in runs]
    control = "variance penalty, no groups"
    lost_more = [-gap for gap in gaps("GIL alone", "clean", control)]
    lost_control = [-gap for gap in gaps(control, "clean")]
    return [
        Claim("the preference model is blind on the noisy family: the whole interval within 0.1 of a coin",
              surely_within([share - 0.5 for share in blind], 0.1), shown(blind, 2)),
        Claim(f"the groups are the noise: they agree with the families above chance, {chance:.3f} for the better naming",
              surely_above([share - chance for share in told]), shown(told, 2)),
        Claim("GIL alone loses gold on the clean family", surely_above(lost_alone), shown(lost_alone, 3)),
        Claim("so does the penalty without groups", surely_above(lost_control), shown(lost_control, 3)),
        Claim("GIL alone loses more there than the penalty without groups", surely_above(lost_more), f"by {shown(lost_more, 3)}"),
        Claim("GIL with adaptive KL loses gold on the clean family", surely_above(lost), shown(lost, 3)),
        Claim("GIL with adaptive KL drifts further on the noisy family than PPO + KL does", surely_above(spent),
              f"{shown(spent, 2)} nats"),
        Claim("adaptive KL spends more on the noisy family than on the clean one", surely_above(leaning),
              f"{shown(leaning, 2)} nats"),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[dict[str, dict[str, Any]]]) -> None:
    """Gold score and KL by family and arm."""
    for panel, (suffix, label) in zip(figure.subplots(1, 2), (("", "gold score"), (" KL", "KL, nats")), strict=True):
        for number, family in enumerate(FAMILIES):
            means = [interval([run[arm][f"{family}{suffix}"] for run in runs]) for arm in ARMS]
            places = [place + 0.35 * (number - 0.5) for place in range(len(ARMS))]
            panel.barh(places, [mean for mean, _ in means], 0.33, xerr=[half for _, half in means], label=family)
        panel.set_yticks(range(len(ARMS)), list(ARMS) if not suffix else [""] * len(ARMS), fontsize=8)
        panel.set_xlabel(label)
        panel.invert_yaxis()
    panel.legend()


if __name__ == "__main__":
    main()
