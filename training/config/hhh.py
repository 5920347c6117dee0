"""Settings of the hhh and log_p jobs."""

import dataclasses

from training.config.loading import BadConfig, at_least, required


@dataclasses.dataclass(frozen=True, kw_only=True)
class HhhConfig:
    """Settings of `python -m training.hhh`: helpful, honest, harmless, on a copy of BIG-bench's hhh_alignment."""

    tasks: str = ""  # folder with CATEGORY/task.json; empty: the run folder's data/; ours
    model: str = ""  # directory of a policy, scored by mutual information; this or preference_model is required
    prefix: str = ""  # file with a prompt that stands before every question of `model` (variants.py); LA
    preference_model: str = ""  # directory; HH 3.4, required without one
    threads: int = 0  # torch threads; 0 = as the environment says; ours

    def __post_init__(self) -> None:
        """Refuse to measure nothing."""
        at_least(self, 0, "threads")
        if not self.model and not self.preference_model:
            raise BadConfig("model and preference_model are both missing: name a directory for one of them or both")
        if self.prefix and not self.model:
            raise BadConfig("prefix is a prompt before a policy's questions and no policy is named; name it in model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogPConfig:
    """Settings of `python -m training.log_p`: whether a policy finds the better replies of comparisons likelier."""

    model: str = ""  # directory of the policy; required
    preference_model: str = ""  # directory; its accuracy on the same comparisons stands beside; LA
    weakest_strength: int = 1  # preferences at or below it are left out, as in training (HH 2.2)
    batch_comparisons: int = 64  # read, scored and kept together; ours
    threads: int = 0  # torch threads; 0 = as the environment says; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        at_least(self, 1, "batch_comparisons")
        at_least(self, 0, "threads", "weakest_strength")
        required(self, "model")
