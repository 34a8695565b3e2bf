import math

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.metrics.kernel import kernel_distance, unbiased_discrepancy


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loops(a: Tensor, b: Tensor) -> float:
    """The estimator pair by pair."""
    num, width = a.shape

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / width + 1) ** 3

    pairs = [(i, j) for i in range(num) for j in range(num)]
    within = sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i, j in pairs if i != j)
    between = sum(kernel(a[i], b[j]) for i, j in pairs)
    return within / (num * (num - 1)) - 2 * between / num**2


def test_it_agrees_with_the_sum_over_all_pairs():
    a, b = torch.randn(2, 9, 4, dtype=torch.float64)
    assert unbiased_discrepancy(a, b) == pytest.approx(by_loops(a, b), rel=1e-12)
    # With all rows in each subset there is nothing left to chance.
    result = kernel_distance(a, b, generator=stream(), num_subsets=3)
    assert result.value == pytest.approx(by_loops(a, b), rel=1e-12)
    assert result.error is None


def test_of_two_distributions_it_is_the_closed_form():
    # For x = +-1 with mean m: E k(x, y) = ((2^3) (1 + m_x m_y) + 0) / 2, as x y is 1 or -1,
    # so the distance is 4 (m_x - m_y)^2.
    num = 200_000
    a, b = (2.0 * (torch.rand(num, 1, generator=stream(1)) < share) - 1 for share in (0.5, 0.9))
    result = kernel_distance(a, b, generator=stream(), num_subsets=80)
    assert result.value == pytest.approx(4 * 0.8**2, abs=4 * result.error + 0.01)
    assert 0 < result.error < 0.05


def test_samples_of_one_distribution_are_at_zero_on_average():
    draws = stream(2)
    values = []
    for _ in range(400):
        a, b = torch.randn(2, 20, 6, generator=draws, dtype=torch.float64)
        values.append(unbiased_discrepancy(a, b))
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error  # four standard errors
    assert min(values) < 0 < max(values)
    # Counting i = j would add about the mean of k(x, x) - k(x, y) over the rows, 40 errors here.
    assert error < 0.05


def test_it_grows_with_the_difference():
    real = torch.randn(500, 8)
    shifts = (0.0, 0.25, 0.5, 1.0)
    values = [
        kernel_distance(real, torch.randn(500, 8) + shift, generator=stream()).value
        for shift in shifts
    ]
    assert values == sorted(values)
    assert values[0] < 0.1 < values[1]


def test_the_error_is_that_of_the_mean_over_subsets():
    real, fake = torch.randn(300, 4), torch.randn(300, 4) + 0.3
    result = kernel_distance(real, fake, generator=stream(5), num_subsets=10, max_subset=40)
    draws, values = stream(5), []
    for _ in range(10):
        parts = [
            features[torch.randperm(300, generator=draws)[:40]].double()
            for features in (real, fake)
        ]
        values.append(unbiased_discrepancy(*parts))
    assert result.value == pytest.approx(np.mean(values), rel=1e-10)
    assert result.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(10), rel=1e-8)


def test_it_depends_on_the_generators_seed_only():
    real, fake = torch.randn(300, 4), torch.randn(200, 4)
    options = {"num_subsets": 5, "max_subset": 50}
    first = kernel_distance(real, fake, generator=stream(1), **options)
    assert kernel_distance(real, fake, generator=stream(1), **options) == first
    assert kernel_distance(real, fake, generator=stream(2), **options) != first


def test_features_mapped_from_a_file_give_the_same(tmp_path):
    real, fake = torch.randn(300, 4), torch.randn(200, 4)
    arrays = []
    for name, features in (("real", real), ("fake", fake)):
        np.save(tmp_path / f"{name}.npy", features.numpy())
        arrays.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    options = {"num_subsets": 5, "max_subset": 50}
    assert kernel_distance(*arrays, generator=stream(), **options) == kernel_distance(
        real, fake, generator=stream(), **options
    )


def test_a_single_subset_has_no_error():
    result = kernel_distance(
        torch.randn(9, 4), torch.randn(9, 4), generator=stream(), num_subsets=1
    )
    assert result.error is None


@pytest.mark.parametrize(
    ("real", "fake", "num_subsets"),
    [
        (torch.zeros(5, 3), torch.zeros(5, 4), 1),
        (torch.zeros(1, 3), torch.zeros(5, 3), 1),
        (torch.zeros(5, 3), torch.zeros(5, 3), 0),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(real, fake, num_subsets):
    with pytest.raises(ValueError, match="kernel distances take"):
        kernel_distance(real, fake, generator=stream(), num_subsets=num_subsets)
