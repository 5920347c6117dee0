"""Settings of the policy job."""

import dataclasses
from typing import Literal

from training.config.loading import above_zero, at_least, shares


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
