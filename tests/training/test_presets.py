"""The presets hold the numbers that their papers print, typed here once more from the papers."""

import dataclasses
import math
from typing import Any

import pytest

from training.config import SFT_PRESETS, PolicyConfig, PreferenceConfig, SftConfig, load_config
from training.config.preference import PRESETS as PREFERENCE_PRESETS
from training.ppo.presets import PRESETS as POLICY_PRESETS
from training.ppo.rates import too_short

JOBS: dict[str, tuple[type[Any], dict[str, dict[str, Any]]]] = {
    "policy": (PolicyConfig, POLICY_PRESETS),
    "preference": (PreferenceConfig, PREFERENCE_PRESETS),
    "sft": (SftConfig, SFT_PRESETS),
}
# Ouyang et al. 2022, §3.5, C.4: β 0.02 a token; batch 512, minibatch 64, one inner epoch; ε 0.2; T 1; no discount; constant
# rate after ten iterations of warm-up from a tenth; average of the weights 0.992; Adam (0.9, 0.95); value function from the RM
INSTRUCTGPT = {
    "kl_weight": 0.02, "kl_unit": "token", "rollout_replies": 512, "buffer_rollouts": 1, "minibatch_replies": 64,
    "inner_epochs": 1, "clip": 0.2, "temperature": 1.0, "gamma": 1.0, "schedule": "constant", "warmup_iterations": 10,
    "warmup_floor": 0.1, "weight_average": 0.992, "adam_beta1": 0.9, "adam_beta2": 0.95, "critic": "pm",
    "entropy_weight": 0.0, "whiten_advantages": False, "score_normalisation": "none",
}  # fmt: skip
# MOSS-RLHF's scripts: λ 0.95, γ 1; scores divided by the running deviation, neither mean nor clip; value and ratio clip 0.2;
# one pass over a buffer, which is one update: two samples on each of seven devices (CUDA_VISIBLE_DEVICES, num_rollouts and
# batch_size of train_ppo_zh.sh); gradient clip 1; Adam (0.9, 0.95), ε 1e-6 for the policy (config_ppo.py); 100 of 1,000 steps of
# warm-up, 1/√t with a floor of 0.1; T 0.8; 512 tokens; no pretraining text
MOSS = {
    "lam": 0.95, "gamma": 1.0, "score_normalisation": "scale", "score_clip": 0.0, "value_clip": 0.2, "clip": 0.2,
    "inner_epochs": 1, "max_grad_norm": 1.0, "adam_beta1": 0.9, "adam_beta2": 0.95, "schedule": "inverse_sqrt",
    "warmup_floor": 0.1, "warmup_share": 0.1, "temperature": 0.8, "max_new_tokens": 512, "ptx_weight": 0.0,
    "critic_pretraining": 0, "kl_unit": "token", "rollout_replies": 14, "buffer_rollouts": 1, "minibatch_replies": 14,
    "adam_eps": 1e-6, "critic_adam_eps": 1e-8,
}  # fmt: skip
# Zheng et al. 2023, Fig. 5 (starred), §5.3.2-5.4, C.3: token KL 0.05; scores less their running mean over their deviation,
# clipped at 0.8; value and ratio clip; critic from the RM and pretrained until its loss is near 0, in place of a warm-up (no number
# is printed: up to eight iterations, ended by two without a lower loss, are ours); λ 0.9; gradient clip; buffer 128, update 32;
# neither whitened advantages nor an entropy bonus
PPO_MAX = {
    "kl_weight": 0.05, "kl_unit": "token", "score_normalisation": "running", "score_clip": 0.8, "value_clip": 0.2,
    "clip": 0.2, "critic": "pm", "lam": 0.9, "max_grad_norm": 1.0, "rollout_replies": 128, "minibatch_replies": 32,
    "whiten_advantages": False, "advantage_clip": 0.0, "entropy_weight": 0.0, "warmup_iterations": 0,
    "importance_sampling": "sampler", "critic_pretraining": 8, "critic_pretraining_patience": 2,
}  # fmt: skip
PAPERS: dict[tuple[str, str], dict[str, Any]] = {
    # Bai et al. 2022, §4.1, B.1: λ_KL 0.001 on the reply, ε 0.2, γ 1, no entropy bonus, K 1, up to 128 tokens
    ("policy", "hh_rlhf"): {
        "kl_weight": 0.001, "kl_unit": "reply", "clip": 0.2, "gamma": 1.0, "entropy_weight": 0.0, "inner_epochs": 1,
        "max_new_tokens": 128, "score_normalisation": "none", "temperature": 1.0,
    },
    ("policy", "instructgpt"): INSTRUCTGPT | {"ptx_weight": 27.8, "ptx_ratio": 8.0},
    ("policy", "instructgpt_ppo"): INSTRUCTGPT | {"ptx_weight": 0.0},
    ("policy", "ppo_max"): PPO_MAX | {"groups": 0},
    ("policy", "moss_en"): MOSS | {"kl_weight": 0.01},
    ("policy", "moss_zh"): MOSS | {"kl_weight": 0.1},
    # §5.2: none of the tricks
    ("policy", "vanilla"): {
        "kl_weight": 0.0, "score_normalisation": "none", "score_clip": 0.0, "value_clip": 0.0, "max_grad_norm": 0.0,
        "critic_pretraining": 0, "whiten_advantages": False, "entropy_weight": 0.0, "clip": 0.2,
    },
    # Zheng et al. 2023 (2310.11971): two groups on the settings of PPO-max, with the adaptive penalty
    ("policy", "group_invariant"): PPO_MAX | {"groups": 2, "group_kl": True, "variance_over": "groups"},
    # Bai et al. 2022, §2.2-2.3, A.2: one epoch, weakest grade dropped, context 1024, 95/5, end-of-context score, no LM term
    ("preference", "hh_rlhf"): {
        "epochs": 1, "objective": "ranked", "weakest_strength": 1, "strength_as": "filter", "max_tokens": 1024,
        "held_out": 0.05, "lm_weight": 0.0, "split_by": "conversation", "scale": "none",
    },
    # Ouyang et al. 2022, §3.5, C.2: 64 prompts a batch with all their pairs, cosine to a tenth, one epoch, ties dropped
    ("preference", "instructgpt"): {
        "epochs": 1, "grouping": "grouped", "batch_prompts": 64, "schedule": "cosine", "final_share": 0.1,
        "shift_on": "demonstrations", "weakest_strength": 0, "scale": "none",
    },
    # Askell et al. 2021, §4; Bai et al. 2022, A.2: one epoch of binarised pairs, context 1024
    ("preference", "pmp"): {"epochs": 1, "stage": "pmp", "pmp_pairs": "binarised", "max_tokens": 1024},
    # Zheng et al. 2023, §3.1, §4.2: β_rm 1 on the language loss of the better reply, a tenth of warm-up
    ("preference", "moss"): {"lm_weight": 1.0, "warmup_share": 0.1, "objective": "ranked", "epochs": 1, "scale": "none"},
    # Ouyang et al. 2022, §3.5, C.1: 16 epochs, cosine to a tenth, no warm-up, dropout 0.2, batch 32
    ("sft", "instructgpt"): {
        "epochs": 16, "schedule": "cosine", "final_share": 0.1, "warmup_share": 0.0, "dropout": 0.2,
        "batch_sequences": 32, "turns": "last",
    },
    # C.3: 2 epochs, a tenth of pretraining text
    ("sft", "instructgpt_rl_init"): {"epochs": 2, "pretraining_share": 0.1, "dropout": 0.0},
    # Zheng et al. 2023, §5.1: 2 epochs, cosine to a tenth, batch 1024
    ("sft", "moss"): {"epochs": 2, "schedule": "cosine", "final_share": 0.1, "batch_sequences": 1024, "turns": "all"},
}  # fmt: skip


