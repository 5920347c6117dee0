"""Does the score rise in a line with √KL? (Bai et al. 2022 §4.3.) Exact policy gradient on a bandit of 5,000 replies.

The policy is a softmax over replies, the score of each is drawn from N(0, 1), and every step follows the exact gradient of the mean
score, plain or natural; there is no KL penalty. The line is fitted by `training.runs.curves.sqrt_kl_law`.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from training.experiments.features import divergence, normal
from training.experiments.writing import Claim, Findings, Options, shown
from training.runs.curves import sqrt_kl_law

REPLIES, MOST = 5000, 1.5  # replies; the end of the range of √KL that the claim is about
RANGES = (1.0, 1.5, 2.0, 2.5)
STEPS, RATE = 6000, 0.02
ARMS = {"plain": False, "natural": True}
Curve = tuple[list[float], list[float]]  # KL, mean score


def climbed(seed: int, replies: int, *, natural: bool) -> Curve:
    """KL and mean score along exact policy gradient from a policy that is not uniform; `natural`: preconditioned by Fisher."""
    generator = torch.Generator().manual_seed(seed)
    score = normal(generator, replies)
    logits = 0.5 * normal(generator, replies)
    base = torch.softmax(logits, 0)
    kl, mean = [], []
    for _ in range(STEPS):
        policy = torch.softmax(logits, 0)
        expected = (policy * score).sum()
        kl.append(divergence(policy, base))
        mean.append(float(expected))
        if kl[-1] > max(RANGES) ** 2:
            break
        gradient = (score - expected) * (1.0 if natural else policy)  # dE[r]/dlogit is the one with π
        logits = logits + RATE * gradient / gradient.abs().max()  # steps that are small everywhere along the same path
    return kl, mean


def r_squared(curve: Curve, most: float) -> tuple[float, float]:
    """R² of the line against √KL and of that against KL, up to √KL = `most`."""
    lines = sqrt_kl_law(*curve, most=most)
    by_root, by_kl = lines["sqrt_kl"], lines["kl"]
    assert by_root is not None
    assert by_kl is not None
    return by_root["r_squared"], by_kl["r_squared"]


def slope_ratio(curve: Curve) -> float:
    """Slope over the second half of the range by that over the first: R² alone forgives a curve that bends."""
    slopes = []
    for least, most in ((0.0, MOST / 2), (MOST / 2, MOST)):
        line = sqrt_kl_law(*curve, least=least, most=most)["sqrt_kl"]
        assert line is not None
        slopes.append(line["slope"])
    return slopes[1] / slopes[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Climb with every seed, fit, and write what was found."""
    options = Options.read("sqrt_kl", __doc__, seeds=8, arguments=arguments, at_once=False)
    findings = Findings("sqrt_kl", options)
    replies = 500 if options.quick else REPLIES
    arms = {
        name: [climbed(seed, replies, natural=natural) for seed in range(options.seeds)]
        for name, natural in ARMS.items()
    }
    rows: list[dict[str, Any]] = []
    fits: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for name, curves in arms.items():
        for most in RANGES:
            some = fits[name, most] = [r_squared(curve, most) for curve in curves]
            rows.append({"policy gradient": name, "√KL up to": most, "R² against √KL": shown([root for root, _ in some]),
                         "R² against KL": shown([plain for _, plain in some])})  # fmt: skip
    bent = {name: [slope_ratio(curve) for curve in curves] for name, curves in arms.items()}
    worst = {name: min(root for root, _ in fits[name, MOST]) for name in arms}
    claims = [
        *(Claim(f"R² ≥ 0.95 against √KL up to {MOST}, in every seed, {name}", worst[name] >= 0.95, f"least {worst[name]:.3f}")
          for name in arms),
        *(Claim(f"the line is better against √KL than against KL up to {MOST}, in every seed, {name}",
                all(root > plain for root, plain in fits[name, MOST]), "see the table") for name in arms),
        *(Claim(f"it is a line: the slope of the second half of that range is within a fifth of the first half's, {name}",
                all(abs(ratio - 1) <= 0.2 for ratio in bent[name]), f"ratio {shown(bent[name], 2)}") for name in arms),
    ]  # fmt: skip

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for (name, curves), colour in zip(arms.items(), ("C0", "C1"), strict=True):
            for place, (kl, mean) in enumerate(curves):
                label = name if place == 0 else None
                left.plot([math.sqrt(max(one, 0.0)) for one in kl], mean, colour, linewidth=0.9, label=label)
                right.plot(kl, mean, colour, linewidth=0.9)
        left.axvline(MOST, color="grey", linestyle=":")
        left.set(xlabel="√KL (√nats)", ylabel="mean score")
        right.set(xlabel="KL (nats)")
        left.legend(fontsize="small")

    thinned = {name: [{"kl": kl[::10], "score": mean[::10]} for kl, mean in curves] for name, curves in arms.items()}
    findings.write(rows=rows, claims=claims, numbers={"curves": thinned, "slope_ratio": bent}, draw=draw)


if __name__ == "__main__":
    main(sys.argv[1:])
