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
    max_tokens: int = 0  # prompt and longer reply together; 0 = the model's context. Oldest turns go first, counted
    calibration_bins: int = 10
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of the matrix products; auto: bfloat16 on a GPU alone
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
    """Settings of `python -m training.policy`; PM = Zheng et al. 2023, "Secrets of RLHF I" (2307.04964).

    A preset replaces the defaults below by a paper's (training/presets.py); what config.json names itself goes before both.
    """

    model: str = ""  # directory of the initial policy, which is also the frozen reference; required
    preference_model: str = ""  # directory of the preference model; required. Same tokenizer as `model`
    preset: Literal["starter", "hh_rlhf", "instructgpt", "ppo_max", "moss_script", "vanilla"] = "starter"
    seed: int = 0
    # -- how much
    episodes: int = 1536  # replies sampled and learnt from in all; critic pretraining comes on top
    rollout_replies: int = 64  # replies an iteration; a small buffer stays on-policy (PM 5.4)
    minibatch_replies: int = 32
    inner_epochs: int = 2  # passes over each rollout; HH used 1, 2 and 4
    critic_pretraining: int = 2  # iterations in which the critic alone learns (PM 5.3: removes the early noise)
    # -- sampling
    max_new_tokens: int = 112  # starter: its longest replies; HH 128
    temperature: float = 1.0  # divided out of new, old and reference log-probabilities alike (N)
    slots: int = 64  # replies written at once
    # -- reward
    kl_weight: float = 0.02  # β in score units per nat, on each token's log π/π₀ (IG 0.02; their sum is HH's total KL)
    kl_target: float = 0.0  # nats per reply; above 0 β adapts to hold it (Ziegler et al. 2019)
    kl_horizon: float = 10_000.0  # episodes over which an adaptive β may change by a fifth
    score_normalisation: Literal["none", "scale", "running"] = (
        "running"  # "scale" divides only; "running" removes the mean too
    )
    score_clip: float = 5.0  # in standard deviations after normalisation, 0 = off; PM 0.8, DeepSpeed-Chat 5
    missing_end_penalty: float = 1.0  # taken from the normalised score of a reply that was cut at max_new_tokens
    # -- learning
    learning_rate: float = 2e-4  # starter: a model of millions, not billions, of weights
    critic_learning_rate: float = 4e-4
    warmup_iterations: int = 3  # below the full rate, in equal steps up from a tenth (IG: ten, from a tenth)
    schedule: Literal["constant", "linear"] = "linear"  # falling towards a tenth; IG constant, N annealed
    critic: Literal["separate", "shared"] = "separate"  # own network from the preference model, or a head on the policy
    value_weight: float = 0.1  # of the value loss where the trunk is shared (N 0.1)
    clip: float = 0.2  # ε of the ratio (HH, IG)
    value_clip: float = 0.2  # 0 = off; never while the critic learns alone
    gamma: float = 1.0  # HH, IG: no discount
    lam: float = 0.95  # N; PM 0.9
    whiten_advantages: bool = True
    max_grad_norm: float = 1.0
    adam_beta2: float = 0.95  # IG C.4
    adam_eps: float = 1e-8  # PyTorch's 1e-5 makes early steps unlike those of the papers; warm-up does the rest (N 17)
    approx_kl_stop: float = (
        0.1  # nats per token between new and sampling policy that end an iteration's passes; 0 = off
    )
    # -- collapse: all three at once over a window stop the run (PM 5.2: reward and losses do not show it)
    collapse_window: int = 3  # iterations
    collapse_length: float = 1.8  # times the first window's mean length
    collapse_perplexity: float = 0.7  # times the first window's perplexity, less one
    collapse_kl: float = 0.5  # nats per token
    # -- evaluation on held-out prompts
    held_out: float = 0.1  # share of prompts never trained on, when data/ has no held_out.jsonl
    evaluation_prompts: int = 200  # at most so many
    checkpoint_seconds: float = 20.0  # at most this much work is done twice after a kill
    checkpoint_steps: int = 0  # > 0: every so many iterations instead
    threads: int = 0  # torch threads; 0 = as the environment says

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        at_least(self, 1, "episodes", "rollout_replies", "minibatch_replies", "inner_epochs", "max_new_tokens", "slots")
        at_least(self, 1, "collapse_window", "evaluation_prompts")
        at_least(self, 0, "seed", "critic_pretraining", "kl_weight", "kl_target", "score_clip", "missing_end_penalty")
        at_least(self, 0, "warmup_iterations", "value_weight", "value_clip", "approx_kl_stop", "checkpoint_seconds")
        at_least(self, 0, "checkpoint_steps", "threads", "learning_rate", "critic_learning_rate", "collapse_kl")
        shares(self, "gamma", "lam", "adam_beta2", "held_out")
        above_zero(self, "temperature", "clip", "kl_horizon", "max_grad_norm", "adam_eps")
        above_zero(self, "collapse_length", "collapse_perplexity")


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


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise BadConfig for the first named setting below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise BadConfig(f"{name} must be at least {least}, not {getattr(config, name)}")


def above_zero(config: Any, *names: str) -> None:
    """Raise BadConfig for the first named setting that is not above 0."""
    for name in names:
        if getattr(config, name) <= 0:
            raise BadConfig(f"{name} must be above 0, not {getattr(config, name)}")


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
