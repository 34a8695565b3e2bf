import zipfile

import pytest
import torch
from PIL import Image

from stylegan import images
from stylegan.errors import DataError
from stylegan.image_size import ImageSize
from stylegan.latent.targets import read_targets
from stylegan.pixel_format import PixelFormat


@pytest.fixture
def pictures(tmp_path):
    for folder, name in (("a", "cat.png"), ("b", "cat.png"), ("b", "cat-2.png")):
        pixels = torch.randint(0, 256, [3, 40, 24], dtype=torch.uint8)
        images.write(pixels, tmp_path / folder / name)
    return tmp_path


def test_pictures_of_any_size_become_squares_of_the_network_s(pictures):
    (target,) = read_targets(
        [pictures / "a" / "cat.png"], size=ImageSize(16, 16), pixels=PixelFormat()
    )
    assert target.image.shape == (3, 16, 16)
    with Image.open(pictures / "a" / "cat.png") as picture:
        expected = picture.crop((0, 8, 24, 32)).resize((16, 16), Image.Resampling.LANCZOS)
    assert torch.equal(target.image, images.from_pil(expected))
    (grey,) = read_targets(
        [pictures / "a" / "cat.png"], size=ImageSize(16, 16), pixels=PixelFormat(num_channels=1)
    )
    assert grey.image.shape == (1, 16, 16)
    assert len(target.sha256) == 64
    assert target.sha256 != grey.sha256


def test_every_picture_has_a_name_of_its_own(pictures):
    found = read_targets(
        [pictures / "a", pictures / "b", pictures / "a"], size=ImageSize(8, 8), pixels=PixelFormat()
    )
    assert [target.name for target in found] == ["cat", "cat-2", "cat-3", "cat-4"]


def test_zips_are_read_and_a_number_is_spread_over_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for index in range(10):
            pixels = torch.full([3, 8, 8], index, dtype=torch.uint8)
            archive.writestr(f"{index}.png", images.png_bytes(pixels))
    found = read_targets([tmp_path / "p.zip"], size=ImageSize(8, 8), pixels=PixelFormat(), num=5)
    assert [target.name for target in found] == ["0", "2", "4", "6", "8"]
    assert found[1].path == f"{tmp_path / 'p.zip'}/2.png"
    assert (
        len(read_targets([tmp_path / "p.zip"], size=ImageSize(8, 8), pixels=PixelFormat(), num=50))
        == 10
    )


def test_a_picture_that_is_named_and_cannot_be_used_is_reported(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.png: not an image"):
        read_targets([tmp_path / "bad.png"], size=ImageSize(8, 8), pixels=PixelFormat())
    with pytest.raises(DataError, match="none does not exist"):
        read_targets([tmp_path / "none"], size=ImageSize(8, 8), pixels=PixelFormat())


def test_one_in_a_folder_is_passed_over_with_a_warning(pictures, caplog):
    (pictures / "a" / "bad.png").write_bytes(b"no image")
    with caplog.at_level("WARNING", "stylegan"):
        found = read_targets([pictures / "a"], size=ImageSize(8, 8), pixels=PixelFormat())
    assert len(found) == 1
    assert "bad.png: not an image" in caplog.text
    (pictures / "a" / "cat.png").unlink()
    with pytest.raises(DataError, match="no usable image"):
        read_targets([pictures / "a"], size=ImageSize(8, 8), pixels=PixelFormat())
