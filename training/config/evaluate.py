"""Settings of the evaluate job."""

import dataclasses

from training.config.loading import above_zero, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of `python -m training.evaluate`: policy `model` against `opponent` under a preference model."""

    model: str = ""  # directory of the policy in question; required
    opponent: str = ""  # directory of the policy it is held against, also the reference of the KL; required
    preference_model: str = ""  # directory; required
    seed: int = 0
    max_new_tokens: int = 112
    temperature: float = 1.0  # scores are compared at the temperature that people are served at
    slots: int = 64
    evaluation_prompts: int = 400  # at most so many of data/prompts.jsonl
    threads: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        at_least(self, 1, "max_new_tokens", "slots", "evaluation_prompts")
        at_least(self, 0, "seed", "threads")
        above_zero(self, "temperature")
