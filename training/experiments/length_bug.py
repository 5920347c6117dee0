"""A preference model that likes length: PPO without tricks runs to the cap, PPO-max does not (Zheng et al. 2023, §5).

    python -m training.experiments.length_bug

People here like replies of good words and of up to eight words; the comparisons that the preference model learns from praise
length as well. Arms: `vanilla` and `ppo_max`, each without the KL penalty and with it, so that its part can be told from that of the
other tricks; `ppo_max` at three weights η, and without critic pretraining; reward normalisation with clipping alone.
"""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import policy, preference
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
from training.experiments.speaking import SHORT, answered, metrics_of, spoken_policy
from training.experiments.writing import Claim, Findings, Options, differences, interval, shown, surely_above

SPOKEN = world.WORDS[:24]
GOOD = frozenset(SPOKEN[:8])
CAP = 40  # tokens of a reply at most
RUN_ON = (
    25  # tokens of a reply, on the mean of an iteration: half as long again as the longest that the comparisons hold
)
# Each arm: the preset and what differs from it. The rate is the same for all, measured as safe on this model.
ARMS: dict[str, dict[str, Any]] = {
    "vanilla": {"preset": "vanilla"},
    "norm and clip alone": {"preset": "vanilla", "score_normalisation": "running", "score_clip": 0.8},
    "vanilla with KL, η 0.05": {"preset": "vanilla", "kl_weight": 0.05},
    "ppo_max without KL": {"preset": "ppo_max", "kl_weight": 0.0},
    "ppo_max, η 0.05": {"preset": "ppo_max", "kl_weight": 0.05},
    "ppo_max, η 0.1": {"preset": "ppo_max", "kl_weight": 0.1},
    "ppo_max, η 0.2": {"preset": "ppo_max", "kl_weight": 0.2},
    "ppo_max, no critic pretraining": {"preset": "ppo_max", "kl_weight": 0.05, "critic_pretraining": 0},
}
FIRST = "initial policy"
# Four passes over each buffer for every arm: those of `vanilla`, whose collapse is to be prevented; ppo_max's own number is one.
COMMON = {"learning_rate": 5e-4, "critic_learning_rate": 1e-3, "rollout_replies": 64, "minibatch_replies": 32,
          "inner_epochs": 4, "max_new_tokens": CAP, "evaluation_prompts": 64, "threads": 1,
          "collapse_alarm": False}  # it would stop what is to be seen here  # fmt: skip


Runs = list[dict[str, dict[str, Any]]]  # of each seed, by arm
CURVES = {
    "score": "score_mean",
    "length": "length_mean",
    "kl": "kl",
    "perplexity": "perplexity",
    "value_loss": "value_loss",
}


def good_share(reply: str) -> float:
    """Share of good words."""
    words = reply.split()
    return sum(word in GOOD for word in words) / max(1, len(words))


def gold(_prompt: str, reply: str) -> float:
    """What people want: good words, and at most eight of them."""
    return 3 * good_share(reply) - max(0, len(reply.split()) - 8) / 8


def praised(_prompt: str, reply: str) -> float:
    """What the comparisons say: good words, and many of them: the bug."""
    return 3 * good_share(reply) + 0.3 * len(reply.split())


def prompts(seed: str, count: int) -> list[str]:
    """Three random words each."""
    draw = random.Random(seed)
    return [world.sentence(draw, 3, 3, SPOKEN) for _ in range(count)]


