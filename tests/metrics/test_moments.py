import pytest
import torch
from torch import Tensor

from stylegan.metrics import moments
from stylegan.metrics.moments import Moments


def rows(num: int, *, width: int = 5, offset: float = 0.0) -> Tensor:
    values = torch.randn(num, width, dtype=torch.float64)
    return values @ torch.randn(width, width, dtype=torch.float64) + offset


def of(features: Tensor, *, step: int = 64) -> Moments:
    result = Moments(features.shape[1])
    for part in features.split(step):
        result.update(part)
    return result


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(moments, "BLOCK_ROWS", 100)


@pytest.mark.parametrize("num", [2, 99, 100, 101, 250])
@pytest.mark.parametrize("unbiased", [True, False])
def test_mean_and_covariance_are_those_of_all_rows_at_once(num, unbiased):
    features = rows(num)
    result = of(features)
    assert result.count == num
    torch.testing.assert_close(result.mean, features.mean(dim=0), rtol=1e-13, atol=1e-13)
    expected = features.T.cov(correction=int(unbiased))
    torch.testing.assert_close(
        result.covariance(unbiased=unbiased), expected, rtol=1e-13, atol=1e-13
    )


def test_how_rows_are_divided_among_calls_does_not_change_a_bit():
    features = rows(333)
    whole, parts = of(features, step=333), of(features, step=7)
    assert torch.equal(whole.mean, parts.mean)
    assert torch.equal(whole.covariance(unbiased=True), parts.covariance(unbiased=True))


def test_looking_in_between_does_not_change_a_bit():
    features = rows(333)
    looked = Moments(5)
    for part in features.split(50):
        looked.update(part)
        assert looked.mean.isfinite().all()
        looked.tensors()
    assert torch.equal(looked.covariance(unbiased=True), of(features).covariance(unbiased=True))


def test_a_mean_far_from_zero_cancels_nothing():
    # E[x^2] - mu^2 in float64 would keep 16 - 2 * 6 = 4 digits here; the shift itself costs 6.
    near = rows(300)
    expected = of(near).covariance(unbiased=True)
    result = of(near + 1e6).covariance(unbiased=True)
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)


def test_constant_rows_have_no_covariance():
    result = of(torch.full((250, 3), 0.1))
    assert result.covariance(unbiased=True).abs().max() < 1e-30


def test_half_precision_rows_are_summed_in_double():
    features = rows(300).half()
    result = of(features)
    assert result.mean.dtype == torch.float64
    torch.testing.assert_close(result.mean, features.double().mean(dim=0), rtol=1e-13, atol=1e-13)


def test_tensors_bring_it_back_and_it_goes_on():
    features = rows(333)
    kept = of(features[:150]).tensors()
    assert {name: tensor.dtype for name, tensor in kept.items()} == {
        "count": torch.int64,
        "mean": torch.float64,
        "scatter": torch.float64,
    }
    back = Moments.from_tensors(kept)
    assert back.count == 150
    back.update(features[150:])
    torch.testing.assert_close(
        back.covariance(unbiased=True), of(features).covariance(unbiased=True), rtol=1e-12, atol=0
    )
    # What was given away is a copy.
    assert torch.equal(kept["mean"], of(features[:150]).tensors()["mean"])


@pytest.mark.parametrize("missing", ["count", "mean", "scatter"])
def test_tensors_that_lack_one_are_refused(missing):
    tensors = of(rows(10)).tensors()
    del tensors[missing]
    with pytest.raises(ValueError, match="count, mean and scatter"):
        Moments.from_tensors(tensors)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match=r"\[n, 5\]"):
        Moments(5).update(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="at least 2 rows"):
        of(rows(1)).covariance(unbiased=True)
    with pytest.raises(ValueError, match="count, mean and scatter"):
        Moments.from_tensors(of(rows(10)).tensors() | {"mean": torch.zeros(4)})
