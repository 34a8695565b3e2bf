import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from stylegan.ops.box import downsample_box, upsample_nearest
from stylegan.ops.fir import RESAMPLE_TAPS, downsample2d, fir_kernel, upfirdn2d, upsample2d
from stylegan.ops.resample_conv import (
    conv2d_box_down,
    conv2d_down,
    conv2d_nearest_up,
    conv2d_up,
)

KERNEL = fir_kernel(RESAMPLE_TAPS)
WEIGHT = torch.arange(1.0, 10.0, dtype=torch.float64).reshape(1, 1, 3, 3) / 10
THREE = torch.arange(1.0, 10.0, dtype=torch.float64).reshape(1, 1, 3, 3)
FOUR = torch.arange(1.0, 17.0, dtype=torch.float64).reshape(1, 1, 4, 4)


def plain_conv2d_up(x, weight):
    """The definition: a transposed convolution of stride 2 without padding, then the filter."""
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return upfirdn2d(x, KERNEL, padding=(1, 1, 1, 1), gain=4)


def test_conv2d_up_known_values():
    y = conv2d_up(THREE, WEIGHT, KERNEL)[0, 0]  # spec, section 17
    first = torch.tensor([1.7875, 3.1, 4.31875, 5.48125, 6.05, 5.2125])
    third = torch.tensor([7.51875, 11.9625, 15.0, 17.25, 17.85, 14.68125])
    assert y.shape == (6, 6)
    torch.testing.assert_close(y[0], first.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(y[2], third.double(), rtol=0, atol=1e-6)


def test_conv2d_down_known_values():
    y = conv2d_down(FOUR, WEIGHT, KERNEL)[0, 0]  # spec, section 17, six decimals
    expected = torch.tensor([[21.6875, 23.704688], [29.01875, 29.198438]], dtype=torch.float64)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_conv2d_up_is_transposed_convolution_then_filter(side):
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(conv2d_up(x, weight, KERNEL), plain_conv2d_up(x, weight))


def test_conv2d_up_differs_from_upsampling_first_at_the_border_only():
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    joined = conv2d_up(x, weight, KERNEL)
    apart = F.conv2d(upsample2d(x, KERNEL), weight.flip(2, 3), padding=1)
    torch.testing.assert_close(joined[..., 1:-1, 1:-1], apart[..., 1:-1, 1:-1])
    assert (joined - apart).abs().max() > 0.1


def test_groups_are_convolutions_of_their_own():
    x = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    apart = [conv2d_up(x[:, :3], weight[:2], KERNEL), conv2d_up(x[:, 3:], weight[2:], KERNEL)]
    torch.testing.assert_close(conv2d_up(x, weight, KERNEL, groups=2), torch.cat(apart, dim=1))


def test_1x1_convolutions_commute_with_resampling():
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    weight = torch.randn(2, 3, 1, 1, dtype=torch.float64)
    up = F.conv2d(upsample2d(x, KERNEL), weight)
    torch.testing.assert_close(conv2d_up(x, weight, KERNEL), up)
    down = downsample2d(F.conv2d(x, weight), KERNEL)
    torch.testing.assert_close(conv2d_down(x, weight, KERNEL), down)


def test_conv2d_down_adds_the_bias():
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(2, 3, 3, 3)
    bias = torch.tensor([1.0, -2.0])
    difference = conv2d_down(x, weight, KERNEL, bias=bias) - conv2d_down(x, weight, KERNEL)
    torch.testing.assert_close(difference, bias[:, None, None].expand(1, 2, 4, 4))


@pytest.mark.parametrize("op", [conv2d_up, conv2d_down])
@pytest.mark.parametrize("size", [1, 3])
def test_gradients_of_both_orders(op, size):
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, size, size, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w: op(x, w, KERNEL), (x, weight))
    assert gradgradcheck(lambda x, w: op(x, w, KERNEL), (x, weight))


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_conv2d_nearest_up_is_repeating_then_correlation(side):
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    weight, bias = torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(4).double()
    apart = F.conv2d(upsample_nearest(x), weight, bias, padding=1)
    torch.testing.assert_close(conv2d_nearest_up(x, weight, bias=bias), apart)


@pytest.mark.parametrize("side", [2, 4, 10])
def test_conv2d_box_down_is_correlation_then_mean(side):
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    weight, bias = torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(4).double()
    apart = downsample_box(F.conv2d(x, weight, bias, padding=1))
    torch.testing.assert_close(conv2d_box_down(x, weight, bias=bias), apart)


@pytest.mark.parametrize("op", [conv2d_nearest_up, conv2d_box_down])
def test_gradients_of_both_orders_without_a_filter(op):
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(op, (x, weight))
    assert gradgradcheck(op, (x, weight))


@pytest.mark.gpu
def test_cuda_equals_cpu():
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    for op in (conv2d_up, conv2d_down):
        there = op(x.cuda(), weight.cuda(), KERNEL.cuda()).cpu()
        torch.testing.assert_close(there, op(x, weight, KERNEL), rtol=1e-4, atol=1e-4)  # TF32 off
    for op in (conv2d_nearest_up, conv2d_box_down):
        there = op(x.cuda(), weight.cuda()).cpu()
        torch.testing.assert_close(there, op(x, weight), rtol=1e-4, atol=1e-4)