def comparisons(seed: str, count: int) -> list[dict[str, Any]]:
    """Pairs of replies of up to 20 words, as other models may have written them, judged by `praised` with noise."""
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        prompt = world.sentence(draw, 3, 3, SPOKEN)
        pair = {world.sentence(draw, 3, 20, SPOKEN) for _ in range(2)}
        if len(pair) == 2:
            best, worst = world.preferred(draw, praised, prompt, sorted(pair), 0.3)
            found.append(world.comparison(prompt, best, worst))
    return found


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> dict[str, dict[str, Any]]:
    """Pretrain, train the preference model, run every arm; the curves and ends by arm."""
    size = 200 if quick else 2000
    initial = spoken_policy(
        root / "initial", seed, lambda draw: (world.sentence(draw, 3, 3, SPOKEN), world.sentence(draw, 3, 8, SPOKEN)),
        texts=500 if quick else 9000,
    )  # fmt: skip
    pm = world.run_folder(
        root / "pm", {"model": str(initial), "seed": seed, "threads": 1},
        train=comparisons(f"train {seed}", size), test=comparisons(f"test {seed}", 200),
    )  # fmt: skip
    accuracy = world.result_of(preference.main, pm)["accuracy"]
    found: dict[str, dict[str, Any]] = {}
    asked = prompts(f"ask {seed}", 16 if quick else 128)
    for number, (arm, settings) in enumerate(ARMS.items()):
        folder = world.run_folder(
            root / f"arm-{number}",
            {"model": str(initial), "preference_model": str(pm / "model"), "seed": seed, **COMMON, **settings,
             **(SHORT if quick else {"episodes": 64 * 40})},
            prompts=[{"prompt": text} for text in prompts(f"prompts {seed}", 60 if quick else 300)],
        )  # fmt: skip
        world.result_of(policy.main, folder)
        lines = [line for line in metrics_of(folder) if not line["critic_only"]]
        found[arm] = {
            "accuracy": accuracy,
            **{name: [line[logged] for line in lines] for name, logged in CURVES.items()},
            **ends_of(folder / "model", initial, pm / "model", asked, seed),
        }
        tick(arm)
    found[FIRST] = ends_of(initial, initial, pm / "model", asked, seed)
    return found


