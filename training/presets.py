"""The PPO settings of the papers by name; each line says what the source fixes, the rest keeps our default.

Absolute learning rates of models a thousand times larger do not transfer, so no preset sets one but by a schedule.
"""

from typing import Any

# "starter": the defaults of PolicyConfig, measured on the shipped starter model (LAB.md has the runs).
PRESETS: dict[str, dict[str, Any]] = {
    "starter": {},
    # Bai et al. 2022 §4.1, App. B.1: r - 0.001·KL of the whole reply, ε 0.2, γ 1, no entropy bonus, K = 1 in the main scan,
    # replies of up to 128 tokens. The paper only shifts scores by their mean; our preference models come shifted and divided
    # by their deviation as well, so β is in those units here.
    "hh_rlhf": {
        "kl_weight": 0.001,
        "inner_epochs": 1,
        "critic_pretraining": 0,
        "score_normalisation": "none",
        "score_clip": 0.0,
        "missing_end_penalty": 0.0,
        "value_clip": 0.0,
        "lam": 1.0,
        "whiten_advantages": False,
        "approx_kl_stop": 0.0,
        "schedule": "constant",
        "max_new_tokens": 128,
    },
    # Ouyang et al. 2022 §3.5, App. C: β 0.02 a token, batch 512, minibatch 64, one inner epoch, constant rate after ten
    # iterations of warm-up, value function from the reward model. The plain "PPO" of the paper, without the pretraining term
    # and without its moving average of the weights.
    "instructgpt": {
        "kl_weight": 0.02,
        "rollout_replies": 512,
        "minibatch_replies": 64,
        "inner_epochs": 1,
        "critic_pretraining": 0,
        "warmup_iterations": 10,
        "schedule": "constant",
        "score_normalisation": "none",
        "score_clip": 0.0,
        "missing_end_penalty": 0.0,
        "whiten_advantages": False,
        "lam": 0.95,
        "approx_kl_stop": 0.0,
    },
    # Zheng et al. 2023 §5.4 and Fig. 5, the starred items: token KL 0.05, scores normalised and clipped, value clipping,
    # critic pretraining, GAE 0.9, ratio and gradient clipping; 128 samples a rollout, 32 an update; no advantage whitening.
    # The language loss on pretraining text, starred too, is not among our objectives.
    "ppo_max": {
        "kl_weight": 0.05,
        "rollout_replies": 128,
        "minibatch_replies": 32,
        "inner_epochs": 1,
        "critic_pretraining": 4,
        "warmup_iterations": 0,
        "schedule": "constant",
        "score_normalisation": "running",
        "score_clip": 0.8,
        "missing_end_penalty": 0.0,
        "whiten_advantages": False,
        "lam": 0.9,
        "approx_kl_stop": 0.0,
    },
    # The released English script of the same authors, which is not their paper: scores divided by the running deviation,
    # no clip, β 0.01, GAE 0.95, no critic pretraining, one pass over a rollout that is one update.
    "moss_script": {
        "kl_weight": 0.01,
        "rollout_replies": 128,
        "minibatch_replies": 128,
        "inner_epochs": 1,
        "critic_pretraining": 0,
        "schedule": "constant",
        "score_normalisation": "scale",
        "score_clip": 0.0,
        "missing_end_penalty": 0.0,
        "whiten_advantages": False,
        "approx_kl_stop": 0.0,
    },
    # PPO without any of the tricks, the baseline that collapses (Zheng et al. 2023 §5.2).
    "vanilla": {
        "kl_weight": 0.0,
        "inner_epochs": 4,
        "critic_pretraining": 0,
        "warmup_iterations": 0,
        "schedule": "constant",
        "score_normalisation": "none",
        "score_clip": 0.0,
        "missing_end_penalty": 0.0,
        "value_clip": 0.0,
        "whiten_advantages": False,
        "max_grad_norm": 1e9,
        "approx_kl_stop": 0.0,
    },
}
