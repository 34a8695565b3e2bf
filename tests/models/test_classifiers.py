import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize
from stylegan.models.classifiers import Classifier
from stylegan.models.registry import create
from stylegan.ops.box import downsample_box


def classifier(name="stylegan-f", *, resolution=8, **options):
    sizes = {"channel_base": 64, "channel_max": 6, **options}
    network = create(name, resolution, **sizes).discriminator.eval()
    return Classifier(name="bald", index=4, network=network, sha256="0" * 64)


def test_larger_images_are_reduced_by_box_means():
    bald = classifier(mbstd_num_channels=0)
    images = torch.randn(3, 3, 32, 32)
    logits = bald.logits(images)
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    small = downsample_box(images, factor=4)
    torch.testing.assert_close(logits, bald.network(small).squeeze(1), rtol=0, atol=0)
    torch.testing.assert_close(bald.logits(small), logits, rtol=0, atol=0)
    assert bald.logits(images[:0]).shape == (0,)


@pytest.mark.parametrize("num", [1, 3, 4, 7])
def test_images_beside_whole_groups_are_a_group_of_their_own(num):
    bald = classifier(mbstd_group_size=4)
    images = torch.randn(num, 3, 8, 8)
    whole = num // 4 * 4
    parts = [part for part in (images[:whole], images[whole:]) if len(part)]
    expected = torch.cat([bald.network(part).squeeze(1) for part in parts])
    torch.testing.assert_close(bald.logits(images), expected, rtol=0, atol=0)


def test_without_a_group_size_all_images_are_one_group():
    bald = classifier(mbstd_group_size=None)
    images = torch.randn(7, 3, 8, 8)
    assert torch.equal(bald.logits(images), bald.network(images).squeeze(1))
    assert bald.logits(images[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["progan", "stylegan2-e", "msg-stylegan2"])
def test_discriminators_of_every_family_will_do(name):
    assert classifier(name).logits(torch.randn(4, 3, 16, 16)).shape == (4,)


@pytest.mark.parametrize(
    ("channels", "side", "message"),
    [
        (1, 8, "the classifier bald takes images of 3 channels, got 1"),
        (3, 4, "the classifier bald takes images of 8x8, or that times a power of two, got 4x4"),
        (3, 24, "got 24x24"),
        (3, 12, "got 12x12"),
    ],
)
def test_images_of_another_kind_are_refused(channels, side, message):
    with pytest.raises(ConfigError, match=message):
        classifier().logits(torch.zeros(2, channels, side, side))
    with pytest.raises(ConfigError, match=message):
        classifier().check(img_channels=channels, size=ImageSize(side, side))
    classifier().check(img_channels=3, size=ImageSize(64, 64))


def test_images_of_another_shape_are_refused_and_images_of_its_shape_reduced():
    with pytest.raises(ConfigError, match="got 8x16"):
        classifier().logits(torch.zeros(2, 3, 8, 16))
    wide = classifier(resolution="6x10")
    images = torch.randn(3, 3, 12, 20)
    assert torch.equal(wide.logits(images), wide.logits(downsample_box(images)))


def test_a_network_that_gives_no_one_number_is_refused():
    with pytest.raises(ValueError, match="no labels, got 2"):
        classifier(c_dim=2)
    growing = create("stylegan-f", 8, channel_base=64, channel_max=6).discriminator
    growing.lod = 0.5
    with pytest.raises(ValueError, match=r"lod 0, got 0\.5"):
        Classifier(name="bald", index=4, network=growing, sha256="")