def ends_of(trained: Path, initial: Path, judge: Path, asked: Sequence[str], seed: int) -> dict[str, float]:
    """Means over one reply to each of the prompts: score, KL to the initial policy, gold score and words."""
    replies, kl, scores = answered(trained, asked, CAP, seed, reference=initial, judge=judge)
    totals = {"end score": sum(scores), "end KL": sum(kl), "gold": sum(map(gold, asked, replies)),
              "words": float(sum(len(reply.split()) for reply in replies))}  # fmt: skip
    return {name: total / len(asked) for name, total in totals.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all arms over the seeds and write what was found."""
    options = Options.read("length_bug", __doc__, seeds=5, arguments=arguments)
    findings = Findings("length_bug", options)
    runs: Runs = each_seed(options, "length bug", len(ARMS), one_seed)

    def column(arm: str, name: str) -> list[float]:
        return [run[arm][name] for run in runs]

    rows = [
        {"arm": arm, "score": shown(column(arm, "end score"), 2), "words": shown(column(arm, "words"), 1),
         "KL, nats": shown(column(arm, "end KL"), 1),
         "perplexity": "" if arm == FIRST else shown([run[arm]["perplexity"][-1] for run in runs], 1),
         f"first iteration above {RUN_ON} tokens": "" if arm == FIRST else passages(runs, arm),
         "gold": shown(column(arm, "gold"), 2)}
        for arm in (FIRST, *ARMS)
    ]  # fmt: skip
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def passage(lengths: Sequence[float]) -> int | None:
    """The first iteration, from 1, whose replies are longer than RUN_ON tokens on the mean."""
    return next((number for number, length in enumerate(lengths, 1) if length > RUN_ON), None)


def passages(runs: Runs, arm: str) -> str:
    """`passage` of every seed, in order."""
    return ", ".join(str(passage(run[arm]["length"]) or "–") for run in runs)


def claims_of(runs: Runs) -> list[Claim]:
    """The expectations of the literature against these runs; differences are taken within each seed."""

    def apart(arm: str, other: str, name: str) -> list[float]:
        return differences([run[arm][name] for run in runs], [run[other][name] for run in runs])

    vanilla, normed, with_kl, without, *etas, unlearnt = ARMS
    first_losses = {arm: [sum(run[arm]["value_loss"][:2]) / 2 for run in runs] for arm in (unlearnt, etas[0])}
    longer = [run[vanilla]["words"] - 2.5 * run[etas[0]]["words"] for run in runs]
    surer = [0.8 * run[etas[0]]["perplexity"][-1] - run[vanilla]["perplexity"][-1] for run in runs]
    steps = {
        name: [apart(loose, tight, name) for loose, tight in itertools.pairwise(etas)]
        for name in ("end KL", "end score")
    }
    # one that is never seen to run on counts as the iteration after the last
    later = [
        float((passage(run[normed]["length"]) or len(run[normed]["length"]) + 1)
              - (passage(run[vanilla]["length"]) or len(run[vanilla]["length"]) + 1))
        for run in runs
    ]  # fmt: skip
    kept = apart(etas[0], FIRST, "gold")
    return [
        Claim("vanilla PPO: replies grow towards the cap, beyond 2.5 times those of ppo_max at η 0.05",
              surely_above(longer), f"{shown(apart(vanilla, etas[0], 'words'), 1)} words more"),
        Claim("vanilla PPO: the gold score ends below the initial policy's", surely_above(apart(FIRST, vanilla, "gold")),
              f"by {shown(apart(FIRST, vanilla, 'gold'), 2)}"),
        Claim("vanilla PPO: perplexity falls below 0.8 of ppo_max's", surely_above(surer), f"below by {shown(surer, 1)}"),
        Claim("PPO-max at η 0.05: the gold score rises", surely_above(kept), shown(kept, 2)),
        Claim("or holds: it loses less than a tenth of what vanilla loses",
              surely_above([own + lost / 10 for own, lost in zip(kept, apart(FIRST, vanilla, "gold"), strict=True)]), shown(kept, 2)),
        Claim("looser η: more score and more drift, at each step", all(surely_above(step) for some in steps.values() for step in some),
              "; ".join(f"{name} {', '.join(shown(step, 2) for step in some)}" for name, some in steps.items())),
        Claim("a pretrained critic's value loss is lower in the first two iterations",
              surely_above(differences(*first_losses.values())), f"by {shown(differences(*first_losses.values()))}"),
        Claim(f"normalisation and clipping alone delay the collapse: replies pass {RUN_ON} tokens later than vanilla's",
              surely_above(later), f"by {shown(later, 1)} iterations"),
        Claim("but only delay it: gold ends below the initial policy's as well", surely_above(apart(FIRST, normed, "gold")),
              f"by {shown(apart(FIRST, normed, 'gold'), 2)}, {shown(apart(normed, vanilla, 'gold'), 2)} above vanilla's"),
        Claim("the KL penalty alone prevents it: vanilla with η 0.05 ends with more gold than vanilla",
              surely_above(apart(with_kl, vanilla, "gold")), f"by {shown(apart(with_kl, vanilla, 'gold'), 2)}"),
        Claim("the other tricks alone do not: ppo_max without KL ends below the initial policy's gold",
              surely_above(apart(FIRST, without, "gold")), f"by {shown(apart(FIRST, without, 'gold'), 2)}"),
        Claim("with the KL penalty the other tricks add gold: ppo_max above vanilla, both at η 0.05",
              surely_above(apart(etas[0], with_kl, "gold")), f"by {shown(apart(etas[0], with_kl, 'gold'), 2)}"),
    ]  # fmt: skip


def draw(figure: Figure, runs: Runs) -> None:
    """Score, length and KL of every arm over the iterations: mean over seeds, and its interval as a band."""
    panels = figure.subplots(1, 3)
    for panel, name in zip(panels, ("score", "length", "kl"), strict=True):
        for arm in ARMS:
            columns = zip(*(run[arm][name] for run in runs), strict=True)
            means, halves = zip(*(interval(column) for column in columns), strict=True)
            panel.plot(means, label=arm, linewidth=1)
            low, high = ([m + sign * h for m, h in zip(means, halves, strict=True)] for sign in (-1, 1))
            panel.fill_between(range(len(means)), low, high, alpha=0.12, linewidth=0)
        panel.set_xlabel("iteration")
        panel.set_title({"score": "PM score", "length": "tokens a reply", "kl": "KL, nats"}[name])
    panels[0].legend(fontsize=6)


if __name__ == "__main__":
    main()
