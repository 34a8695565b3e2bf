import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from stylegan.metrics.frechet import frechet_distance, gaussian_frechet_distance
from stylegan.metrics.moments import Moments


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def of(features: Tensor) -> Moments:
    result = Moments(features.shape[1])
    result.update(features)
    return result


def random_rotation(width: int) -> Tensor:
    return torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q


def correlated(num: int, width: int, *, scale: float) -> Tensor:
    """Rows whose deviations fall over two decades, as those of a network's features do."""
    mixing = torch.randn(width, width, dtype=torch.float64) / width**0.5
    decay = torch.logspace(0, -2, width, dtype=torch.float64)
    return scale * torch.randn(num, width, dtype=torch.float64) @ mixing * decay


def by_scipy(a: Moments, b: Moments, *, unbiased: bool) -> float:
    covariance_a, covariance_b = (m.covariance(unbiased=unbiased).numpy() for m in (a, b))
    root = scipy.linalg.sqrtm(covariance_b @ covariance_a)
    difference = (a.mean - b.mean).square().sum().item()
    return difference + float(
        np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.trace(root).real
    )


def test_of_one_number_it_is_the_difference_of_means_and_of_deviations():
    result = gaussian_frechet_distance(double(1), double(4)[None], double(3), double(25)[None])
    assert result == pytest.approx((1 - 3) ** 2 + (2 - 5) ** 2, rel=1e-12)


def test_of_commuting_covariances_it_is_the_difference_of_roots():
    mean_a, mean_b = torch.randn(2, 40, dtype=torch.float64)
    deviations_a, deviations_b = torch.rand(2, 40, dtype=torch.float64)
    for basis in (torch.eye(40, dtype=torch.float64), random_rotation(40)):
        covariances = [basis @ d.square().diag() @ basis.T for d in (deviations_a, deviations_b)]
        expected = (mean_a - mean_b).square().sum() + (deviations_a - deviations_b).square().sum()
        result = gaussian_frechet_distance(mean_a, covariances[0], mean_b, covariances[1])
        assert result == pytest.approx(expected.item(), rel=1e-10)


def test_of_two_by_two_covariances_it_is_the_closed_form():
    # Tr(M^(1/2)) of a 2x2 matrix with non-negative eigenvalues is sqrt(Tr M + 2 sqrt(det M)).
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.4], [-0.4, 3.0]], dtype=torch.float64)
    product = a @ b
    root_trace = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = (a.trace() + b.trace() - 2 * root_trace).item()
    assert gaussian_frechet_distance(double(0, 0), a, double(0, 0), b) == pytest.approx(
        expected, rel=1e-10
    )


def test_gaussians_on_planes_at_an_angle_have_the_closed_form():
    # Rank 1 along two unit vectors: the root's only singular value is s_a s_b |cos|.
    angle_rad = 0.3
    along = double(1, 0, 0)
    other = double(np.cos(angle_rad), np.sin(angle_rad), 0)
    result = gaussian_frechet_distance(
        double(0, 0, 0),
        4 * torch.outer(along, along),
        double(0, 0, 0),
        9 * torch.outer(other, other),
    )
    assert result == pytest.approx(4 + 9 - 2 * 2 * 3 * np.cos(angle_rad), rel=1e-12)


@pytest.mark.parametrize("num", [40, 300, 2000])
def test_equal_sets_are_at_distance_zero_with_fewer_rows_than_features_too(num):
    moments = of(10 * correlated(num, 256, scale=1.0) + 5)
    assert abs(frechet_distance(moments, moments, unbiased=True)) < 1e-6


def test_shifting_and_scaling_has_the_closed_form():
    features = correlated(500, 64, scale=1.0)
    a, b = of(features), of(1.5 * features + 0.25)
    covariance_trace = a.covariance(unbiased=False).trace().item()
    difference = (a.mean - b.mean).square().sum().item()
    # S_b = 2.25 S_a, so the roots differ by half of S_a's.
    assert frechet_distance(a, b, unbiased=False) == pytest.approx(
        difference + 0.25 * covariance_trace, rel=1e-10
    )


def test_a_set_without_spread_is_at_its_distance():
    covariance = torch.eye(3, dtype=torch.float64)
    zero = torch.zeros(3, 3, dtype=torch.float64)
    result = gaussian_frechet_distance(double(0, 0, 0), covariance, double(1, 2, 3), zero)
    assert result == pytest.approx(14 + 3, rel=1e-12)
    assert gaussian_frechet_distance(double(0, 0, 0), zero, double(0, 0, 0), zero) == 0


@pytest.mark.parametrize(
    "width", [256, pytest.param(2048, marks=pytest.mark.slow)], ids=["256", "2048"]
)
def test_it_agrees_with_the_matrix_square_root_of_scipy(width):
    a = of(correlated(3 * width, width, scale=1.0))
    b = of(correlated(3 * width, width, scale=1.2) + 0.1)
    for unbiased in (True, False):
        expected = by_scipy(a, b, unbiased=unbiased)
        assert frechet_distance(a, b, unbiased=unbiased) == pytest.approx(expected, rel=1e-6)


def test_the_divisor_is_the_protocols():
    a, b = of(correlated(20, 4, scale=1.0)), of(correlated(20, 4, scale=2.0))
    difference = (a.mean - b.mean).square().sum().item()
    unbiased = frechet_distance(a, b, unbiased=True) - difference
    assert unbiased == pytest.approx(
        (frechet_distance(a, b, unbiased=False) - difference) * 20 / 19, rel=1e-10
    )


def test_it_is_symmetric_and_not_negative():
    a, b = of(correlated(100, 128, scale=1.0)), of(correlated(150, 128, scale=1.0))
    forth, back = frechet_distance(a, b, unbiased=True), frechet_distance(b, a, unbiased=True)
    assert forth == pytest.approx(back, rel=1e-10)
    assert forth > 0


def test_shapes_that_do_not_go_together_are_refused():
    eye = torch.eye(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="mean_b"):
        gaussian_frechet_distance(double(0, 0), eye, double(0, 0, 0), eye)
    with pytest.raises(ValueError, match="covariance_a"):
        gaussian_frechet_distance(double(0, 0), eye[:1], double(0, 0), eye)


def test_numbers_that_are_not_finite_are_refused():
    eye = torch.eye(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="mean_b must be finite"):
        gaussian_frechet_distance(double(0, 0), eye, double(0, float("nan")), eye)
