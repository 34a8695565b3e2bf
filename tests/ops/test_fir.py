import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from stylegan.ops.fir import (
    RESAMPLE_TAPS,
    downsample2d,
    filter2d,
    fir_kernel,
    upfirdn2d,
    upsample2d,
)

KERNEL = fir_kernel(RESAMPLE_TAPS)
# Oracle values: spec, section 17. They are multiples of powers of two, so they are exact.
THREE = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
FOUR = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)


def test_kernel_is_the_outer_product_over_64():
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    assert torch.equal(KERNEL, torch.outer(taps, taps) / 64)


def test_kernel_takes_2d_taps_and_refuses_others():
    assert fir_kernel(torch.ones(2, 4)).sum() == 1
    with pytest.raises(ValueError, match="1D or 2D"):
        fir_kernel(torch.ones(1, 2, 2))


def test_upsample2d_known_values():
    y = upsample2d(THREE, KERNEL)[0, 0]
    assert y.shape == (6, 6)
    assert y[0].tolist() == [0.5625, 0.9375, 1.3125, 1.6875, 2.0625, 1.6875]
    assert y[2].tolist() == [2.4375, 3.5, 4.0, 4.5, 5.0, 3.9375]
    assert y[5].tolist() == [3.9375, 5.4375, 5.8125, 6.1875, 6.5625, 5.0625]


def test_downsample2d_known_values():
    assert downsample2d(FOUR, KERNEL)[0, 0].tolist() == [[3.5, 4.703125], [8.3125, 9.515625]]


def test_filter2d_known_values():
    assert filter2d(THREE, KERNEL)[0, 0].tolist() == [
        [0.5, 1.078125, 1.328125],
        [1.484375, 2.953125, 3.390625],
        [2.234375, 4.265625, 4.703125],
    ]


def test_upsampling_darkens_the_border_of_a_constant_and_keeps_its_inside():
    y = upsample2d(torch.ones(1, 1, 8, 8), KERNEL)[0, 0]
    assert y[0, 0] == 0.5625
    assert torch.equal(y[0, 1:-1], torch.full([14], 0.75))
    assert torch.equal(y[1:-1, 1:-1], torch.ones(14, 14))


def test_filters_act_on_each_channel_alone():
    x = torch.randn(2, 3, 8, 8)
    y = upsample2d(x, KERNEL)
    for channel in range(3):
        alone = upsample2d(x[:, channel : channel + 1], KERNEL)
        torch.testing.assert_close(y[:, channel : channel + 1], alone)


def test_downsampling_is_the_adjoint_of_upsampling_but_for_the_gain():
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    y = torch.randn(1, 2, 16, 16, dtype=torch.float64)
    left = (upsample2d(x, KERNEL) * y).sum()
    right = (x * downsample2d(y, KERNEL)).sum() * 4
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("down", [1, 3])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 2, 2), (2, 1, 0, 3), (-1, 2, 1, -2)])
@pytest.mark.parametrize("flip", [False, True])
def test_upfirdn2d_is_its_definition(up, down, padding, flip):
    x = torch.randn(1, 1, 7, 9, dtype=torch.float64)
    kernel = fir_kernel(torch.rand(3, 4)).double()
    y = upfirdn2d(x, kernel, up=up, down=down, padding=padding, flip=flip, gain=1.5)

    spread = torch.zeros(7 * up, 9 * up, dtype=torch.float64)
    spread[::up, ::up] = x[0, 0]
    spread = F.pad(spread, padding)
    mask = kernel if flip else kernel.flip(0, 1)
    rows = range(0, spread.shape[0] - 2, down)
    columns = range(0, spread.shape[1] - 3, down)
    expected = [[(spread[i : i + 3, j : j + 4] * mask).sum() * 1.5 for j in columns] for i in rows]
    torch.testing.assert_close(y[0, 0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("op", [upsample2d, downsample2d, filter2d])
def test_gradients_of_both_orders(op):
    x = torch.randn(2, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: op(x, KERNEL), x)
    assert gradgradcheck(lambda x: op(x, KERNEL), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_any_float_dtype_and_channels_last(dtype):
    x = torch.randn(2, 4, 8, 8).to(dtype).to(memory_format=torch.channels_last)
    y = upsample2d(x, KERNEL)
    assert y.dtype == dtype
    assert y.stride(1) == 1  # channels stay next to each other
    # bfloat16 keeps 8 bits: half a unit in the last place of sums up to about 4
    atol = {torch.bfloat16: 0.02, torch.float16: 0.003}.get(dtype, 1e-6)
    expected = upsample2d(x.double().contiguous(), KERNEL)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=atol)


@pytest.mark.gpu
def test_cuda_equals_cpu():
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(upsample2d(x.cuda(), KERNEL).cpu(), upsample2d(x, KERNEL))
