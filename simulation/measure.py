"""How often the hidden judge prefers one policy's replies to another's, on prompts nobody has trained on.

Only this measuring reads the judge and the policies side by side; nothing of it goes back into the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulation.judge import GoldJudge
from training.data.prompts import Prompt
from training.measuring.calibration import wilson_interval
from training.sampling.variants import Policy, Sampling
from training.starter.prompts import read_pool

DRAWN = Sampling(max_new_tokens=128)
# Replies of two policies whose scores differ by less are a tie; ties count half.
TIE = 1e-9


@dataclass(frozen=True)
class WinRate:
    """Share of prompts on which the judge prefers the policy, ties half, with its 95% interval."""

    share: float
    ci95: tuple[float, float]
    prompts: int
    mean_score: float  # of the policy's replies, by the judge


def held_out_prompts(mode: str | None = None) -> list[str]:
    """The openings that no policy is trained on, of one mode or of all."""
    return [row["text"] for row in read_pool() if row["split"] == "held_out" and mode in (None, row["mode"])]


def replies(policy: Policy, prompts: list[str], seed: int) -> list[str]:
    """One reply to each opening."""
    conversations: list[Prompt] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return policy.reply(conversations, [seed * 1_000_003 + at for at in range(len(prompts))], DRAWN).texts


def mean_share(wins: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The mean of shares won, one a prompt, and its 95% interval.

    Wilson's, for as many tosses of a coin as would vary like these; where all are alike, as many as there are prompts, so
    that a clean sweep does not pretend to certainty.
    """
    count, share = len(wins), sum(wins) / len(wins)
    variance = sum((win - share) ** 2 for win in wins) / max(1, count - 1)
    tosses = count * share * (1 - share) / variance if variance > 0 else count
    return share, wilson_interval(share, tosses)


def win_rate(policy: str, other: str, prompts: list[str], *, samples: int = 1, seed: int = 0) -> WinRate:
    """Let the judge compare `samples` reply pairs a prompt; the interval is over prompts, which are what vary freely.

    The two policies draw with different seeds, so that a policy against itself gives about one half and not all ties.
    """
    judge, sides = GoldJudge(), (Policy.load(policy), Policy.load(other))
    wins = [0.0] * len(prompts)
    total = 0.0
    for sample in range(samples):
        ours, theirs = (replies(side, prompts, seed + 2 * sample + number) for number, side in enumerate(sides))
        for at, prompt in enumerate(prompts):
            messages = [{"role": "user", "content": prompt}]
            a, b = judge.score(messages, ours[at]), judge.score(messages, theirs[at])
            wins[at] += (0.5 if abs(a - b) < TIE else float(a > b)) / samples
            total += a
    count = len(prompts)
    share, ci95 = mean_share(wins)
    return WinRate(share, ci95, count, total / (count * samples))
