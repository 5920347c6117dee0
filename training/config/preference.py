"""Settings of the preference job."""

import dataclasses

from training.config.fitting import FitConfig
from training.config.loading import at_least, shares


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceConfig(FitConfig):
    """Settings of `python -m training.preference`."""

    model: str = ""  # directory of the policy whose backbone the preference model starts from; required
    batch_pairs: int = 16  # starter: 300 comparisons still give some 18 updates
    lm_weight: float = 0.0  # weight of the language loss on the chosen reply; HH trains without it
    weakest_strength: int = 1  # comparisons at or below it are left out (HH 2.2); 0 keeps all
    held_out: float = 0.05  # share of conversations kept for the test when data/ has no test file (HH 2.3)
    max_tokens: int = 0  # prompt and longer reply together; 0 = the model's context. Oldest turns go first, counted
    calibration_bins: int = 10

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 0, "lm_weight", "weakest_strength", "max_tokens")
        at_least(self, 1, "batch_pairs", "calibration_bins")
        shares(self, "held_out")
