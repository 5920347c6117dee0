"""A preference model that likes length: PPO without tricks runs to the cap, PPO-max does not (Zheng et al. 2023, §5).

    python -m training.experiments.length_bug

People here like replies of good words and of up to eight words; the comparisons that the preference model learns from praise
length as well. Arms: `vanilla`, `ppo_max` at three KL weights η, and the paper's reward normalisation with clipping alone.
"""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import policy, preference
from training.experiments import world
from training.experiments.speaking import metrics_of, replies_of, spoken_policy
from training.experiments.writing import Claim, Findings, Options, interval, shown, surely_above
from training.runs.progress import Bar

SPOKEN = world.WORDS[:24]
GOOD = frozenset(SPOKEN[:8])
CAP = 40  # tokens of a reply at most
# Each arm: the preset and what differs from it. The rate is the same for all, measured as safe on this model.
ARMS: dict[str, dict[str, Any]] = {
    "vanilla": {"preset": "vanilla"},
    "norm and clip alone": {"preset": "vanilla", "score_normalisation": "running", "score_clip": 0.8},
    "ppo_max, η 0.05": {"preset": "ppo_max", "kl_weight": 0.05},
    "ppo_max, η 0.1": {"preset": "ppo_max", "kl_weight": 0.1},
    "ppo_max, η 0.2": {"preset": "ppo_max", "kl_weight": 0.2},
    "ppo_max, no critic pretraining": {"preset": "ppo_max", "kl_weight": 0.05, "critic_pretraining": 0},
}
COMMON = {"learning_rate": 5e-4, "critic_learning_rate": 1e-3, "rollout_replies": 64, "minibatch_replies": 32,
          "max_new_tokens": CAP, "evaluation_prompts": 64, "threads": 1,
          "collapse_alarm": False}  # it would stop what is to be seen here  # fmt: skip


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


