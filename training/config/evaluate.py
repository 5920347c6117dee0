"""Settings of the evaluate job."""

import dataclasses

from training.config.loading import at_least
from training.config.sampling import SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SamplingConfig):
    """Settings of `python -m training.evaluate`: policy `model` against `opponent` under a preference model."""

    model: str = ""  # directory of the policy in question; required
    opponent: str = ""  # directory of the policy it is held against, also the reference of the KL; required
    preference_model: str = ""  # directory; required
    part_prompts: int = 128  # measured and kept together: what a kill can lose; ours, twice the slots

    def __post_init__(self) -> None:
        """Refuse a part of nothing."""
        super().__post_init__()
        at_least(self, 1, "part_prompts")
