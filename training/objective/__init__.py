"""The equations of preference modelling and PPO, pure and in the papers' symbols.

Shapes: B replies, T token columns, K candidates; `mask` is True on the tokens of a reply (its end token included).
Values under a False mask never reach a result: losses select the true entries before any arithmetic, so that even a
NaN in the padding leaves value and gradient unchanged.
Sources: [Bai] Bai et al. 2022 (2204.05862); [Ouyang] Ouyang et al. 2022 (2203.02155); [PPO] Schulman et al. 2017
(1707.06347); [GAE] Schulman et al. 2016 (1506.02438); [Zheng] Zheng et al. 2023 (2307.04964); [Ziegler] Ziegler et al.
2019 (1909.08593); [Askell] Askell et al. 2021 (2112.00861); [Touvron] Touvron et al. 2023 (2307.09288); [KL] Schulman's
note on approximating KL divergence (2020).
"""

from training.objective.distillation import binned, distillation_loss, likeliest
from training.objective.elo import (
    POINTS_A_NAT,
    Strengths,
    clustered_covariance,
    comparable,
    fitted_strengths,
    wins,
    wins_log_likelihood,
)
from training.objective.groups import (
    bounded_weight,
    group_balance,
    group_leads,
    group_loss,
    group_returns,
    group_sizes,
    group_variance,
    group_weights,
    label_gradient,
)
from training.objective.ood import Gaussian, auroc, fitted_gaussian, mahalanobis, simplified_relative_mahalanobis
from training.objective.order_statistics import (
    best_of_kl,
    best_of_kl_heuristic,
    order_statistic_shares,
)
from training.objective.ppo import (
    LOG_RATIO_BOUND,
    adapted_kl_weight,
    advantages,
    clip_fraction,
    clipped_surrogate,
    entropy,
    entropy_loss,
    explained_variance,
    kl_estimators,
    log_ratio,
    pretraining_loss,
    returns,
    token_rewards,
    value_clip_fraction,
    value_error,
    whiten,
)
from training.objective.preference import binary_loss, kwise_loss, preference_loss

__all__ = [
    "LOG_RATIO_BOUND",
    "POINTS_A_NAT",
    "Gaussian",
    "Strengths",
    "adapted_kl_weight",
    "advantages",
    "auroc",
    "best_of_kl",
    "best_of_kl_heuristic",
    "binary_loss",
    "binned",
    "bounded_weight",
    "clip_fraction",
    "clipped_surrogate",
    "clustered_covariance",
    "comparable",
    "distillation_loss",
    "entropy",
    "entropy_loss",
    "explained_variance",
    "fitted_gaussian",
    "fitted_strengths",
    "group_balance",
    "group_leads",
    "group_loss",
    "group_returns",
    "group_sizes",
    "group_variance",
    "group_weights",
    "kl_estimators",
    "kwise_loss",
    "label_gradient",
    "likeliest",
    "log_ratio",
    "mahalanobis",
    "order_statistic_shares",
    "preference_loss",
    "pretraining_loss",
    "returns",
    "simplified_relative_mahalanobis",
    "token_rewards",
    "value_clip_fraction",
    "value_error",
    "whiten",
    "wins",
    "wins_log_likelihood",
]
