"""PPO forgets what it was pretrained on; PPO-ptx does not, and a larger β is no substitute (Ouyang et al. 2022, §4.2, App. E.6-E.9).

    python -m training.experiments.pretraining_mix

The initial policy knows two things: short replies of random words, and texts of a chain in which each word has three successors.
PPO learns to reply with good words; what it unlearns is the loss on held-out texts of the chain.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import policy, preference
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
from training.experiments.speaking import SHORT, answered, spoken_policy, text_loss
from training.experiments.writing import Claim, Findings, Options, interval, shown, surely_above

SPOKEN = world.WORDS[:24]
GOOD = frozenset(SPOKEN[:8])
CHAIN = world.WORDS[20:60]  # shares some words with the replies, as text and talk do
CAP = 12
FIRST = "initial policy"
ARMS: dict[str, dict[str, Any]] = {
    "PPO, β 0.02": {"kl_weight": 0.02},
    "PPO, β 0.1": {"kl_weight": 0.1},
    "PPO, β 0.4": {"kl_weight": 0.4},
    "PPO-ptx, β 0.02, γ 1": {"kl_weight": 0.02, "ptx_weight": 1.0},
    "PPO-ptx, β 0.02, γ 27.8": {"kl_weight": 0.02, "ptx_weight": 27.8},
}
COMMON = {"learning_rate": 1e-3, "critic_learning_rate": 2e-3, "rollout_replies": 64, "minibatch_replies": 32,
          "max_new_tokens": CAP, "evaluation_prompts": 32, "threads": 1, "ptx_ratio": 1.0,  # texts a reply; the paper has 8
          "ptx_tokens": 16,
          "collapse_alarm": False}  # fmt: skip


def chain_texts(seed: str, count: int) -> list[str]:
    """Texts of 12 words; a word's three successors are the same in every text of every seed."""
    successors = {word: random.Random(f"after {word}").sample(CHAIN, 3) for word in CHAIN}
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words = [draw.choice(CHAIN)]
        while len(words) < 12:
            words.append(draw.choice(successors[words[-1]]))
        found.append(" ".join(words))
    return found


def exchange(draw: random.Random) -> tuple[str, str]:
    """A prompt and a reply of random words."""
    return world.sentence(draw, 3, 3, SPOKEN), world.sentence(draw, 3, 8, SPOKEN)


def gold(_prompt: str, reply: str) -> float:
    """Share of good words."""
    words = reply.split()
    return sum(word in GOOD for word in words) / max(1, len(words))


