"""Settings of the jobs that measure several policies on the same prompts: tournament, robustness, crowd, sqrt_kl."""

import dataclasses

from training.config.loading import BadConfig, at_least
from training.config.sampling import SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldConfig(SamplingConfig):
    """Several policies, the first of which is the reference; each "DIR" or "NAME=DIR"."""

    snapshots: tuple[str, ...] = ()  # the first is the reference: of the KL, of Elo 0, of score 0 (ours)
    prefixes: tuple[
        str, ...
    ] = ()  # "NAME=FILE": a prompt that stands before every conversation of that one (variants.py); LA
    preference_model: str = ""  # directory; required

    def paths(self) -> dict[str, str]:
        """Directories by name; BadConfig where two have the same name or there are none."""
        return _named("snapshots", self.snapshots)

    def prefix_files(self) -> dict[str, str]:
        """Files by the name of the snapshot that answers behind them."""
        found = _named("prefixes", self.prefixes)
        unknown = sorted(set(found) - set(self.paths()))
        if unknown:
            raise BadConfig(f"prefixes names {unknown[0]!r}, which is no snapshot here: {', '.join(self.paths())}")
        return found


def _named(setting: str, items: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        name, _, path = item.rpartition("=")
        name = name or path
        if not path or name in found:
            raise BadConfig(
                f"{setting} needs a different name for each, written NAME=PATH; {item!r} is empty or there twice"
            )
        found[name] = path
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class TournamentConfig(FieldConfig):
    """Settings of `python -m training.tournament`: every policy against every other under a preference model."""

    test_preference_model: str = ""  # directory of a second judge, which gives a table of its own; HH 4.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustnessConfig(FieldConfig):
    """Settings of `python -m training.robustness`: the model that a policy was trained against beside one that it was not."""

    test_preference_model: str = ""  # directory; required. HH 4.2: trained on the other half of the comparisons
    # of the prompts: only the reference's replies to these say where each model's 0 is (HH B.2)
    centring_share: float = 0.25

    def __post_init__(self) -> None:
        """Refuse a share that leaves one side empty."""
        super().__post_init__()
        if not 0 < self.centring_share < 1:
            raise BadConfig(f"centring_share must lie between 0 and 1, not {self.centring_share}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrowdConfig(FieldConfig):
    """Settings of `python -m training.crowd`: what a preference model foretells beside what people chose."""

    weakest_strength: int = 1  # choices at or below it are left out, as in training (HH B.5); 0 keeps all
    batch_comparisons: int = 256  # of the crowd's, read and kept together; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 1, "batch_comparisons")
        at_least(self, 0, "weakest_strength")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqrtKlConfig(FieldConfig):
    """Settings of `python -m training.sqrt_kl`: scores against √KL, from policy runs' metrics or from snapshots."""

    runs: tuple[
        str, ...
    ] = ()  # folders of policy runs, "DIR" or "NAME=DIR"; their metrics.jsonl is read, nothing is sampled; HH 4.3
    least: float = 0.0  # the range of √KL over which a line is fitted, in √nats; ours
    most: float = 0.0  # 0 = to the end; ours

    def __post_init__(self) -> None:
        """Refuse a range without points."""
        super().__post_init__()
        at_least(self, 0, "least", "most")
        if self.most and self.most <= self.least:
            raise BadConfig(f"most must be above least, which is {self.least}, or 0 for no end; not {self.most}")

    def run_paths(self) -> dict[str, str]:
        """Run folders by name."""
        return _named("runs", self.runs)
