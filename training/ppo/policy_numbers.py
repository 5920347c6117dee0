"""What is watched of a PPO iteration beside its losses (Zheng et al. 2023 §5.2 and App. A): rewards and losses hide a collapse."""

import math

import torch
from torch import Tensor

from training import objective
from training.sampling.rollouts import Rollout

QUANTILES = {"least": 0.0, "p05": 0.05, "p50": 0.5, "p95": 0.95, "most": 1.0}


def spread(name: str, x: Tensor) -> dict[str, float]:
    """The ends, the 5th, 50th and 95th percentile of [N]: a long tail shows here before it moves the mean."""
    return {f"{name}_{end}": float(torch.quantile(x.float(), share)) for end, share in QUANTILES.items()}


def divergence(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> dict[str, float]:
    """The KL to the reference by all three estimators, a reply and a token, and its root, in which the score is linear.

    The root is that of the third estimator, the one that is never negative.
    """
    estimates = dict(zip(("kl", "kl_k2", "kl_k3"), objective.kl_estimators(logp, ref_logp, mask), strict=True))
    found = {name: float(k.sum(1).mean()) for name, k in estimates.items()}
    found |= {f"{name}_per_token": float(k[mask].mean()) for name, k in estimates.items()}
    return found | {"sqrt_kl": math.sqrt(max(found["kl_k3"], 0.0))}


def experience_numbers(
    rollout: Rollout,
    raw_score: Tensor,
    reward: Tensor,
    value: Tensor,
    target: Tensor,
    advantage: Tensor,
    ref_logp: Tensor,
) -> dict[str, float]:
    """Scores, rewards, values, returns and advantages of a buffer; `advantage` before it is whitened, clipped or weighted."""
    mask = rollout.mask
    return {
        "score_mean": float(raw_score.mean()),
        "score_std": float(raw_score.std(unbiased=False)),
        **spread("score", raw_score),
        "reward_mean": float(reward.sum(1).mean()),
        "reward_std": float(reward.sum(1).std(unbiased=False)),
        **spread("reward", reward.sum(1)),
        **divergence(rollout.old_logp, ref_logp, mask),
        "perplexity_initial": math.exp(min(-float(ref_logp[mask].mean()), 700.0)),
        "value_mean": float(value[mask].mean()),
        "return_mean": float(target[mask].mean()),
        "advantage_mean": float(advantage[mask].mean()),
        "advantage_std": float(advantage[mask].std(unbiased=False)),
        "explained_variance": objective.explained_variance(value, target, mask),
    }
