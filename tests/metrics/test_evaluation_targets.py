"""What is measured, and what it is compared with."""

import pytest
import torch
from metric_helpers import plain_generator

from stylegan import images
from stylegan.data.pictures import Pictures
from stylegan.errors import DataError
from stylegan.image_size import ImageSize
from stylegan.metrics.protocols import parse
from stylegan.metrics.targets import ImagesTarget, NetworkTarget, RealImages
from stylegan.models.registry import create


@pytest.mark.parametrize(("lod", "side"), [(0.0, 16), (0.5, 16), (1.0, 8), (1.5, 8)])
def test_the_side_of_a_growing_network_is_that_of_its_images(lod, side):
    generator = create("progan", 16, channel_base=64, channel_max=6).generator.eval()
    generator.lod = lod
    target = NetworkTarget(generator=generator, origin={})
    (image,) = next(target.source(1).chunks([0]))
    assert target.size == ImageSize(side, side)
    assert target.facts(1)["side"] == side
    assert image.shape == (3, side, side)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_those_of_the_images(tmp_path, channels):
    target = NetworkTarget(generator=plain_generator(img_channels=channels), origin={})
    (image,) = next(target.source(1).chunks([0]))
    assert target.num_channels == len(image) == channels
    images.write(image, tmp_path / "0.png")
    pictures = Pictures(tmp_path)
    assert ImagesTarget(images=pictures).num_channels == channels
    assert RealImages(images=pictures).num_channels == channels


def test_images_in_files_must_be_as_many_as_the_metric_says(smooth_folder):
    target = ImagesTarget(images=Pictures(smooth_folder), size=ImageSize(16, 16))
    assert target.source(150).num == target.facts(150)["num"] == 150
    with pytest.raises(DataError, match=r"has 150 images, and the metric needs 151"):
        target.source(151)


def test_real_images_are_flipped_by_their_seed_if_training_flipped_them(smooth_folder):
    pictures = Pictures(smooth_folder)
    made = []
    for options in ({"is_mirrored": True, "seed": 1}, {"is_mirrored": True, "seed": 2}, {}):
        reals = RealImages(images=pictures, size=ImageSize(16, 16), **options)
        chunk = torch.stack([*next(reals.source(parse("fid64")).chunks([0]))])
        made.append(chunk)
        facts = reals.facts(parse("fid64"))
        assert facts["mirrored"] == ("seed" in options)
        assert facts["mirror_seed"] == options.get("seed")
        assert not reals.facts(parse("fid64_full"))["mirrored"]
    assert not torch.equal(made[0], made[1])
    assert torch.equal(made[2], torch.stack([pictures[index] for index in range(64)]))
