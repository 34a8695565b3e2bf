import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stylegan.errors import WeightsError
from stylegan.latents import lerp, slerp
from stylegan.metrics import path_length
from stylegan.metrics.path_length import (
    filtered_mean,
    first_image,
    path_length_values,
    prepare_for_distance,
    prepared_side,
)
from stylegan.metrics.protocols import PathLengthProtocol, parse
from stylegan.models import stylegan2
from stylegan.pixel_format import PixelFormat
from stylegan.rng import generator_for

ROUNDING = 5e-3
"""Of single values: a step of 1e-4 has 3 digits in float32. Means have more, as it averages out."""


class Quadratic(nn.Module):
    """Squared Euclidean distance of pixels; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[Tensor, Tensor]] = []

    def view(self, images: Tensor, pixels: PixelFormat) -> Tensor:
        return pixels.flat(images)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        self.shown.append((a, b))
        return (a - b).square().flatten(1).sum(dim=1)


class Linear(nn.Module):
    """A generator whose w is B z, and whose image is A w, or A times the normalized z."""

    def __init__(self, *, z_dim: int = 64, side: int = 8, spherical: bool = False) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_ws = 2
        self.pixels = PixelFormat(num_channels=1)
        self.compute_dtype = torch.float32
        self.map_weight = nn.Parameter(
            torch.eye(z_dim) if spherical else torch.randn(z_dim, z_dim) / z_dim**0.5
        )
        basis = torch.linalg.qr(torch.randn(side * side, z_dim)).Q
        self.image_weight = nn.Parameter(basis if spherical else torch.randn(side * side, z_dim))
        self.side = side

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        w = z @ self.map_weight.T
        return w[:, None].expand(-1, self.num_ws, -1)

    def synthesis(self, ws: Tensor, *, noise_mode: str, generator: torch.Generator) -> Tensor:
        assert noise_mode == "random"
        return (ws[:, -1] @ self.image_weight.T).view(-1, 1, self.side, self.side)


class Noise(Linear):
    """A generator whose images are nothing but their noise."""

    def synthesis(self, ws: Tensor, *, noise_mode: str, generator: torch.Generator) -> Tensor:
        return torch.randn(len(ws), 1, self.side, self.side, generator=generator)


def protocol(name: str) -> PathLengthProtocol:
    found = parse(name)
    assert isinstance(found, PathLengthProtocol)
    return found


def measure(generator: nn.Module, name: str, *, size: int = 8, index: int = 0, seed: int = 0):
    return path_length_values(
        generator, Quadratic(), protocol(name), seed=seed, index=index, size=size
    )


@pytest.fixture
def network(generator_config) -> stylegan2.Generator:
    made = stylegan2.Generator(generator_config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return made


@pytest.mark.parametrize("name", ["ppl2_wend", pytest.param("ppl2_wfull", marks=pytest.mark.slow)])
def test_of_a_generator_linear_in_w_each_pair_has_the_length_of_its_path(name):
    generator = Linear()
    stream = generator_for("path latents", seed=3, nimg=5 * 32)
    z0, z1 = torch.randn([2, 32, 64], generator=stream)
    path = (z1 - z0) @ generator.map_weight.T @ generator.image_weight.T
    values = measure(generator, name, size=32, index=5, seed=3)
    assert values.dtype == torch.float64
    torch.testing.assert_close(
        values, path.double().square().sum(dim=1).detach(), rtol=ROUNDING, atol=0
    )


@pytest.mark.parametrize("name", ["ppl2_wend", pytest.param("ppl2_wfull", marks=pytest.mark.slow)])
def test_of_a_generator_linear_in_w_the_mean_is_the_closed_form(name, monkeypatch):
    monkeypatch.setattr(path_length, "PAIRS_AT_ONCE", 4096)
    generator = Linear(z_dim=256, side=16, spherical=True)
    values = torch.cat([measure(generator, name, size=4096, index=index) for index in range(24)])
    # w1 - w0 is normal with covariance 2 I, so |A (w1 - w0)|^2 is 2 chi^2 of 256 numbers, and the
    # mean of 98,304 of them has a relative deviation of sqrt(2 / 256 / 98304) = 2.8e-4.
    mean = filtered_mean(values, lowest=0, highest=100)
    assert mean == pytest.approx(2 * 256, rel=1e-3)


@pytest.mark.parametrize("name", ["ppl2_zend", "ppl2_zfull"])
def test_of_a_generator_linear_in_z_the_mean_is_that_of_the_squared_angle(name, monkeypatch):
    monkeypatch.setattr(path_length, "PAIRS_AT_ONCE", 4096)
    dim = 64
    generator = Linear(z_dim=dim, spherical=True)
    values = torch.cat([measure(generator, name, size=4096, index=index) for index in range(24)])
    # The angle of two random directions has the density sin^(dim - 2).
    angles = np.linspace(0, math.pi, 100_001)
    weights = np.sin(angles) ** (dim - 2)
    expected = (angles**2 * weights).sum() / weights.sum()
    assert filtered_mean(values, lowest=0, highest=100) == pytest.approx(expected, rel=2e-3)
    stream = generator_for("path latents", seed=0, nimg=0)
    z0, z1 = torch.randn([2, 4096, dim], generator=stream).double()
    exact = torch.acos(torch.cosine_similarity(z0, z1)).square()
    torch.testing.assert_close(values[:4096], exact, rtol=ROUNDING, atol=0)


def test_full_paths_are_sampled_along_them_and_ends_at_their_start():
    generator = Linear(z_dim=16, spherical=True)
    stream = generator_for("path latents", seed=0, nimg=0)
    z0, z1 = torch.randn([2, 64, 16], generator=stream)
    places = torch.rand([64], generator=stream, dtype=torch.float64)
    assert 0.3 < places.mean() < 0.7
    for name, expected in (
        ("ppl2_wend", z0),
        ("ppl2_wfull", lerp(z0, z1, places[:, None])),
        ("ppl2_zend", nn.functional.normalize(z0)),
        ("ppl2_zfull", slerp(z0, z1, places[:, None])),
    ):
        distance = Quadratic()
        path_length_values(generator, distance, protocol(name), seed=0, index=0, size=64)
        images = torch.cat([first for first, _ in distance.shown])
        torch.testing.assert_close(
            images.flatten(1), (expected.float() @ generator.image_weight.T).detach()
        )


def test_the_noise_is_the_same_in_both_images_of_a_pair_and_differs_between_pairs():
    distance = Quadratic()
    values = path_length_values(Noise(), distance, protocol("ppl2_wfull"), seed=0, index=0, size=8)
    assert values.abs().max() == 0
    images = torch.cat([first for first, _ in distance.shown])
    assert len({tuple(image.flatten().tolist()) for image in images}) == 8


def test_values_depend_on_seed_and_index_only(network):
    whole = measure(network, "ppl2_wfull", size=8, index=1)
    assert torch.equal(measure(network, "ppl2_wfull", size=8, index=1), whole)
    assert not torch.equal(measure(network, "ppl2_wfull", size=8, index=2), whole)
    assert not torch.equal(measure(network, "ppl2_wfull", size=8, index=1, seed=1), whole)
    first = path_length_values(
        network, Quadratic(), protocol("ppl2_wfull"), seed=0, index=1, size=8, num=5
    )
    assert torch.equal(first, whole[:5])
    assert whole.min() > 0


def test_it_is_measured_in_float32_and_the_generator_left_as_it_was(network):
    whole = measure(network, "ppl2_wend")
    network.compute_dtype = torch.bfloat16
    assert torch.equal(measure(network, "ppl2_wend"), whole)
    assert network.compute_dtype == torch.bfloat16


def test_values_hardly_depend_on_the_length_of_the_step(network):
    # Rounding would show at the shorter step, 1e-4 of the path: it enters the value by its square.
    short = protocol("ppl2_wend")
    values = [
        path_length_values(network, Quadratic(), used, seed=0, index=0, size=32)
        for used in (short, replace(short, epsilon=1e-3))
    ]
    torch.testing.assert_close(*values, rtol=0.02, atol=0)


def test_labels_go_with_both_ends(generator_config):
    conditional = stylegan2.Generator(replace(generator_config, c_dim=3)).eval()
    options = {"seed": 0, "index": 0, "size": 6}
    one, other = torch.eye(3)[[0] * 6], torch.eye(3)[[1] * 6]
    for name in ("ppl2_wend", "ppl2_zend"):
        values = [
            path_length_values(conditional, Quadratic(), protocol(name), labels=labels, **options)
            for labels in (one, one, other)
        ]
        assert torch.equal(values[0], values[1])
        assert not torch.equal(values[0], values[2])


def test_the_image_of_a_pair_is_the_one_that_was_measured(network):
    for row in (0, 3, 4, 6):
        distance = Quadratic()
        used = protocol("ppl2_wfull")
        path_length_values(network, distance, used, seed=1, index=2, size=7)
        images = torch.cat([first for first, _ in distance.shown])
        image = first_image(network, used, seed=1, index=2, size=7, row=row)
        assert torch.equal(image, images[row])


def test_images_that_are_not_finite_are_refused():
    generator = Linear()
    with torch.no_grad():
        generator.image_weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="not finite"):
        measure(generator, "ppl2_wend")


def test_the_crop_is_the_centre_of_aligned_faces():
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    images = torch.stack([rows, columns])[None]
    cropped = prepare_for_distance(images, crop=True)
    assert cropped.shape == (1, 2, 8, 8)
    assert cropped[0, 0, :, 0].tolist() == list(range(6, 14))
    assert cropped[0, 1, 0].tolist() == list(range(4, 12))
    assert torch.equal(prepare_for_distance(images, crop=False), images)


@pytest.mark.parametrize(
    ("side", "crop", "expected"),
    [
        (1024, True, 256),
        (1024, False, 256),
        (512, True, 256),
        (512, False, 256),
        (256, True, 128),
        (256, False, 256),
        (8, True, 4),
        (4, False, 4),
    ],
)
def test_larger_images_are_reduced_after_the_crop(side, crop, expected):
    assert prepare_for_distance(torch.zeros(1, 1, side, side), crop=crop).shape[2:] == (
        expected,
        expected,
    )
    assert prepared_side(side, crop=crop) == expected


def test_the_reduction_averages_boxes():
    images = torch.rand(1, 1, 512, 512)
    expected = images.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    torch.testing.assert_close(prepare_for_distance(images, crop=False), expected)


def test_the_crop_reaches_the_distance(network):
    for name, side in (("ppl_wend", 8), ("ppl2_wend", 16)):
        distance = Quadratic()
        path_length_values(network, distance, protocol(name), seed=0, index=0, size=4)
        assert distance.shown[0][0].shape == (4, 3, side, side)


def test_a_crop_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 8"):
        prepare_for_distance(torch.zeros(1, 1, 4, 4), crop=True)
    assert prepared_side(4, crop=True) == 0


@pytest.mark.parametrize("num", [1, 2, 50, 100, 101, 250, 1000])
@pytest.mark.parametrize(("lowest", "highest"), [(1, 99), (0, 100), (25, 75)])
def test_the_filtered_mean_is_numpys(num, lowest, highest):
    values = torch.rand(num, dtype=torch.float64)
    low = np.percentile(values, lowest, method="lower")
    high = np.percentile(values, highest, method="higher")
    expected = values[(values >= low) & (values <= high)].mean().item()
    assert filtered_mean(values, lowest=lowest, highest=highest) == pytest.approx(
        expected, rel=1e-12
    )


def test_one_value_beyond_all_others_does_not_count():
    # Of 201 values the 1st and the 99th percentile lie exactly on two of them.
    values = torch.cat([torch.ones(200), torch.tensor([1e9])])
    assert filtered_mean(values) == 1


@pytest.mark.parametrize(("num", "lowest", "highest"), [(0, 1, 99), (5, 60, 50), (5, -1, 99)])
def test_a_mean_of_nothing_is_refused(num, lowest, highest):
    with pytest.raises(ValueError, match="filtered mean"):
        filtered_mean(torch.ones(num), lowest=lowest, highest=highest)