def one_seed(root: Path, seed: int, quick: bool, bar: Bar, done: int) -> dict[str, dict[str, Any]]:
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
    asked = prompts(f"ask {seed}", 128)
    for number, (arm, settings) in enumerate(ARMS.items()):
        folder = world.run_folder(
            root / f"arm-{number}",
            {"model": str(initial), "preference_model": str(pm / "model"), "seed": seed, **COMMON, **settings,
             "episodes": 128 if quick else 64 * 40},
            prompts=[{"prompt": text} for text in prompts(f"prompts {seed}", 300)],
        )  # fmt: skip
        world.result_of(policy.main, folder)
        lines = [line for line in metrics_of(folder) if not line["critic_only"]]
        replies = replies_of(folder / "model", asked, CAP, seed)
        found[arm] = {
            "accuracy": accuracy,
            "score": [line["score_mean"] for line in lines],
            "length": [line["length_mean"] for line in lines],
            "kl": [line["kl"] for line in lines],
            "perplexity": [line["perplexity"] for line in lines],
            "value_loss": [line["value_loss"] for line in lines],
            "gold": sum(map(gold, asked, replies)) / len(asked),
            "words": sum(len(reply.split()) for reply in replies) / len(asked),
        }
        bar.at(done + number + 1, arm)
    start = replies_of(initial, asked, CAP, seed)
    found["initial policy"] = {
        "gold": sum(map(gold, asked, start)) / len(asked),
        "words": sum(len(reply.split()) for reply in start) / len(asked),
    }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all arms over the seeds and write what was found."""
    options = Options.read("length_bug", __doc__, seeds=5, arguments=arguments)
    findings = Findings("length_bug", options)
    runs: list[dict[str, dict[str, Any]]] = []
    with Bar("length bug", options.seeds * len(ARMS)) as bar, tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            runs.append(one_seed(Path(scratch) / str(seed), seed, options.quick, bar, seed * len(ARMS)))  # noqa: PERF401

    def over_seeds(arm: str, name: str) -> list[float]:
        return [run[arm][name] if isinstance(run[arm][name], float) else run[arm][name][-1] for run in runs]

    rows = [{"arm": "initial policy", "score": "0", "words": shown(over_seeds("initial policy", "words"), 1),
             "KL, nats": "0", "perplexity": "", "gold": shown(over_seeds("initial policy", "gold"), 2)}]  # fmt: skip
    rows += [
        {"arm": arm, "score": shown(over_seeds(arm, "score"), 2), "words": shown(over_seeds(arm, "words"), 1),
         "KL, nats": shown(over_seeds(arm, "kl"), 1), "perplexity": shown(over_seeds(arm, "perplexity"), 1),
         "gold": shown(over_seeds(arm, "gold"), 2)}
        for arm in ARMS
    ]  # fmt: skip
    findings.write(rows=rows, claims=claims_of(runs, over_seeds), numbers=runs, draw=lambda figure: draw(figure, runs))


def claims_of(runs: list[dict[str, dict[str, Any]]], over_seeds: Any) -> list[Claim]:
    """The expectations of the literature against these runs; differences are taken within each seed."""

    def mean(arm: str, name: str) -> float:
        return interval(over_seeds(arm, name))[0]

    def beyond(arm: str, times: float, other: str, name: str) -> list[float]:
        """By how much an arm's number is above so many times another's, seed by seed."""
        pairs = zip(over_seeds(arm, name), over_seeds(other, name), strict=True)
        return [own - times * theirs for own, theirs in pairs]

    etas = ["ppo_max, η 0.05", "ppo_max, η 0.1", "ppo_max, η 0.2"]
    kls, scores = [mean(arm, "kl") for arm in etas], [mean(arm, "score") for arm in etas]

    def early(arm: str) -> list[float]:
        return [sum(run[arm]["value_loss"][:2]) / 2 for run in runs]

    unlearnt = [
        fresh - fitted for fresh, fitted in zip(early("ppo_max, no critic pretraining"), early(etas[0]), strict=True)
    ]
    lost = beyond("initial policy", 1, "vanilla", "gold")
    won = beyond(etas[0], 1, "initial policy", "gold")
    sure = [-each for each in beyond("vanilla", 0.8, etas[0], "perplexity")]
    return [
        Claim("vanilla PPO: replies grow towards the cap, beyond 2.5 times those of ppo_max",
              surely_above(beyond("vanilla", 2.5, etas[0], "words")),
              f"{mean('vanilla', 'words'):.1f} words against {mean('initial policy', 'words'):.1f} at the start, cap {CAP}"),
        Claim("vanilla PPO: the gold score ends below the initial policy's", surely_above(lost), f"by {shown(lost, 2)}"),
        Claim("vanilla PPO: perplexity falls below 0.8 of ppo_max's", surely_above(sure), f"below by {shown(sure, 1)}"),
        Claim("PPO-max at η 0.05: the gold score holds or rises", interval(won)[0] >= 0, f"{shown(won, 2)}"),
        Claim("looser η: more score and more drift, in order", kls == sorted(kls, reverse=True)
              and scores == sorted(scores, reverse=True),
              f"KL {', '.join(f'{kl:.1f}' for kl in kls)}; score {', '.join(f'{score:.2f}' for score in scores)}"),
        Claim("a pretrained critic's value loss is lower in the first two iterations", surely_above(unlearnt),
              f"by {shown(unlearnt)}"),
        Claim("normalisation and clipping alone only delay the collapse",
              surely_above(beyond("norm and clip alone", 2, etas[0], "words")),
              f"{mean('norm and clip alone', 'words'):.1f} words, gold {mean('norm and clip alone', 'gold'):.2f}"),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[dict[str, dict[str, Any]]]) -> None:
    """Score, length and KL of every arm, mean over seeds."""
    panels = figure.subplots(1, 3)
    for panel, name in zip(panels, ("score", "length", "kl"), strict=True):
        for arm in ARMS:
            curves = [run[arm][name] for run in runs]
            panel.plot([sum(column) / len(column) for column in zip(*curves, strict=True)], label=arm)
        panel.set_xlabel("iteration")
        panel.set_title({"score": "PM score", "length": "tokens a reply", "kl": "KL, nats"}[name])
    panels[0].legend(fontsize=7)


if __name__ == "__main__":
    main()
