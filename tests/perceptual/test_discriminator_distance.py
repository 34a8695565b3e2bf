import pytest
import torch

import stylegan
from stylegan.perceptual.discriminator import DiscriminatorDistance

PRESETS = ["progan", "stylegan-f", "stylegan2-d", "stylegan2-e", "stylegan2-f", "msg-stylegan2"]


def distance_of(preset, **options):
    networks = stylegan.create(preset, 16, channel_base=64, channel_max=6, **options)
    return DiscriminatorDistance(networks.discriminator)


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_zero_of_equal_images_and_grows_with_noise(preset, c_dim):
    distance = distance_of(preset, c_dim=c_dim)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    noise = torch.randn(3, 3, 16, 16)
    near, far = (distance.distance(images, images + s * noise) for s in (0.01, 0.3))
    assert distance.distance(images, images).tolist() == [0, 0, 0]
    assert (near > 0).all()
    assert (far > 10 * near).all()
    assert (far < 4).all()
    assert len(list(distance.layers(images))) == 2  # 16x16 and 8x8


def test_the_embedding_s_squared_distance_is_the_distance():
    distance = distance_of("stylegan2-e")
    a, b = torch.rand(2, 2, 3, 16, 16)
    squared = (distance.embed(a) - distance.embed(b)).square().sum(dim=1)
    torch.testing.assert_close(squared, distance.distance(a, b))


def test_an_image_s_distance_does_not_depend_on_its_company():
    distance = distance_of("stylegan2-f")  # its head compares the images of a batch
    a, b = torch.rand(2, 5, 3, 16, 16)  # no multiple of its groups
    alone = distance.distance(a[:1], b[:1])
    torch.testing.assert_close(distance.distance(a, b)[:1], alone)


def test_gradients_reach_the_images_and_hooks_do_not_stay():
    distance = distance_of("stylegan2-e", c_dim=3)
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    distance.distance(image, torch.zeros(1, 3, 16, 16)).sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(not module._forward_hooks for module in distance.modules())
