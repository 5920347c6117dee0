"""Settings of the best_of job."""

import dataclasses

from training.config.loading import BadConfig, at_least
from training.config.sampling import SamplingConfig

MOST = 1024  # replies to one prompt; beyond it the exact binomials of the estimate are slow and nobody samples so many


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestOfConfig(SamplingConfig):
    """Settings of `python -m training.best_of`: of k replies the one that a preference model scores highest."""

    model: str = ""  # directory of the policy that is sampled; required
    preference_model: str = ""  # directory of the one that chooses; required
    # directory of one that only judges what was chosen: shows over-optimisation; HH 4.2
    test_preference_model: str = ""
    # directory of the policy whose one reply each choice is held against; empty: `model` itself; ours
    opponent: str = ""
    prefix: str = ""  # file with a prompt that stands before every conversation of `model` (variants.py); LA
    k: tuple[int, ...] = (1, 4, 16, 64)  # HH B.6
    median_of: int = 0  # > 0: keep the median of so many, as HH 6.1 showed its writers (17), not the best; odd
    evaluation_prompts: int = 0  # all of data/prompts.jsonl: what is chosen is kept as demonstrations; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 0, "median_of")
        if not self.k or min(self.k) < 1 or max(self.k) > MOST:
            raise BadConfig(f"k must be numbers from 1 to {MOST}, not {list(self.k)}")
        if self.median_of and (self.median_of % 2 == 0 or self.median_of > MOST):
            raise BadConfig(f"median_of must be an odd number up to {MOST}, not {self.median_of}")

    @property
    def samples(self) -> int:
        """Replies sampled to each prompt."""
        return max(*self.k, self.median_of)
