"""Settings that every job has which samples replies to measure them."""

import dataclasses
from typing import Literal

from training.config.loading import above_zero, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How replies are drawn; a job's own config adds whose."""

    seed: int = 0  # ours
    max_new_tokens: int = 112  # starter: its longest replies
    temperature: float = 1.0  # scores are compared at the temperature that people are served at; ours
    slots: int = 64  # replies written at once; ours
    evaluation_prompts: int = 400  # at most so many of data/prompts.jsonl; 0 = all; ours
    # of the matrix products; auto: see device.py; ours, measured
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 0  # torch threads; 0 = as the environment says; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        at_least(self, 1, "max_new_tokens", "slots")
        at_least(self, 0, "seed", "threads", "evaluation_prompts")
        above_zero(self, "temperature")
