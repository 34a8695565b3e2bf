"""Path lengths in a feature space: known answers, derivatives, scale, and a run."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from stylegan.errors import ConfigError, StyleganError
from stylegan.losses.objective import GeneratorInputs, sampled_path_lengths
from stylegan.losses.regularizers import path_lengths
from stylegan.models.stylegan2 import Generator
from stylegan.perceptual.detector import AbstractDistance
from stylegan.perceptual.networks import load_distance
from stylegan.training import path_features
from stylegan.training.checkpoint import load_newest_checkpoint
from stylegan.training.log import read_log
from stylegan.training.loop import train
from stylegan.training.path_features import PathFeatures


class LinearDistance(AbstractDistance):
    """Features that are a linear function of the pixels."""

    name = "linear"

    def __init__(self, num_inputs, num_features):
        super().__init__()
        stream = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(num_features, num_inputs, generator=stream))
        self.requires_grad_(False)

    def layers(self, images):
        yield images.flatten(1) @ self.weight.T


@pytest.fixture
def linear(monkeypatch):
    network = LinearDistance(3 * 16 * 16, 5)
    monkeypatch.setattr(path_features, "load_distance", lambda *_, **__: network)
    return network


@pytest.fixture
def features_config(run_config):
    loss = replace(run_config.loss, pl_space="efficientnet-lite0")
    return replace(run_config, loss=loss)


def test_path_length_of_linear_features_is_the_norm_of_the_transposed_products():
    ws = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    to_pixels = torch.randn(12, 12, dtype=torch.float64)
    to_features = torch.randn(5, 12, dtype=torch.float64)
    noise = torch.randn(2, 5, dtype=torch.float64)
    features = ws.flatten(1) @ to_pixels.T @ to_features.T
    expected = (noise @ to_features @ to_pixels).view(2, 3, 4).square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(path_lengths(features, ws, noise), expected)


def test_the_scale_makes_steps_between_real_images_as_long_as_in_pixels():
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    network = LinearDistance(3 * 16 * 16, 5)
    features = PathFeatures(network)
    features.calibrate(images)
    steps = images.roll(-1, dims=0) - images
    in_pixels = steps.square().sum() / 16**2
    in_features = (features(images + steps) - features(images)).square().sum()
    torch.testing.assert_close(in_features, in_pixels, rtol=1e-4, atol=0)
    assert features.scale != pytest.approx(1, rel=0.1)


def test_images_without_any_difference_have_no_scale():
    with pytest.raises(ConfigError, match="tell the images apart"):
        PathFeatures(LinearDistance(3 * 16 * 16, 5)).calibrate(torch.zeros(4, 3, 16, 16))


def test_large_images_are_reduced_by_averaging_before_the_network():
    network = LinearDistance(3 * 16 * 16, 5)
    network.largest = 16
    images = torch.randn(2, 3, 32, 32)
    reduced = images.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(PathFeatures(network)(images), network.embed(reduced))


class SmoothDistance(LinearDistance):
    """The same without kinks, which finite differences need."""

    def layers(self, images):
        yield (images.flatten(1) @ self.weight.T * 0.1).tanh()


def test_the_penalty_has_the_gradient_of_finite_differences(generator_config):
    torch.manual_seed(0)
    generator = Generator(generator_config).double()
    features = PathFeatures(SmoothDistance(3 * 16 * 16, 5).double())
    features.scale = 3.0
    inputs = GeneratorInputs(z=torch.randn(2, generator.z_dim, dtype=torch.float64))
    noise = torch.randn(2, 5, dtype=torch.float64)
    weight = generator.synthesis.b16.torgb.weight  # no activation follows
    direction = torch.randn_like(weight)

    def loss(step=0.0):
        with torch.no_grad():
            weight.add_(step * direction)
        lengths = sampled_path_lengths(
            generator, inputs, draw_noise=lambda _: noise, features=features
        )
        with torch.no_grad():
            weight.sub_(step * direction)
        return (lengths - 0.1).square().mean()

    (gradient,) = torch.autograd.grad(loss(), weight)
    expected = (loss(1e-4) - loss(-1e-4)).item() / 2e-4
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5)
    assert abs(expected) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite0", "lpips-vgg16"])
def test_path_lengths_of_published_features_are_norms_of_their_jacobian(generator_config, name):
    try:
        network = load_distance(name)
    except StyleganError as error:  # VGG16 has to be downloaded
        pytest.skip(error.message)
    torch.manual_seed(0)
    generator, features = Generator(generator_config), PathFeatures(network)
    ws = generator.mapping(torch.randn(1, generator.z_dim)).detach().requires_grad_()
    noise = torch.randn(features(generator.synthesis(ws)).shape)
    length = path_lengths(features(generator.synthesis(ws)), ws, noise)
    products = []
    with torch.no_grad():  # J^T y by one finite difference along each of the axes
        for axis in torch.eye(ws.numel()).view(-1, *ws.shape):
            ends = [features(generator.synthesis(ws + step * axis)) for step in (-1e-3, 1e-3)]
            products.append(((ends[1] - ends[0]) * noise).sum() / 2e-3)
    expected = torch.stack(products).view(ws.shape).square().sum(dim=2).mean(dim=1).sqrt()
    torch.testing.assert_close(length, expected, rtol=0.02, atol=0)
    (gradient,) = torch.autograd.grad(length.sum(), generator.synthesis.b4.const)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.slow
def test_a_run_calibrates_once_and_resumes_exactly(features_config, linear, finished_run, tmp_path):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(features_config, whole)
    half = replace(features_config, output=replace(features_config.output, total_kimg=0.08))
    train(half, halved)
    train(features_config, halved)
    states = [load_newest_checkpoint(run) for run in (whole, halved)]
    assert states[0]["path_scale"] == states[1]["path_scale"] != 1
    for name, value in states[0]["generator"].items():
        assert torch.equal(value, states[1]["generator"][name]), name
    # the finished run has path lengths of pixels, and is else the same
    lengths = [read_log(run)[0]["terms"]["path_length/mean"] for run in (whole, finished_run)]
    assert 0 < lengths[0] != lengths[1] > 0


def test_small_images_have_no_features_of_vgg16(run_config):
    sizes = {
        name: replace(getattr(run_config, name), resolution=8)
        for name in ("generator", "discriminator")
    }
    loss = replace(run_config.loss, pl_space="lpips")
    with pytest.raises(ConfigError, match="16 pixels or more, got 8"):
        replace(run_config, loss=loss, **sizes).check()


def test_growing_runs_have_path_lengths_of_pixels(growing_config):
    loss = replace(growing_config.loss, pl_space="efficientnet-lite0", pl_weight=1.0)
    with pytest.raises(ConfigError, match="growing"):
        replace(growing_config, loss=loss).check()
