"""The settings of every training job: frozen, typed, each default with its source.

Sources: HH = Bai et al. 2022 (arXiv 2204.05862); IG = Ouyang et al. 2022 (2203.02155); N = Huang et al., "The N implementation
details of RLHF with PPO"; starter = measured here on the shipped starter model.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar


class BadConfig(ValueError):
    """A setting that is unknown, of the wrong type or outside its range; the message names it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Settings of `python -m training.preference`."""

    model: str = ""  # directory of the policy whose backbone the preference model starts from; required
    seed: int = 0
    epochs: int = 1  # HH, IG and Secrets of RLHF all use one: the same pairs seen twice are learnt by heart
    learning_rate: float = 0.0  # 0 = from the width of the model, see preference.chosen_learning_rate
    batch_pairs: int = 16  # starter: 300 comparisons still give some 18 updates
    warmup_share: float = 0.1  # share of the updates; replaces Adam's bias-corrected first large steps (N 17)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # IG C.2: cosine to a tenth
    final_share: float = 0.1  # of the learning rate at the end (IG C.2)
    weight_decay: float = 0.01
    adam_beta2: float = 0.95  # IG C.4
    adam_eps: float = 1e-8  # 1e-5 makes PyTorch's early steps unlike those of the papers (N 17)
    max_grad_norm: float = 1.0
    lm_weight: float = 0.0  # weight of the language loss on the chosen reply; HH trains without it
    weakest_strength: int = 1  # comparisons at or below it are left out (HH 2.2); 0 keeps all
    held_out: float = 0.05  # share of conversations kept for the test when data/ has no test file (HH 2.3)
    max_tokens: int = 0  # prompt and longer reply together; 0 = the model's context. Longer pairs are dropped and counted
    calibration_bins: int = 10
    checkpoint_seconds: float = 30.0  # at most this much work is done twice after a kill
    checkpoint_steps: int = 0  # > 0: every so many updates instead
    threads: int = 0  # torch threads; 0 = as the environment says

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        at_least(self, 0, "seed", "learning_rate", "weight_decay", "lm_weight", "weakest_strength", "max_tokens")
        at_least(self, 0, "checkpoint_seconds", "checkpoint_steps", "threads")
        at_least(self, 1, "epochs", "batch_pairs", "calibration_bins")
        shares(self, "warmup_share", "final_share", "held_out", "adam_beta2")
        if self.max_grad_norm <= 0:
            raise BadConfig("max_grad_norm must be above 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Settings of `python -m training.policy`."""

    model: str = ""  # directory of the initial policy, which is also the frozen reference; required
    preference_model: str = ""  # directory of the preference model; required
    seed: int = 0
    episodes: int = 2000


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise BadConfig for the first named setting below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise BadConfig(f"{name} must be at least {least}, not {getattr(config, name)}")


def shares(config: Any, *names: str) -> None:
    """Raise BadConfig for the first named setting outside [0, 1]."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise BadConfig(f"{name} must lie between 0 and 1, not {getattr(config, name)}")


Config = TypeVar("Config")


def load_config(cls: type[Config], settings: Mapping[str, Any]) -> Config:
    """Build `cls` from `settings`; what is missing takes its default, an unknown key or a wrong type is a BadConfig."""
    kinds = typing.get_type_hints(cls)
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        raise BadConfig(f"unknown setting {unknown[0]!r}; {cls.__name__} knows {', '.join(sorted(kinds))}")
    try:
        return cls(**{name: _fitting(name, value, kinds[name]) for name, value in settings.items()})
    except TypeError as missing:
        raise BadConfig(f"{cls.__name__}: {missing}") from missing


def _fitting(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind` (bool, int, float, str, Literal, tuple, union of these) or raise BadConfig."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        if value in typing.get_args(kind) and not isinstance(value, bool):
            return value
        raise BadConfig(f"{name} must be one of {', '.join(map(repr, typing.get_args(kind)))}, not {value!r}")
    if origin in {types.UnionType, typing.Union}:
        for option in typing.get_args(kind):
            if option is type(None) and value is None:
                return None
            if option is not type(None):
                try:
                    return _fitting(name, value, option)
                except BadConfig:
                    continue  # the next option of the union may fit
        raise BadConfig(f"{name} must be {kind}, not {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_fitting(name, item, typing.get_args(kind)[0]) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python; a `true` where a number belongs is a mistake of whoever wrote the file
    if isinstance(value, kind if origin is None else origin) and isinstance(value, bool) == (kind is bool):
        return value
    raise BadConfig(f"{name} must be of type {getattr(kind, '__name__', kind)}, not {value!r}")