def comparisons(seed: str, count: int) -> list[dict[str, Any]]:
    """Pairs of random replies, the one with more good words chosen."""
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        prompt, one = exchange(draw)
        other = exchange(draw)[1]
        if gold(prompt, one) != gold(prompt, other):
            best, worst = world.preferred(draw, gold, prompt, [one, other], 0.05)
            found.append(world.comparison(prompt, best, worst))
    return found


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> dict[str, dict[str, float]]:
    """Every arm once; score, gold score, KL and the loss on held-out text at its end."""
    texts = chain_texts(f"chain {seed}", 200 if quick else 6000)
    initial = spoken_policy(root, seed, exchange, texts=300 if quick else 6000, pretraining=texts)
    pm = world.run_folder(
        root / "pm", {"model": str(initial), "seed": seed, "threads": 1},
        train=comparisons(f"train {seed}", 200 if quick else 3000), test=comparisons(f"test {seed}", 200),
    )  # fmt: skip
    world.result_of(preference.main, pm)
    unseen = chain_texts(f"held out {seed}", 64 if quick else 400)
    chance = random.Random(f"prompts {seed}")
    asked, new = ([exchange(chance)[0] for _ in range(count)] for count in (300, 128))

    def ends_of(trained: Path) -> dict[str, float]:
        """Means over one reply to each of the new prompts, and the loss on new text."""
        said = answered(trained, new, CAP, seed, reference=initial, judge=pm / "model")
        sums = {"score": sum(said.scores), "KL": sum(said.kl), "gold": sum(map(gold, new, said.replies))}
        return {"text loss": text_loss(trained, unseen)} | {name: total / len(new) for name, total in sums.items()}

    found = {FIRST: ends_of(initial)}
    for number, (arm, settings) in enumerate(ARMS.items()):
        folder = world.run_folder(
            root / f"arm-{number}",
            {"model": str(initial), "preference_model": str(pm / "model"), "seed": seed, **COMMON, **settings,
             **(SHORT if quick else {"episodes": 64 * 30})},
            prompts=[{"prompt": text} for text in asked], pretraining=[{"text": text} for text in texts],
        )  # fmt: skip
        world.result_of(policy.main, folder)
        found[arm] = ends_of(folder / "model")
        tick(arm)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all arms over the seeds and write what was found."""
    options = Options.read("pretraining_mix", __doc__, seeds=10, arguments=arguments)
    findings = Findings("pretraining_mix", options)
    runs = each_seed(options, "PPO and PPO-ptx", len(ARMS), one_seed)

    def column(arm: str, name: str) -> list[float]:
        return [run[arm][name] for run in runs]

    rows = [
        {"arm": arm, "PM score": shown(column(arm, "score"), 2), "gold": shown(column(arm, "gold"), 2),
         "KL, nats": shown(column(arm, "KL"), 1), "loss on held-out text, nats a token": shown(column(arm, "text loss"), 3)}
        for arm in (FIRST, *ARMS)
    ]  # fmt: skip
    findings.write(rows=rows, claims=claims_of(column), numbers=runs, draw=lambda figure: draw(figure, column))


def claims_of(column: Any) -> list[Claim]:
    """The paper's expectations against these runs; differences are taken within each seed."""

    def apart(arm: str, other: str, name: str) -> list[float]:
        return [own - theirs for own, theirs in zip(column(arm, name), column(other, name), strict=True)]

    plain, mixed, larger = "PPO, β 0.02", "PPO-ptx, β 0.02, γ 27.8", "PPO, β 0.4"
    rise = {arm: apart(arm, FIRST, "text loss") for arm in ARMS}
    kept = [0.25 * up - abs(here) for up, here in zip(rise[plain], rise[mixed], strict=True)]
    gained = [
        own - (theirs - 0.25 * whole)
        for own, theirs, whole in zip(
            column(mixed, "gold"), column(plain, "gold"), apart(plain, FIRST, "gold"), strict=True
        )
    ]
    cost = apart(plain, larger, "gold")
    worse = apart(larger, mixed, "text loss")
    return [
        Claim("PPO raises the loss on the pretraining text", surely_above(rise[plain]), f"{shown(rise[plain])} nats a token"),
        Claim("PPO-ptx moves it, up or down, by less than a quarter of that", surely_above(kept), shown(rise[mixed])),
        Claim("PPO-ptx ends with a lower loss on it than PPO", surely_above(apart(plain, mixed, "text loss")),
              f"by {shown(apart(plain, mixed, 'text loss'))}"),
        Claim("PPO-ptx gains at least three quarters of PPO's gold score", surely_above(gained),
              f"{shown(apart(mixed, FIRST, 'gold'), 2)} against {shown(apart(plain, FIRST, 'gold'), 2)}"),
        Claim("a larger β costs gold score", surely_above(cost), f"by {shown(cost, 2)}"),
        Claim("and does not bring the text back: its loss stays above the initial policy's", surely_above(rise[larger]),
              f"by {shown(rise[larger])}; above PPO-ptx's by {shown(worse)}"),
    ]  # fmt: skip


def draw(figure: Figure, column: Any) -> None:
    """Gold score against the loss on text, an arm each."""
    panel = figure.subplots()
    for arm in (FIRST, *ARMS):
        (gold_mean, gold_half), (loss_mean, loss_half) = (
            interval(column(arm, "gold")),
            interval(column(arm, "text loss")),
        )
        panel.errorbar(gold_mean, loss_mean, xerr=gold_half, yerr=loss_half, fmt="o", label=arm)
    panel.set_xlabel("gold score of replies")
    panel.set_ylabel("loss on held-out text, nats a token")
    panel.legend(fontsize=8)


if __name__ == "__main__":
    main()
