"""Files whose end is blank."""

import io

import numpy as np
import pytest
from PIL import Image, features

from stylegan.data.readers import decode
from stylegan.errors import DataError

FORMATS = {
    "jpeg": {"format": "JPEG", "quality": 90},
    "progressive": {"format": "JPEG", "quality": 75, "progressive": True},
    "thumbnail": {"format": "JPEG", "quality": 90, "exif": b"Exif\0\0\xff\xd8\xff\xda\xff\xd9"},
    "grey": {"format": "JPEG", "mode": "L"},
    "cmyk": {"format": "JPEG", "mode": "CMYK"},
    "restart markers": {"format": "JPEG", "restart_marker_blocks": 1},
    "several pictures": {"format": "MPO", "save_all": True},
    "webp with alpha": {"format": "WEBP", "mode": "RGBA"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "lossy webp": {"format": "WEBP", "quality": 80},
    "animated webp": {"format": "WEBP", "lossless": True, "save_all": True},
    "png": {"format": "PNG"},
    "jpeg 2000": {"format": "JPEG2000"},
    "avif": {"format": "AVIF", "quality": 90},
}
AVAILABLE = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "avif" and not features.check("avif"), reason="Pillow without AVIF"
        ),
    )
    for name in FORMATS
]


def encoded(name, picture):
    buffer = io.BytesIO()
    options = dict(FORMATS[name])
    picture = picture.convert(options.pop("mode", "RGB"))
    if options.get("save_all"):
        options["append_images"] = [picture.rotate(90)]
    picture.save(buffer, **options)
    return buffer.getvalue()


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, [96, 96, 3], dtype=np.uint8))


@pytest.mark.parametrize("blank", [0x00, 0xFF])
@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("name", AVAILABLE)
def test_a_blank_end_is_damage(name, fraction, blank):
    data = encoded(name, noise())
    if name == "animated webp":  # of two frames, the first is decoded
        fraction /= 2
    num_kept = round(fraction * len(data))
    with pytest.raises(DataError, match="truncated or damaged"):
        decode(data[:num_kept] + bytes([blank]) * (len(data) - num_kept))


@pytest.mark.parametrize("name", AVAILABLE)
@pytest.mark.parametrize("color", ["black", "white", "gray", None])
def test_intact_files_of_one_color_are_decoded(name, color):
    picture = noise() if color is None else Image.new("RGB", (512, 512), color)
    data = encoded(name, picture)
    assert decode(data).image.size == picture.size
    assert decode(data + bytes(1000)).image.size == picture.size  # padding after the image


def test_a_picture_that_ends_in_one_color_is_decoded():
    pixels = np.asarray(noise().resize((512, 512))).copy()
    pixels[200:] = 0
    for name in ("jpeg", "lossless webp", "lossy webp", "png"):
        data = encoded(name, Image.fromarray(pixels))
        assert decode(data).image.size == (512, 512)
