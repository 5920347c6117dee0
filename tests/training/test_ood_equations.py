"""Distances from what inliers look like, by hand, and the area under a ROC curve."""

import pytest
import torch

from training.objective import Gaussian, auroc, fitted_gaussian, mahalanobis, simplified_relative_mahalanobis


def test_two_correlated_features_by_hand() -> None:
    """S = [[1, ½], [½, 1]], S⁻¹ = 4/3·[[1, -½], [-½, 1]]: against the correlation 4 - 2, along it 4/3 - 2."""
    inliers = Gaussian(torch.tensor([1.0, 1.0]).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double())
    x = torch.tensor([[2.0, 0.0], [2.0, 2.0], [1.0, 1.0]])
    assert mahalanobis(x, inliers).tolist() == pytest.approx([4.0, 4 / 3, 0.0])
    assert simplified_relative_mahalanobis(x, inliers).tolist() == pytest.approx([2.0, -2 / 3, 0.0])


def test_without_correlation_the_relative_distance_is_nothing() -> None:
    inliers = Gaussian(torch.zeros(5).double(), torch.diag(torch.tensor([1.0, 2.0, 0.1, 7.0, 3.0])).double())
    x = 10 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert float(simplified_relative_mahalanobis(x, inliers).abs().max()) < 1e-10
    assert float(mahalanobis(x, inliers).min()) > 0


def test_the_distance_does_not_depend_on_units() -> None:
    draw = torch.Generator().manual_seed(3)
    points, x = torch.randn(50, 3, generator=draw).double(), torch.randn(4, 3, generator=draw).double()
    units = torch.tensor([1.0, 10.0, 0.01]).double()
    plain, scaled = fitted_gaussian(points, 0.0), fitted_gaussian(points * units, 0.0)
    assert torch.allclose(
        simplified_relative_mahalanobis(x, plain), simplified_relative_mahalanobis(x * units, scaled), atol=1e-8
    )


def test_the_ridge_is_a_share_of_the_mean_variance() -> None:
    points = torch.tensor([[0.0, 0.0], [2.0, 4.0]])  # covariance [[2, 4], [4, 8]], singular; mean variance 5
    assert fitted_gaussian(points, 0.1).covariance.tolist() == [[2.5, 4.0], [4.0, 8.5]]
    assert fitted_gaussian(points, 0.1).mean.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="two points"):
        fitted_gaussian(points[:1], 0.1)


def test_the_area_by_hand() -> None:
    """Of four pairs the outlier is above in three and level in one; each side's placements are 1 and ¾."""
    area, variance = auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    assert area == 0.875
    assert variance == pytest.approx(2 * 0.03125 / 2)
    assert auroc(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0])) == (0.5, 0.0)
    assert auroc(torch.tensor([2.0]), torch.tensor([1.0]))[0] == 0.0


@pytest.mark.parametrize("none", [float("nan"), float("inf")])
def test_what_is_no_number_is_above_and_below_nothing(none: float) -> None:
    for inlier, outlier in ((none, 1.0), (1.0, none)):
        with pytest.raises(ValueError, match="not finite"):
            auroc(torch.tensor([inlier, 2.0]), torch.tensor([outlier, 3.0]))
