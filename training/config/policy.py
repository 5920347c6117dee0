"""Settings of the policy job."""

import dataclasses
from typing import Literal

from training.config.adapter import AdapterConfig
from training.config.loading import BadConfig, above_zero, at_least, shares

Preset = Literal[
    "starter",
    "hh_rlhf",
    "instructgpt",
    "instructgpt_ppo",
    "ppo_max",
    "moss_en",
    "moss_zh",
    "vanilla",
    "group_invariant",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig(AdapterConfig):
    """Settings of `python -m training.policy`; PM = Zheng et al. 2023, "Secrets of RLHF I" (2307.04964); PM-code = the code
    its authors released (MOSS-RLHF); GI = Zheng et al. 2023, "group invariant learning" (2310.11971).

    Each trick of PM has a switch of its own; one that is a number is off at 0. A preset replaces the defaults below by a
    paper's (training/ppo/presets.py); what config.json names itself goes before both.
    """

    model: str = ""  # directory of the initial policy, which is also the frozen reference; required
    preference_model: str = ""  # directory of the preference model; required. Same tokenizer as `model`
    preset: Preset = "starter"  # ours: what the starter needs, of all papers
    seed: int = 0  # ours
    # -- how much
    episodes: int = 1536  # replies sampled and learnt from in all; critic pretraining comes on top; starter
    rollout_replies: int = 64  # replies of a rollout; a small buffer stays on-policy (PM 5.4)
    # rollouts gathered before the policy learns from them (PM-code num_rollouts); more = staler
    buffer_rollouts: int = 1
    minibatch_replies: int = 32  # of one step; PM 5.4
    inner_epochs: int = 2  # passes over each buffer; HH's K: 1 (main scan), 2, 4 (online); IG and PM 1
    critic_pretraining: int = 2  # iterations in which the critic alone learns (PM 5.3: removes the early noise)
    # > 0: it ends sooner, once the value loss has not fallen by a hundredth for so many iterations (PM: until it is low)
    critic_pretraining_patience: int = 0
    # share of the prompts of each mode, such as {"helpful": 2, "red_team": 1}; empty: as they stand in the file.
    # HH 4.4: a larger fraction of helpful prompts, since the harmless score saturates and the helpful one does not
    prompt_weights: dict[str, float] = dataclasses.field(default_factory=dict)
    # -- sampling
    max_new_tokens: int = 112  # starter: its longest replies; HH 128
    temperature: float = 1.0  # divided out of new, old and reference log-probabilities alike (N)
    slots: int = 64  # replies written at once; ours
    # -- reward
    kl_weight: float = 0.02  # β in score units per nat; 0 = no penalty (IG 0.02)
    kl_unit: Literal["token", "reply"] = "token"  # where it is taken off: each token (IG, PM) or the reply's end (HH)
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"  # of the penalty; HH, IG and PM all take log π/π₀
    kl_target: float = 0.0  # nats per reply; above 0 β adapts to hold it (Ziegler et al. 2019)
    kl_horizon: float = 10_000.0  # episodes over which an adaptive β may change by a fifth (Ziegler et al. 2019)
    # "scale" divides only; "running" removes the mean too; PM eq. 18
    score_normalisation: Literal["none", "scale", "running"] = "running"
    score_clip: float = 5.0  # in standard deviations after normalisation, 0 = off; PM 0.8, DeepSpeed-Chat 5
    missing_end: Literal["subtract", "replace"] = "subtract"  # what happens to the score of a reply that was cut (N)
    # taken from the normalised score, or, to "replace", what stands for it, negated; N
    missing_end_penalty: float = 1.0
    # of the tokens of a buffer to a deviation of 1, their mean kept; before the advantages (N 12; in no preset)
    whiten_rewards: bool = False
    # -- advantages
    gamma: float = 1.0  # HH, IG: no discount
    lam: float = 0.95  # of the advantage estimator; N; PM 0.9
    whiten_advantages: bool = True  # over the whole buffer; PM-code a minibatch
    advantage_clip: float = 0.0  # 0 = off; PM-code 0.5, after whitening
    # -- learning
    learning_rate: float = 2e-4  # starter: a model of millions, not billions, of weights
    critic_learning_rate: float = 4e-4  # starter; twice the policy's, PM three times
    warmup_iterations: int = 3  # below the full rate, in equal steps up from `warmup_floor` (IG ten)
    warmup_share: float = 0.0  # of all iterations, where that is more (PM a tenth)
    warmup_floor: float = 0.1  # share of the rate in the first iteration (IG, PM-code)
    # falling to `final_share` in a line (N: annealed) or a half cosine; as 1/√iteration after the warm-up (PM-code); or by half
    # every `halving_episodes` (HH online)
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt", "halving"] = "linear"
    halving_episodes: int = 100_000  # HH B.1
    final_share: float = 0.1  # of the rate after the last iteration of "linear" and "cosine"; N anneals to 0; ours
    # where the critic begins: the preference model (IG, PM), the initial policy with a fresh head (PM 5.3.3: converges
    # alike), or no network of its own but a head on the policy's trunk ("shared")
    critic: Literal["pm", "policy", "shared"] = "pm"
    value_weight: float = 0.1  # of the value loss where the trunk is shared (N 0.1)
    clip: float = 0.2  # ε of the ratio (HH, IG); 0 = the plain ratio
    dual_clip: float = 0.0  # c > 1 of Ye et al. 2020 (1912.09729), which take 3; 0 = off
    # what the ratio is to: the policy that sampled, the frozen reference (PM 5.3.2: as if the buffer were endless), or
    # "off", ratio 1 with the gradient of log π, which is right for the first update of an iteration only
    importance_sampling: Literal["sampler", "reference", "off"] = "sampler"
    value_clip: float = 0.2  # 0 = off; never while the critic learns alone; N, PM-code
    entropy_weight: float = 0.0  # of an entropy bonus; HH none, PM not among its starred tricks
    entropy_threshold: float = 0.0  # > 0: the loss is |E[H] - threshold| (PM B.3, where a tenth more or less decided)
    max_grad_norm: float = 1.0  # 0 = off; PM-code
    adam_beta1: float = 0.9  # IG C.4
    adam_beta2: float = 0.95  # IG C.4
    adam_eps: float = (
        1e-8  # PyTorch's; TensorFlow's 1e-5 is of a form without bias correction, so other early steps (N 17)
    )
    critic_adam_eps: float = 1e-8  # PM-code 1e-8 beside 1e-6 for the policy
    # nats per token between new and sampling policy that end an iteration's passes; 0 = off; ours
    approx_kl_stop: float = 0.1
    # -- pretraining text (PPO-ptx, IG eq. 2): reads data/pretraining.jsonl(.gz)
    ptx_weight: float = 0.0  # γ on the mean log-probability of a token; IG 27.8, 0 = plain PPO
    ptx_ratio: float = 8.0  # pieces of pretraining text per episode of an update (IG)
    ptx_tokens: int = 128  # of a piece; longer texts become several; ours
    # -- average of the weights
    weight_average: float = 0.0  # decay an update of the average that is evaluated and saved (IG 0.992); 0 = the last
    # -- group-invariant learning (GI); the paper prints none of its numbers, so all of these are ours
    groups: int = 0  # M inferred groups; 0 = off; GI 2
    # whether the groups' gradient reaches the critic's trunk; ours
    group_features: Literal["detached", "critic"] = "detached"
    # β_critic on the variance of the groups' returns, which the group head maximises; ours
    group_critic_weight: float = 1.0
    group_balance: float = 0.0  # weight of the entropy of the groups' shares, against an empty group; ours
    group_policy_weight: float = 0.0  # β_policy on the same variance, which the policy minimises; 0 = off; ours
    # times an even share of the replies 1/M: a smaller group is never the high-return one, and weighs as if it were as large; ours
    group_floor: float = 0.4
    group_kl: bool = False  # multiply each reply's KL penalty by its probability of the high-return group; ours: off
    variance_over: Literal["groups", "replies"] = "groups"  # "replies": the penalty without groups, as a control; ours
    # -- collapse: far from the reference with longer and surer replies, or much longer ones, over a window stops the run (PM 5.2)
    collapse_alarm: bool = True  # ours, after PM 5.2
    collapse_window: int = 3  # iterations; ours
    collapse_length: float = 1.8  # times the first window's mean length; ours
    # times that length, or nearly max_new_tokens: whatever the perplexity (ours: ppo/collapse.py)
    collapse_runaway: float = 2.5
    collapse_perplexity: float = 0.7  # times the first window's perplexity, less one; ours
    collapse_kl: float = 0.5  # nats per token; ours
    # of log(vocabulary), nats per token: so much less likely than its own does the initial policy find noise (ours: ppo/collapse.py)
    collapse_noise: float = 0.5
    # -- evaluation on held-out prompts
    held_out: float = 0.1  # share of prompts never trained on, when data/ has no held_out.jsonl; ours
    evaluation_prompts: int = 200  # at most so many; ours
    checkpoint_seconds: float = 20.0  # between checkpoints; more where one takes long (runs/cadence.py); ours
    checkpoint_steps: int = 0  # > 0: every so many iterations instead; ours
    # of the matrix products of policy, reference, preference model and critic; auto: see device.py; ours, measured
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # whether blocks of policy and critic are computed again in the backward pass: less memory, a third more work; ours
    gradient_checkpointing: bool = False
    # of several processes: all hold all four models, or each its part of their blocks (FSDP2); ours
    sharding: Literal["none", "full"] = "none"
    threads: int = 0  # torch threads; 0 = as the environment says; ours

    @property
    def iteration_replies(self) -> int:
        """Replies between two changes of the policy that samples."""
        return self.rollout_replies * self.buffer_rollouts

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 1, "episodes", "rollout_replies", "minibatch_replies", "inner_epochs", "max_new_tokens", "slots")
        at_least(self, 1, "collapse_window", "evaluation_prompts", "buffer_rollouts", "halving_episodes", "ptx_tokens")
        at_least(self, 0, "seed", "critic_pretraining", "kl_weight", "kl_target", "score_clip", "missing_end_penalty")
        at_least(self, 0, "warmup_iterations", "value_weight", "value_clip", "approx_kl_stop", "checkpoint_seconds")
        at_least(self, 0, "checkpoint_steps", "threads", "learning_rate", "critic_learning_rate", "collapse_kl")
        at_least(self, 0, "critic_pretraining_patience", "advantage_clip", "clip", "max_grad_norm", "entropy_threshold")
        at_least(self, 0, "ptx_weight", "groups", "group_critic_weight", "group_balance", "group_policy_weight")
        shares(self, "gamma", "lam", "adam_beta1", "adam_beta2", "held_out", "warmup_share", "warmup_floor")
        shares(self, "weight_average", "group_floor", "final_share")
        above_zero(self, "temperature", "kl_horizon", "adam_eps", "critic_adam_eps", "ptx_ratio")
        above_zero(self, "collapse_length", "collapse_runaway", "collapse_perplexity", "collapse_noise")
        if self.weight_average == 1:
            raise BadConfig(
                "weight_average 1 would never leave the initial policy; give a decay below 1, such as 0.992"
            )
        if self.dual_clip and self.dual_clip <= 1:
            raise BadConfig(f"dual_clip must be 0 (off) or above 1, not {self.dual_clip}")
        if any(weight < 0 for weight in self.prompt_weights.values()) or (
            self.prompt_weights and not any(self.prompt_weights.values())
        ):
            raise BadConfig("prompt_weights must be numbers of at least 0, one of them above")
        if self.groups == 1:
            raise BadConfig("groups must be 0 (off) or at least 2: the returns of one group have no variance")
        if not self.groups and (self.group_kl or (self.group_policy_weight and self.variance_over == "groups")):
            raise BadConfig("group_kl and group_policy_weight need groups to work on; set groups to 2")
        if self.lora_dropout:
            raise BadConfig("lora_dropout must be 0 here: old and new log-probabilities must not be drawn by lot")
        if self.entropy_threshold and not self.entropy_weight:
            raise BadConfig("entropy_threshold bends an entropy bonus that is off; set entropy_weight above 0")
        if self.kl_target and self.kl_weight == 0:
            raise BadConfig("kl_target adapts kl_weight by factors, which cannot move it away from 0; give both")
