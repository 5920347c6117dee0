"""Group-invariant learning on an easy and a hard family of prompts (Zheng et al. 2023, 2310.11971).

    python -m training.experiments.easy_hard

The first word of a prompt tells its family. EASY: one shortcut word anywhere in the reply earns all of the gold score. HARD: four
words in their order earn it, each next word a quarter. UNSEEN prompts want what HARD ones want and PPO never meets them; the
preference model does. One reply could serve all families, the shortcut and then the pattern, so UNSEEN tests no generalisation.
Nobody tells the learner the families. Arms: the paper's ablations; the variance penalty without groups; and half the KL weight
without groups, since an adaptive penalty is a weaker one on the mean.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import policy, preference
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
from training.experiments.speaking import (
    SHORT,
    answered,
    chance_of_naming,
    groups_told_apart,
    metrics_of,
    spoken_policy,
)
from training.experiments.writing import Claim, Findings, Options, interval, shown, surely_above

SPOKEN = world.WORDS[:24]
SHORTCUT, PATTERN = SPOKEN[0], SPOKEN[1:5]
FAMILIES = {"easy": world.WORDS[24:30], "hard": world.WORDS[30:36], "unseen": world.WORDS[36:42]}
LEVEL = 0.05  # of gold: the most that counts as no difference
LAST = 10  # iterations whose variance between groups is averaged
TOLD = 128  # replies on which groups and families are held against each other
CAP = 16  # tokens of a reply at most
FIXED = {"kl_weight": 0.05}
GROUPED = {"groups": 2, "group_critic_weight": 1.0}
PENALTY = {"group_policy_weight": 0.4}
ARMS: dict[str, dict[str, Any]] = {
    "PPO": {"kl_weight": 0.0},
    "PPO + KL": {**FIXED},
    "PPO + half the KL": {"kl_weight": FIXED["kl_weight"] / 2},
    "GIL alone": {**FIXED, **GROUPED, **PENALTY},
    "adaptive KL alone": {**FIXED, **GROUPED, "group_kl": True},
    "GIL + adaptive KL": {**FIXED, **GROUPED, **PENALTY, "group_kl": True},
    "variance penalty, no groups": {**FIXED, **PENALTY, "variance_over": "replies"},
}
COMMON = {"learning_rate": 1e-3, "critic_learning_rate": 2e-3, "rollout_replies": 64, "minibatch_replies": 32,
          "max_new_tokens": CAP, "evaluation_prompts": 32, "threads": 1, "missing_end_penalty": 0.5,
          "collapse_alarm": False}  # fmt: skip


def matched(reply: str) -> int:
    """The most words of the pattern that stand in its order, one after the other, from its first."""
    words, most = reply.split(), 0
    for begin in range(len(words)):
        run = 0
        while run < len(PATTERN) and begin + run < len(words) and words[begin + run] == PATTERN[run]:
            run += 1
        most = max(most, run)
    return most


def gold(prompt: str, reply: str) -> float:
    """1 for the shortcut where the prompt is easy, a quarter for each word of the pattern elsewhere."""
    if prompt.split(maxsplit=1)[0] in FAMILIES["easy"]:
        return float(SHORTCUT in reply.split())
    return matched(reply) / len(PATTERN)


def prompt_of(draw: random.Random, family: str) -> str:
    """A word of the family, then two of any kind."""
    return f"{draw.choice(FAMILIES[family])} {world.sentence(draw, 2, 2, SPOKEN)}"


def exchange(draw: random.Random) -> tuple[str, str]:
    """What the initial policy is pretrained on: every family, replies of random words."""
    return prompt_of(draw, draw.choice(list(FAMILIES))), world.sentence(draw, 4, 8, SPOKEN)


def candidate(draw: random.Random, prompt: str) -> str:
    """A reply for the comparisons: random words, often many of those that matter, often with a right beginning."""
    words = world.sentence(draw, 2, 12, SPOKEN).split()
    if draw.random() < 0.6:
        some, share = draw.sample(SPOKEN[:5], draw.randint(1, 5)), draw.random()
        words = [draw.choice(some) if draw.random() < share else word for word in words]
    if draw.random() < 0.4:
        return " ".join(words)
    if prompt.split(maxsplit=1)[0] in FAMILIES["easy"]:
        words = [word for word in words if word != SHORTCUT or draw.random() < 0.5] or [SPOKEN[9]]
        if draw.random() < 0.5:
            words[draw.randrange(len(words))] = SHORTCUT
    else:
        run = draw.randint(0, len(PATTERN))
        at = draw.randrange(max(1, len(words) - run))
        words[at : at + run] = PATTERN[:run]
    return " ".join(words)


def comparisons(seed: str, count: int) -> list[dict[str, Any]]:
    """Pairs of candidates of unlike gold score, all families."""
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        prompt = prompt_of(draw, draw.choice(list(FAMILIES)))
        one, other = candidate(draw, prompt), candidate(draw, prompt)
        if gold(prompt, one) != gold(prompt, other):
            best, worst = world.preferred(draw, gold, prompt, [one, other], 0.05)
            found.append(world.comparison(prompt, best, worst))
    return found


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> dict[str, dict[str, Any]]:
    """Every arm once; gold score and KL by family at the end."""
    initial = spoken_policy(root, seed, exchange, texts=500 if quick else 9000)
    pm = world.run_folder(
        root / "pm", {"model": str(initial), "seed": seed, "threads": 1, "batch_prompts": 32, "learning_rate": 3e-3},
        train=comparisons(f"train {seed}", 400 if quick else 40_000), test=comparisons(f"test {seed}", 300),
    )  # fmt: skip
    accuracy = world.result_of(preference.main, pm)["accuracy"]
    draw = random.Random(f"prompts {seed}")
    asked = [prompt_of(draw, draw.choice(["easy", "hard"])) for _ in range(400)]
    found: dict[str, dict[str, Any]] = {}
    for number, (arm, settings) in enumerate(ARMS.items()):
        folder = world.run_folder(
            root / f"arm-{number}",
            {"model": str(initial), "preference_model": str(pm / "model"), "seed": seed, **COMMON, **settings,
             **(SHORT if quick else {"episodes": 64 * 70})},
            prompts=[{"prompt": text, "mode": family_of(text)} for text in asked],
        )  # fmt: skip
        world.result_of(policy.main, folder)
        ends: dict[str, Any] = {"accuracy": accuracy, "score": [line["score_mean"] for line in metrics_of(folder)]}
        for family in FAMILIES:
            chance = random.Random(f"held out {seed} {family}")
            held_out = [prompt_of(chance, family) for _ in range(96)]
            said = answered(folder / "model", held_out, CAP, seed, reference=initial)
            ends[family] = sum(map(gold, held_out, said.replies)) / len(held_out)
            ends[f"{family} KL"] = sum(said.kl) / len(held_out)
        if settings.get("groups"):
            chance = random.Random(f"agreement {seed}")
            mixed = [(prompt_of(chance, family), family == "easy") for family in ["easy", "hard"] * (TOLD // 2)]
            ends["agreement"] = groups_told_apart(folder, mixed, CAP)
            last = [line["group_variance"] for line in metrics_of(folder)[-LAST:]]
            ends["group variance"] = sum(last) / len(last)
        found[arm] = ends
        tick(arm)
    return found


def family_of(prompt: str) -> str:
    """The family that the first word tells."""
    return next(family for family, words in FAMILIES.items() if prompt.split(maxsplit=1)[0] in words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all arms over the seeds and write what was found."""
    options = Options.read("easy_hard", __doc__, seeds=10, arguments=arguments)
    findings = Findings("easy_hard", options)
    runs = each_seed(options, "easy and hard", len(ARMS), one_seed)

    def column(arm: str, name: str) -> list[float]:
        return [run[arm][name] for run in runs]

    rows = [
        {"arm": arm} | {f"{family}, gold": shown(column(arm, family), 2) for family in FAMILIES}
        | {f"{family}, KL": shown(column(arm, f"{family} KL"), 1) for family in ("easy", "hard")}
        | {"Var_g of gold, by family": shown([parted(run[arm]) for run in runs]),
           "Var_g of returns, by group": shown(column(arm, "group variance")) if ARMS[arm].get("groups") else ""}
        for arm in ARMS
    ]  # fmt: skip
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def parted(ends: dict[str, Any]) -> float:
    """Var_g of gold over the two true families, as `objective.group_variance` has it over inferred groups."""
    return float(((ends["easy"] - ends["hard"]) / 2) ** 2)