@pytest.mark.parametrize(("job", "preset"), PAPERS, ids=lambda part: part)
def test_a_preset_says_what_its_paper_prints(job: str, preset: str) -> None:
    cls, presets = JOBS[job]
    config = dataclasses.asdict(load_config(cls, presets[preset]))
    printed = PAPERS[job, preset]
    assert {name: config[name] for name in printed} == printed


def test_every_preset_is_held_against_its_paper_and_none_sets_an_absolute_rate() -> None:
    there = {(job, name) for job, (_, presets) in JOBS.items() for name in presets if name != "starter"}
    assert there == set(PAPERS)
    for _, presets in JOBS.values():
        for settings in presets.values():  # rates of models a thousand times larger would teach small ones nothing
            assert not {"learning_rate", "critic_learning_rate", "lm_learning_rate"} & set(settings)


def test_a_run_that_is_too_short_for_its_settings_is_told_what_to_set() -> None:
    def told(preset: str, **settings: Any) -> list[str]:
        config = load_config(PolicyConfig, POLICY_PRESETS[preset] | settings)
        return too_short(config, math.ceil(config.episodes / config.iteration_replies))

    warm, average = told("instructgpt")  # three iterations of 512 replies, eight updates each: 0.992²⁴ = 0.82
    assert "all 3 iterations are of the warm-up of 10: set episodes to some times 5120" in warm
    assert (
        "82% the initial policy after 24 updates: set episodes to at least 5632, or weight_average to at most 0.971"
        in average
    )
    assert told("instructgpt", episodes=5632) == []  # 11 iterations, 88 updates
    assert len(told("instructgpt", episodes=5120)) == 2
    assert told("instructgpt", warmup_iterations=1, weight_average=0.971) == []
    assert [preset for preset in POLICY_PRESETS if told(preset)] == ["instructgpt", "instructgpt_ppo"]
