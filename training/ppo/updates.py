"""What is counted while PPO updates a policy: token-weighted sums over the minibatches of one iteration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.failure import JobFailed
from training.processes import distributed, ranks

# What each of several processes counts of its own share of a minibatch; the rest is counted of the whole by all alike.
SUMMED = (
    "policy_loss", "value_loss", "approx_kl", "clip_fraction", "value_clip_fraction", "ratio", "entropy",
    "entropy_tokens", "ptx_loss",
)  # fmt: skip
LARGEST = ("ratio_max", "sampler_gap")


@dataclass
class Updates:
    """The sums; `means` divides them."""

    tokens: int = 0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    approx_kl: float = 0.0
    clip_fraction: float = 0.0
    value_clip_fraction: float = 0.0
    ratio: float = 0.0
    ratio_max: float = 0.0
    entropy: float = 0.0
    entropy_tokens: int = 0
    sampler_gap: float = 0.0  # largest |log π - log π_old| of a token before the first update
    policy_grad_norm: float = 0.0
    critic_grad_norm: float = 0.0
    ptx_loss: float = 0.0  # nats a token of pretraining text, summed over minibatches
    minibatches: int = 0
    stopped_early: bool = False

    def means(self, *, ptx: bool = False) -> dict[str, float]:
        """The metrics of the iteration; `ptx`: the policy also learnt from pretraining text."""
        tokens, minibatches = max(self.tokens, 1), max(self.minibatches, 1)
        per_token = ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "value_clip_fraction")
        found = {name: getattr(self, name) / tokens for name in per_token}
        found |= {"ratio_mean": self.ratio / tokens, "ratio_max": self.ratio_max}
        found["entropy"] = self.entropy / max(self.entropy_tokens, 1)
        found["sampler_gap"] = self.sampler_gap
        found |= {name: getattr(self, name) / minibatches for name in ("policy_grad_norm", "critic_grad_norm")}
        if ptx:
            found["ptx_loss"] = self.ptx_loss / minibatches
        return found | {"minibatches": float(self.minibatches), "stopped_early": float(self.stopped_early)}

    def meet(self, before: "Updates") -> None:
        """Make what this process counted since `before` what all of them counted; what is a largest stays one."""
        if ranks.size() == 1:
            return
        counted = {name: getattr(self, name) - getattr(before, name) for name in SUMMED}
        for name, number in distributed.summed(counted).items():
            setattr(self, name, getattr(before, name) + number)
        largest = distributed.gathered([getattr(self, name) for name in LARGEST])
        for name, numbers in zip(LARGEST, zip(*largest, strict=True), strict=True):
            setattr(self, name, max(numbers))


def minibatches(shuffled: Tensor, size: int) -> list[Tensor]:
    """The replies of a pass in minibatches.  [N] -> some [B]

    A last one of less than half the size joins the one before it: a few replies alone would move the policy as far as many.
    """
    found = list(shuffled.split(size))
    if len(found) > 1 and 2 * len(found[-1]) < size:
        found[-2:] = [torch.cat(found[-2:])]
    return found


class NotANumber(JobFailed):
    """A score, loss, gradient or log-probability that is NaN or infinite; `replies` are the rollout's rows it came from."""

    def __init__(self, what: str, replies: list[int]) -> None:
        super().__init__(what)
        self.replies = replies

    def named(self, prompts: Sequence[Sequence[int]], tokenizer: Any) -> str:
        """What it is, with the prompts of the first few replies."""
        whose = "; ".join(f"reply {row + 1} to {tokenizer.decode(prompts[row][-40:])!r}" for row in self.replies[:4])
        return f"{self} ({whose})" if whose else str(self)


def must_be_finite(numbers: Tensor, what: str, remedy: str) -> None:
    """NotANumber, which names the replies whose entry [B] or row [B, R] is not finite."""
    wrong = ~numbers.isfinite()
    rows = (wrong.any(1) if wrong.dim() == 2 else wrong).nonzero()[:, 0].tolist()
    if rows:
        raise NotANumber(f"{what} is not a number; {remedy}", rows)
