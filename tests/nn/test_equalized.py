import math

import pytest
import torch
import torch.nn.functional as F

from stylegan.nn.equalized import (
    HE_GAIN,
    EqualizedConv2d,
    EqualizedLinear,
    ResampleConv2d,
)
from stylegan.ops.bias_act import bias_act
from stylegan.ops.box import downsample_box, upsample_nearest
from stylegan.ops.fir import BLUR_TAPS, RESAMPLE_TAPS, filter2d, fir_kernel
from stylegan.ops.resample_conv import conv2d_down


@pytest.mark.parametrize("act", ["linear", "lrelu"])
def test_linear_is_its_formula(act):
    layer = EqualizedLinear(6, 4, act=act, bias_init=0.7, lr_multiplier=0.01)
    x = torch.randn(3, 6)
    product = x @ layer.weight.t() * 0.01 / math.sqrt(6)
    torch.testing.assert_close(layer(x), bias_act(product, layer.bias * 0.01, act=act))


def test_stored_weights_have_unit_variance_over_the_multiplier():
    layer = EqualizedLinear(256, 256, lr_multiplier=0.01)
    assert abs(layer.weight.std().item() - 100) < 1  # 65,536 samples
    assert abs(EqualizedConv2d(64, 64, 3).weight.std().item() - 1) < 0.01


@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("gain", [1.0, math.sqrt(0.5)])
def test_convolution_is_its_formula(act, gain):
    layer = EqualizedConv2d(5, 4, 3, act=act)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 6, 6)
    plain = F.conv2d(x, layer.weight / math.sqrt(45), padding=1)
    torch.testing.assert_close(layer(x, gain=gain), bias_act(plain, layer.bias, act=act) * gain)


def test_a_weight_gain_leaves_bias_and_activation_alone():
    linear, conv = (
        EqualizedLinear(6, 4, act="lrelu", weight_gain=HE_GAIN),
        EqualizedConv2d(5, 4, 3, act="lrelu", weight_gain=HE_GAIN),
    )
    for layer in (linear, conv):
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(3, 6)
    product = x @ linear.weight.t() * math.sqrt(2 / 6) + linear.bias
    torch.testing.assert_close(linear(x), F.leaky_relu(product, 0.2))
    x = torch.randn(2, 5, 6, 6)
    plain = F.conv2d(x, conv.weight * math.sqrt(2 / 45), conv.bias, padding=1)
    torch.testing.assert_close(conv(x), F.leaky_relu(plain, 0.2))


def plain_resample(layer, x):
    if layer.resample == "up":
        x = upsample_nearest(x)
    if layer.blur:
        x = filter2d(x, fir_kernel(BLUR_TAPS))
    x = F.conv2d(x, layer.weight * math.sqrt(2 / 45), layer.bias, padding=1)
    return F.leaky_relu(downsample_box(x) if layer.resample == "down" else x, 0.2)


@pytest.mark.parametrize(("resample", "blur"), [("up", False), ("down", False), ("down", True)])
def test_resampling_convolution_is_its_formula(resample, blur):
    layer = ResampleConv2d(5, 4, resample=resample, blur=blur)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 8, 8)
    torch.testing.assert_close(layer(x), plain_resample(layer, x))
    assert layer.state_dict().keys() == {"weight", "bias"}


def test_blur_on_the_way_up_is_refused():
    with pytest.raises(ValueError, match="takes blur only with resample down"):
        ResampleConv2d(2, 2, resample="up", blur=True)


def test_downsampling_convolution_is_its_formula():
    layer = EqualizedConv2d(5, 4, 3, act="lrelu", down=True)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 8, 8)
    plain = conv2d_down(x, layer.weight / math.sqrt(45), fir_kernel(RESAMPLE_TAPS))
    torch.testing.assert_close(layer(x), bias_act(plain, layer.bias, act="lrelu"))


def test_without_bias_there_is_no_parameter():
    assert [name for name, _ in EqualizedConv2d(2, 2, 1, bias=False).named_parameters()] == [
        "weight"
    ]
    assert EqualizedLinear(2, 2, bias=False)(torch.zeros(1, 2)).tolist() == [[0, 0]]


def test_the_filter_is_not_in_the_state_dict():
    assert EqualizedConv2d(2, 2, 3, down=True).state_dict().keys() == {"weight", "bias"}


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="odd, got 4"):
        EqualizedConv2d(2, 2, 4)
