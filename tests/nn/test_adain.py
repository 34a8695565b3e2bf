import math

import pytest
import torch
import torch.nn.functional as F

from stylegan.image_size import ImageSize
from stylegan.nn.adain import ConstantInput, DenseInput, StyledConv2d
from stylegan.ops.box import upsample_nearest
from stylegan.ops.fir import BLUR_TAPS, filter2d, fir_kernel
from stylegan.ops.normalize import pixel_norm


def randomized(layer):
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def plain_epilogue(layer, x, w, noise):
    """Spec 4.3, one line for each step."""
    if layer.noise:
        x = x + layer.noise_strength[:, None, None] * noise
    x = x + layer.bias[:, None, None]
    x = F.leaky_relu(x, 0.2)
    if not layer.styles:
        return pixel_norm(x)
    style = w @ layer.affine.weight.t() / math.sqrt(w.shape[1]) + layer.affine.bias
    scale, shift = style[:, : x.shape[1], None, None], style[:, x.shape[1] :, None, None]
    return F.instance_norm(x, eps=1e-8) * (1 + scale) + shift


@pytest.mark.parametrize("styles", [True, False])
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("up", [True, False])
def test_a_convolution_layer_is_its_formula(styles, noise, up):
    layer = randomized(
        StyledConv2d(3, 4, w_dim=5, size=ImageSize(8, 8), styles=styles, noise=noise, up=up)
    )
    x, w = torch.randn(2, 3, 4 if up else 8, 4 if up else 8), torch.randn(2, 5)
    weight = layer.weight * math.sqrt(2 / 27)
    if up:
        y = F.conv2d(upsample_nearest(x), weight, padding=1)
        y = filter2d(y, fir_kernel(BLUR_TAPS))
    else:
        y = F.conv2d(x, weight, padding=1)
    expected = plain_epilogue(layer, y, w, layer.noise_const if noise else None)
    noise_input = layer.noise_const if noise else None
    found = layer(x, w, noise=noise_input)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # other sums


@pytest.mark.parametrize("styles", [True, False])
def test_a_dense_input_is_its_formula(styles):
    layer = randomized(DenseInput(4, w_dim=5, size=ImageSize(4, 4), styles=styles, noise=True))
    w = torch.randn(2, 5)
    y = (w @ layer.weight.t() * (math.sqrt(2) / 4 / math.sqrt(5))).reshape(2, 4, 4, 4)
    expected = plain_epilogue(layer, y, w, layer.noise_const)
    torch.testing.assert_close(
        layer(None, w, noise=layer.noise_const), expected, rtol=1e-4, atol=1e-5
    )


def test_a_constant_input_is_its_formula_and_ones_at_first():
    layer = ConstantInput(4, w_dim=5, size=ImageSize(4, 4), styles=True, noise=True)
    assert torch.equal(layer.const, torch.ones(4, 4, 4))
    randomized(layer)
    w = torch.randn(2, 5)
    expected = plain_epilogue(layer, layer.const.expand(2, -1, -1, -1), w, layer.noise_const)
    torch.testing.assert_close(
        layer(None, w, noise=layer.noise_const), expected, rtol=1e-4, atol=1e-5
    )


def test_noise_is_of_all_samples_or_of_each():
    layer = randomized(StyledConv2d(3, 4, w_dim=5, size=ImageSize(8, 8)))
    x, w = torch.randn(1, 3, 8, 8).repeat(2, 1, 1, 1), torch.randn(1, 5).repeat(2, 1)
    const, none = layer(x, w, noise=layer.noise_const), layer(x, w, noise=None)
    assert torch.equal(const[0], const[1])
    assert (const - none).abs().max() > 1e-2
    drawn = torch.randn(2, 1, 8, 8)
    first = layer(x, w, noise=drawn)
    assert (first[0] - first[1]).abs().max() > 1e-2
    y = F.conv2d(x, layer.weight * math.sqrt(2 / 27), padding=1)
    expected = plain_epilogue(layer, y, w, drawn)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5)


def test_layers_without_noise_or_styles_have_no_parameters_for_them():
    layer = StyledConv2d(3, 4, w_dim=5, size=ImageSize(8, 8), styles=False, noise=False)
    assert layer.state_dict().keys() == {"weight", "bias"}


def test_names_in_the_state_dict():
    layer = StyledConv2d(3, 4, w_dim=5, size=ImageSize(8, 8), up=True)
    shapes = {name: list(tensor.shape) for name, tensor in layer.state_dict().items()}
    assert shapes == {
        "weight": [4, 3, 3, 3],
        "bias": [4],
        "noise_strength": [4],
        "noise_const": [8, 8],
        "affine.weight": [8, 5],
        "affine.bias": [8],
    }


def test_bfloat16_gives_bfloat16_with_statistics_of_float32():
    layer = randomized(StyledConv2d(3, 4, w_dim=5, size=ImageSize(8, 8)))
    x, w = torch.randn(2, 3, 8, 8), torch.randn(2, 5)
    exact = layer(x, w, noise=layer.noise_const)
    y = layer(x.bfloat16(), w, dtype=torch.bfloat16, noise=layer.noise_const)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0, atol=0.1)  # 8 bits of values up to 5
