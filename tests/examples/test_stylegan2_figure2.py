import importlib.util
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stylegan.image_size import ImageSize
from stylegan.nn.adain import StyledConv2d
from stylegan.nn.modulated import SynthesisLayer
from stylegan.ops.normalize import adain

SOURCE = Path(__file__).parents[2] / "examples" / "stylegan2_figure2.py"
spec = importlib.util.spec_from_file_location("stylegan2_figure2", SOURCE)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
STAGES, StyleBox = example.STAGES, example.StyleBox


def arguments(channels=16, side=64, mean=0.0):
    """Independent inputs of unit variance, random styles, no bias and no noise."""
    x = torch.randn(2, channels, side, side, dtype=torch.float64) + mean
    scale = 1 + 0.5 * torch.randn(2, channels, dtype=torch.float64)
    shift = 0.5 * torch.randn(2, channels, dtype=torch.float64)
    weight = torch.randn(channels, channels, 3, 3, dtype=torch.float64)
    return x, scale, shift, weight, torch.zeros([], dtype=torch.float64)


def before_activation(y):
    """Undo the leaky ReLU, without the border, where zeros are convolved too."""
    return torch.where(y > 0, y, y / 0.2)[..., 1:-1, 1:-1]


def stddev(y):
    return y.var(dim=(2, 3), correction=0).sqrt()


def test_a_and_b_are_one_function():
    x, scale, shift, weight, _ = arguments(mean=3.0)
    offset = torch.randn(2, 16, 64, 64, dtype=torch.float64)
    a, b = (STAGES[stage](x, scale, shift, weight, offset) for stage in "ab")
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_c_is_b_without_means_and_with_its_own_normalization():
    x, scale, shift, weight, offset = arguments()
    x = F.instance_norm(x, eps=1e-8)  # so that the normalization that opens (b) changes nothing
    b = STAGES["b"](x, scale, 0 * shift, weight, offset)
    c = STAGES["c"](x, scale, shift, weight, offset)
    b, c = (torch.where(y > 0, y, y / 0.2) for y in (b, c))
    torch.testing.assert_close(b / stddev(b)[:, :, None, None], c, rtol=1e-6, atol=1e-6)  # eps
    styled = STAGES["b"](x, scale, shift, weight, offset)
    styled = torch.where(styled > 0, styled, styled / 0.2)
    assert (styled / stddev(styled)[:, :, None, None] - c).abs().max() > 0.1


def test_the_statistics_of_d_are_those_of_c_on_independent_inputs():
    x, scale, shift, weight, offset = arguments()
    c, d = (before_activation(STAGES[stage](x, scale, shift, weight, offset)) for stage in "cd")
    torch.testing.assert_close(stddev(c), torch.ones(2, 16).double(), rtol=0, atol=0.03)
    # 64 * 64 samples, overlapping neighborhoods: 3 percent measured
    torch.testing.assert_close(stddev(d), stddev(c), rtol=0.06, atol=0)
    torch.testing.assert_close(d.mean(dim=(2, 3)), c.mean(dim=(2, 3)), rtol=0, atol=0.02)


@pytest.mark.parametrize("input_of", ["smooth", "large"])
def test_c_and_d_differ_on_other_inputs(input_of):
    x, scale, shift, weight, offset = arguments()
    x = 3 * x if input_of == "large" else torch.nn.functional.avg_pool2d(x, 5, 1, 2) * 5
    c, d = (before_activation(STAGES[stage](x, scale, shift, weight, offset)) for stage in "cd")
    assert (stddev(c) - 1).abs().max() < 0.05
    assert (stddev(d) - 1).abs().max() > 0.2  # against 0.06 above


def test_only_c_and_d_ignore_means():
    x, scale, shift, weight, offset = arguments(side=8)
    for stage, function in STAGES.items():
        y = function(x, scale, shift, weight, offset)
        other = function(x, scale, -shift, weight, offset)
        assert torch.equal(y, other) == (stage in "cd"), stage


def test_c_keeps_noise_and_bias_out_of_the_normalization():
    x, scale, shift, weight, _ = arguments(side=8)
    plain = STAGES["c"](x, scale, shift, weight, torch.zeros([]).double() + 100)
    more = STAGES["c"](x, scale, shift, 7 * weight, torch.zeros([]).double() + 100)
    torch.testing.assert_close(plain, more)  # the normalization cancels the weight's size alone
    assert abs(plain.mean().item() - 100) < 0.5


def test_stage_a_is_the_inside_of_stylegans_layers():
    """AdaIN of one layer, then the convolution of the next, up to its AdaIN."""
    layer = StyledConv2d(3, 4, w_dim=5, size=ImageSize(8, 8))
    box = StyleBox(3, 4, w_dim=5, stage="a")
    for parameter in (*layer.parameters(), *box.parameters()):
        torch.nn.init.normal_(parameter)
    box.load_state_dict(
        {name: getattr(layer, name) for name in ("weight", "bias", "noise_strength")},
        strict=False,
    )
    x, w = torch.randn(2, 3, 8, 8), torch.randn(2, 5)
    scale, shift = box.affine(w).chunk(2, dim=1)
    expected = layer(adain(x, scale + 1, shift), w, noise=layer.noise_const)
    scale, shift = layer.affine(w).chunk(2, dim=1)
    found = adain(box(x, w, layer.noise_const), scale + 1, shift)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_stage_d_is_stylegan2s_layer_but_for_the_gain():
    layer = SynthesisLayer(3, 4, w_dim=5, size=ImageSize(8, 8))
    box = StyleBox(3, 4, w_dim=5, stage="d")
    for parameter in (*layer.parameters(), *box.parameters()):
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        box.weight.copy_(layer.weight)
        box.bias.copy_(layer.bias)
        box.noise_strength.fill_(layer.noise_strength)
        box.affine.weight[:3] = layer.affine.weight
        box.affine.bias[:3] = layer.affine.bias - 1  # the box adds it
    x, w = torch.randn(2, 3, 8, 8), torch.randn(2, 5)
    found = box(x, w, layer.noise_const) * math.sqrt(2)
    expected = layer(x, w, noise=layer.noise_const)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", "abcd")
def test_every_stage_trains_what_it_uses(stage):
    box = StyleBox(3, 4, w_dim=5, stage=stage)
    torch.nn.init.ones_(box.noise_strength)
    assert f"stage {stage}" in repr(box)
    y = box(torch.randn(2, 3, 8, 8) + 1, torch.randn(2, 5), torch.randn(2, 1, 8, 8))
    assert y.shape == (2, 4, 8, 8)
    y.square().sum().backward()
    for name in ("weight", "bias", "noise_strength", "affine.weight"):
        assert box.get_parameter(name).grad.abs().max() > 0, name


def test_a_droplet_is_felt_far_away_in_all_stages_but_d():
    x, scale, shift, weight, offset = arguments()
    spiked = x.clone()
    spiked[:, 0, 32, 32] = 1000
    for stage, function in STAGES.items():
        before = function(x, scale, shift, weight, offset)[..., :24, :24]
        after = function(spiked, scale, shift, weight, offset)[..., :24, :24]
        assert torch.equal(before, after) == (stage == "d"), stage
        if stage == "c":  # all of the picture gives way to the spike
            assert after.std() < 0.7 * before.std()
