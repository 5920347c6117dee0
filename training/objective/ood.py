"""Which prompts lie outside of what a model knows.  N points of d features; shapes and sources: __init__.py."""

from typing import NamedTuple

import torch
from torch import Tensor

from training.objective.elo import wins


class Gaussian(NamedTuple):
    """What inliers look like at one layer, in float64."""

    mean: Tensor  # [d]
    covariance: Tensor  # [d, d]


def fitted_gaussian(inliers: Tensor, ridge: float) -> Gaussian:
    """Mean and covariance S + ridge · (tr S / d) · I of the inliers.  [N, d] -> [d], [d, d]

    With fewer points than features S has no inverse: the ridge gives every direction that was not seen the same small variance.
    """
    if len(inliers) < 2:
        raise ValueError("a covariance needs two points or more")
    points = inliers.double()
    covariance = torch.cov(points.T).reshape(points.shape[1], points.shape[1])
    identity = torch.eye(points.shape[1], dtype=torch.float64, device=points.device)
    return Gaussian(points.mean(0), covariance + ridge * covariance.trace() / points.shape[1] * identity)


def mahalanobis(x: Tensor, inliers: Gaussian) -> Tensor:
    """(x-μ)ᵀ S⁻¹ (x-μ).  [N, d] -> [N]"""
    away = x.double() - inliers.mean
    found: Tensor = (away * torch.linalg.solve(inliers.covariance, away.T).T).sum(1)
    return found


def simplified_relative_mahalanobis(x: Tensor, inliers: Gaussian) -> Tensor:
    """(x-μ)ᵀ S⁻¹ (x-μ) - (x-μ)ᵀ S_diag⁻¹ (x-μ)   ([Bai] §5.4).  [N, d] -> [N]

    What the features' dependence on each other adds to their distances one by one: 0 wherever S is diagonal.
    """
    away = x.double() - inliers.mean
    return mahalanobis(x, inliers) - (away.square() / inliers.covariance.diagonal()).sum(1)


def auroc(inlier: Tensor, outlier: Tensor) -> tuple[float, float]:
    """P(an outlier scores above an inlier), ties half, and its variance by placements (DeLong 1988).  [N], [M] -> ., .

    The area under the ROC curve; the variance is 0 where one of the two has a single point or the order is perfect.
    """
    if not bool(torch.cat([inlier, outlier]).isfinite().all()):
        raise ValueError("scores that are not finite have no order")  # a NaN would be taken for a tie
    above = wins(outlier.double()[:, None] - inlier.double()[None, :])  # [M, N]
    of_outliers, of_inliers = above.mean(1), above.mean(0)
    variance = sum(
        float(placed.var(unbiased=True)) / len(placed) for placed in (of_outliers, of_inliers) if len(placed) > 1
    )
    return float(above.mean()), float(variance)
