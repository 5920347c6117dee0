"""The scale of scores: running mean and standard deviation over every score seen, kept in checkpoints."""

import math
from typing import Literal

import torch
from torch import Tensor


class ScoreNormaliser:
    """Brings scores to a common scale: s̃ = clip((s - mean) / std, ±bound)   (Zheng et al. 2023, eq. 18).

    "running" removes the running mean and divides by the running deviation, "scale" only divides, "none" leaves as is.
    """

    def __init__(self, how: Literal["none", "scale", "running"], bound: float) -> None:
        self.how = how
        self.bound = bound  # in units of the result; 0 = no clip
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0  # Σ (s - mean)²

    @property
    def deviation(self) -> float:
        """Standard deviation of all scores seen, 1 until two different ones were."""
        return math.sqrt(self.squares / self.count) if self.count and self.squares > 0 else 1.0

    def observe(self, score: Tensor) -> None:
        """Take in a batch of scores [B], merged exactly (Chan et al. 1979)."""
        batch = score.double()
        count, mean = batch.numel(), float(batch.mean())
        total, shift = self.count + count, mean - self.mean
        self.squares += float((batch - mean).square().sum()) + shift * shift * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    def normalise(self, score: Tensor) -> Tensor:
        """The scores on the common scale.  [B] -> [B]"""
        if self.how == "running":
            score = (score - self.mean) / self.deviation
        elif self.how == "scale":
            score = score / self.deviation
        return torch.clamp(score, -self.bound, self.bound) if self.bound > 0 else score

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from `state`."""
        self.count, self.mean, self.squares = int(state["count"]), state["mean"], state["squares"]