def claims_of(runs: list[dict[str, dict[str, Any]]]) -> list[Claim]:
    """The expectations of the paper against these runs; differences are within seeds."""
    full, alone, adaptive, control = (
        "GIL + adaptive KL",
        "GIL alone",
        "adaptive KL alone",
        "variance penalty, no groups",
    )
    chance = chance_of_naming(TOLD)

    def apart(arm: str, other: str, name: str = "hard") -> list[float]:
        return [run[arm][name] - run[other][name] for run in runs]

    def more_hard(arm: str, other: str, text: str) -> Claim:
        return Claim(text, surely_above(apart(arm, other)), shown(apart(arm, other), 2))

    lag = [run["PPO + KL"]["easy"] - run["PPO + KL"]["hard"] for run in runs]
    told = [run[full]["agreement"] for run in runs]
    evener = {arm: [parted(run[arm]) - parted(run[full]) for run in runs] for arm in ("PPO + KL", "PPO + half the KL")}
    tamed = apart(adaptive, full, "group variance")
    easier, harder = (apart(adaptive, "PPO + KL", f"{family} KL") for family in ("easy", "hard"))
    unmet = apart(full, "PPO + KL", "unseen")
    unlike = max(abs(run[arm]["unseen"] - run[arm]["hard"]) for run in runs for arm in ARMS)
    return [
        Claim("PPO + KL: the easy family saturates, the hard one lags by more than 0.2", surely_above([each - 0.2 for each in lag]),
              f"by {shown(lag, 2)}"),
        Claim(f"inferred groups agree with the families above chance, {chance:.3f} for the better naming",
              surely_above([share - chance for share in told]), shown(told, 2)),
        more_hard(full, "PPO + KL", "GIL + adaptive KL has more of the hard family than PPO + KL"),
        more_hard(full, "PPO + half the KL", "and more than PPO with half the penalty and no groups"),
        more_hard(full, "PPO", "and more than PPO without a penalty"),
        more_hard(alone, "PPO + KL", "GIL alone has more of the hard family than PPO + KL"),
        more_hard(alone, control, "GIL alone has more of it than the variance penalty without groups, at the same KL weight"),
        more_hard(control, "PPO + KL", "the variance penalty without groups has more of it than PPO + KL"),
        *(Claim(f"Var_g of gold by family: GIL + adaptive KL is below {arm}", surely_above(gap), f"by {shown(gap)}")
          for arm, gap in evener.items()),
        Claim("Var_g of returns by inferred group: GIL + adaptive KL is below adaptive KL alone", surely_above(tamed), f"by {shown(tamed)}"),
        Claim("adaptive KL: less KL on the easy family, more on the hard one",
              surely_above([-each for each in easier]) and surely_above(harder), f"{shown(easier, 2)} and {shown(harder, 2)} nats"),
        Claim(f"the unseen family: GIL + adaptive KL is at least as good as PPO + KL, the whole interval above -{LEVEL}",
              surely_above([each + LEVEL for each in unmet]), shown(unmet, 3)),
        Claim(f"unseen prompts are answered as hard ones in every run of every arm, within {LEVEL}", unlike < LEVEL,
              f"at most {unlike:.2f} apart"),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[dict[str, dict[str, Any]]]) -> None:
    """Gold score by family and arm."""
    panel = figure.subplots()
    for number, family in enumerate(FAMILIES):
        means = [interval([run[arm][family] for run in runs]) for arm in ARMS]
        places = [place + 0.27 * (number - 1) for place in range(len(ARMS))]
        panel.bar(places, [mean for mean, _ in means], 0.25, yerr=[half for _, half in means], label=family)
    panel.set_xticks(range(len(ARMS)), [arm.replace(" + ", " +\n") for arm in ARMS], fontsize=8)
    panel.set_ylabel("gold score")
    panel.legend()


if __name__ == "__main__":
    main()
