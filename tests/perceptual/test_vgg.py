import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import made_up
from stylegan.errors import ConfigError
from stylegan.perceptual.vgg import LPIPS, VGG16

WEIGHTS = torch.linspace(0, 1e-3, 512 * 49)


@pytest.fixture(scope="module")
def lpips():
    return LPIPS(made_up.vgg16_convolutions())


@pytest.fixture(scope="module")
def vgg16():
    """The first dense layer sums with weights by place, the second doubles; 400 MB as views."""
    state = made_up.vgg16_convolutions()
    state["classifier.0.weight"] = WEIGHTS.expand(4096, -1)
    state["classifier.0.bias"] = torch.arange(4096.0)
    state["classifier.3.weight"] = 2 * torch.eye(4096)
    state["classifier.3.bias"] = torch.full([4096], -2000.0)
    state["classifier.6.weight"] = torch.zeros(1000, 4096)  # of no use here
    return VGG16(state)


def images(num: int, size: int) -> Tensor:
    return torch.rand(num, 3, size, size) * 2 - 1


def pooled_plainly(x: Tensor) -> Tensor:
    """VGG16's convolutions once more, as the table tells them."""
    state, number = made_up.vgg16_convolutions(), 0
    for num_convolutions in (2, 2, 3, 3, 3):
        for _ in range(num_convolutions):
            weight, bias = (state[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=1).relu()
            number += 2
        x = F.max_pool2d(x, 2, stride=2)
        number += 1
    return x


@pytest.mark.slow
def test_features_are_the_second_dense_layer_after_its_rectifier(vgg16):
    pictures = torch.randint(0, 256, [2, 3, 32, 32], dtype=torch.uint8)
    features = vgg16(vgg16.prepare(pictures))
    x = F.interpolate(pictures / 255, size=224, mode="bilinear")
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / deviation[:, None, None]
    total = (pooled_plainly(x).flatten(1) * WEIGHTS).sum(dim=1)
    expected = F.relu(2 * F.relu(total[:, None] + torch.arange(4096.0)) - 2000)
    assert features.shape == (2, vgg16.num_features)
    assert (expected[:, 0] == 0).all()
    # 2000 is taken from sums of about 2000, so that 1e-5 of these is left
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=0.05)


def test_a_smaller_image_skips_pixels(vgg16):
    pattern = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).repeat(224)
    prepared = vgg16.prepare(pattern.expand(1, 3, 8, 896))
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(prepared, white[:, None, None].expand(1, 3, 224, 224))


def test_it_gives_no_probabilities(vgg16):
    with pytest.raises(ConfigError, match="vgg16 gives no probabilities of classes"):
        vgg16.probabilities(torch.zeros(1, 4096))


def test_the_embedding_of_256_pixels_has_the_official_length(lpips):
    assert lpips.embed(images(1, 256)).shape == (1, 7_995_392)  # spec 10.1


def test_the_distance_is_the_squared_euclidean_one_of_embeddings(lpips):
    a, b = images(5, 32), images(5, 32)  # more than one part
    expected = (lpips.embed(a) - lpips.embed(b)).square().sum(dim=1)
    torch.testing.assert_close(lpips.distance(a, b), expected)
    assert lpips.distance(a, a).tolist() == [0] * 5
    assert torch.equal(lpips.distance(a, b), lpips.distance(b, a))


def test_values_beyond_the_nominal_range_are_not_clamped(lpips):
    a = images(1, 32)
    assert lpips.distance(a * 2, a * 3) > 1e-4


def test_grey_pictures_are_grey_in_all_channels(lpips):
    a, b = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    expected = lpips.distance(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1))
    assert torch.equal(lpips.distance(a, b), expected)


def test_gradients_reach_images_and_not_weights(lpips):
    a, b = images(1, 16), images(1, 16)
    a.requires_grad_()
    distance = lpips.distance(a, b)
    (grad,) = torch.autograd.grad(distance.sum(), a)
    step = 1e-3 * grad / grad.norm()
    change = lpips.distance(a.detach() + step, b) - lpips.distance(a.detach() - step, b)
    # Rectifiers bend within the step: a tenth.
    torch.testing.assert_close(change.item(), 2e-3 * grad.norm().item(), rtol=0.1, atol=0)
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_pairs_of_other_shapes_and_tiny_pictures_are_refused(lpips):
    with pytest.raises(ValueError, match="takes pairs"):
        lpips.distance(images(2, 16), images(1, 16))
    with pytest.raises(ValueError, match="16 pixels"):
        lpips.distance(images(1, 8), images(1, 8))
