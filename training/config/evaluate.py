"""Settings of the evaluate job."""

import dataclasses

from training.config.sampling import SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SamplingConfig):
    """Settings of `python -m training.evaluate`: policy `model` against `opponent` under a preference model."""

    model: str = ""  # directory of the policy in question; required
    opponent: str = ""  # directory of the policy it is held against, also the reference of the KL; required
    preference_model: str = ""  # directory; required
