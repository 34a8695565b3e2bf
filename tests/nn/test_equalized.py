import math

import pytest
import torch
import torch.nn.functional as F

from stylegan.nn.equalized import EqualizedConv2d, EqualizedLinear
from stylegan.ops.bias_act import bias_act
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel
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
