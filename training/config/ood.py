"""Settings of the ood job."""

import dataclasses

from training.config.loading import BadConfig, above_zero, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class OodConfig:
    """Settings of `python -m training.ood`: which prompts lie outside of what is usual, by a policy's activations."""

    model: str = ""  # directory of a policy; required
    seed: int = 0  # ours
    held_out: float = 0.3  # share of the inliers that is only tested on; ours
    layers: tuple[int, ...] = ()  # layers to look at, from 1; empty: every one (HH 5.4 plots them all)
    # of the mean variance, added to each feature's: S has an inverse with fewer prompts than features (ours)
    ridge: float = 1e-3
    few_shot: tuple[int, ...] = (1, 10)  # outliers that are shown, M (HH 5.4 shows up to 10)
    draws: int = 10  # random choices of those M, over which the mean is taken (ours)
    probe_decay: float = 1e-2  # half its square times the squared weights is added to the probe's mean loss (ours)
    batch_prompts: int = 32  # of one forward pass; ours
    checkpoint_seconds: float = 30.0  # between checkpoints; more where one takes long (runs/cadence.py); ours
    threads: int = 0  # torch threads; 0 = as the environment says; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        at_least(self, 1, "draws", "batch_prompts")
        at_least(self, 0, "seed", "threads", "checkpoint_seconds")
        above_zero(self, "ridge", "probe_decay")
        if not 0 < self.held_out < 1:
            raise BadConfig(f"held_out must lie between 0 and 1, not {self.held_out}")
        for name in ("layers", "few_shot"):
            if any(number < 1 for number in getattr(self, name)):
                raise BadConfig(f"{name} must be numbers from 1, not {list(getattr(self, name))}")
