import pytest
import torch
from torch import nn

from stylegan.errors import WeightsError
from stylegan.perceptual.detector import (
    as_rgb,
    fold_batch_norm,
    in_batches,
    load_weights,
    unit_norm,
)


def test_folding_changes_rounding_only():
    conv, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=1e-3).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    state = {f"a.{k}": v for k, v in conv.state_dict().items()}
    state |= {f"b.{k}": v for k, v in norm.state_dict().items()}
    weight, bias = fold_batch_norm(state, "a", "b", eps=1e-3)
    assert weight.dtype == bias.dtype == torch.float32
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, bias), norm(conv(x)))


def test_unit_norm_has_length_1_and_keeps_zeros():
    x = torch.randn(2, 4, 3, 3)
    x[0, :, 0, 0] = 0
    lengths = unit_norm(x).norm(dim=1)
    assert lengths[0, 0, 0] == 0
    torch.testing.assert_close(lengths.flatten()[1:], torch.ones(17))


def test_gradients_of_unit_norm_are_finite_where_there_is_no_feature():
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    (grad,) = torch.autograd.grad((unit_norm(x) - 1).square().sum(), x)
    assert grad.isfinite().all()


def test_parts_are_small_on_a_cpu_and_cover_all():
    parts = in_batches(torch.arange(10), 4)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert len(in_batches(torch.zeros(0, 3), 4)) == 1


def test_rgb_stays_as_it_is():
    x = torch.rand(1, 3, 2, 2)
    assert torch.equal(as_rgb(x), x)
    with pytest.raises(ValueError, match="1 or 3"):
        as_rgb(x[0])


def test_weights_of_other_shapes_are_refused_in_one_line():
    with pytest.raises(WeightsError, match=r"do not fit Linear \(.*weight") as caught:
        load_weights(nn.Linear(2, 3), {"weight": torch.zeros(2, 2), "bias": torch.zeros(3)})
    assert str(caught.value).isprintable()
