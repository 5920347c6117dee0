"""The PPO settings of the papers by name; each line says what the source fixes, the rest keeps our default.

Absolute learning rates of models a thousand times larger do not transfer (HH 0.01 of pretraining's, IG 9.65e-6 for 1.3B,
PM 5e-7 for 7B), so no preset sets one but by a schedule: the default was measured on the starter, and a model of another size
wants learning_rate and critic_learning_rate given. docs/researcher.md has the presets side by side.
"""

from typing import Any

# Every trick off; each preset switches on what its source has.
_PLAIN: dict[str, Any] = {
    "inner_epochs": 1,
    "critic_pretraining": 0,
    "warmup_iterations": 0,
    "schedule": "constant",
    "score_normalisation": "none",
    "score_clip": 0.0,
    "missing_end_penalty": 0.0,
    "value_clip": 0.0,
    "whiten_advantages": False,
    "approx_kl_stop": 0.0,
}

# Ouyang et al. 2022 §3.5, App. C: β 0.02 a token, batch 512, minibatch 64, one inner epoch, constant rate after ten
# iterations of warm-up from a tenth, value function from the reward model, Adam (0.9, 0.95), ε 0.2, an average of the weights
# with decay 0.992. Replies of up to 1k tokens in a context of 2k are not set: smaller models could not run. Value clipping
# and GAE λ are not in the paper: Stiennon et al. 2020, whose setting it takes over, have 0.95.
_INSTRUCTGPT: dict[str, Any] = _PLAIN | {
    "kl_weight": 0.02,
    "rollout_replies": 512,
    "minibatch_replies": 64,
    "warmup_iterations": 10,
    "value_clip": 0.2,
    "lam": 0.95,
    "weight_average": 0.992,
}

# The released scripts of Zheng et al. (train_ppo_en.sh, train_ppo_zh.sh), which are not their paper: scores divided by the
# running deviation, no clip, GAE 0.95, value and ratio clip 0.2, no critic pretraining, 1/√t after 100 of 1,000 steps of
# warm-up, Adam ε 1e-6 for the policy; two samples a device on seven devices are a buffer that is one update. Left out: top-p
# 0.9 and the repetition penalty 1.1 of the sampler (docs/decisions.md).
_MOSS: dict[str, Any] = _PLAIN | {
    "rollout_replies": 14,
    "minibatch_replies": 14,
    "warmup_share": 0.1,
    "schedule": "inverse_sqrt",
    "score_normalisation": "scale",
    "value_clip": 0.2,
    "lam": 0.95,
    "temperature": 0.8,
    "max_new_tokens": 512,
    "adam_eps": 1e-6,
}

# Zheng et al. 2023 §5.4 and Fig. 5, the starred items: token KL 0.05, scores normalised and clipped, value clipping, critic
# pretraining, GAE 0.9, ratio and gradient clipping, 128 samples a buffer, 32 an update; no advantage whitening, no entropy
# bonus. The language loss on pretraining text is starred too, without a number: ptx_weight and data/pretraining.jsonl add it.
# The critic's pretraining takes the place of a warm-up of the rate.
_PPO_MAX: dict[str, Any] = _PLAIN | {
    "kl_weight": 0.05,
    "rollout_replies": 128,
    "minibatch_replies": 32,
    "critic_pretraining": 8,
    "critic_pretraining_patience": 2,
    "score_normalisation": "running",
    "score_clip": 0.8,
    "value_clip": 0.2,
    "lam": 0.9,
}

PRESETS: dict[str, dict[str, Any]] = {
    # the defaults of PolicyConfig, measured on the shipped starter model (LAB.md has the runs)
    "starter": {},
    # Bai et al. 2022 §4.1, App. B.1: r - 0.001·KL of the whole reply, ε 0.2, γ 1, no entropy bonus, K = 1 in the main scan,
    # replies of up to 128 tokens. β is in nats of log-odds, the units of a preference model of the preset hh_rlhf; one of the
    # starter's is divided by its deviation as well. λ 1 is ours: the paper names no other estimator than the return.
    "hh_rlhf": _PLAIN | {"kl_weight": 0.001, "kl_unit": "reply", "lam": 1.0, "max_new_tokens": 128},
    "instructgpt": _INSTRUCTGPT | {"ptx_weight": 27.8, "ptx_ratio": 8.0},
    "instructgpt_ppo": _INSTRUCTGPT,  # the paper's plain "PPO": γ 0
    "ppo_max": _PPO_MAX,
    "moss_en": _MOSS | {"kl_weight": 0.01},
    "moss_zh": _MOSS | {"kl_weight": 0.1},
    # Clipped PPO with GAE and a critic from the preference model, without KL, normalisation, clipping of scores, values or
    # gradients: the baseline that collapses (Zheng et al. 2023 §5.2); four passes are ours
    "vanilla": _PLAIN | {"kl_weight": 0.0, "inner_epochs": 4, "lam": 0.95, "max_grad_norm": 0.0},
    # Zheng et al. 2023 (2310.11971) on the settings of PPO-max; the weights are ours, since the paper prints none
    "group_invariant": _PPO_MAX
    | {"groups": 2, "group_critic_weight": 1.0, "group_policy_weight": 0.1, "group_kl": True},
}
