"""Images of any size, for metrics."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image, features

from stylegan import images
from stylegan.data.dataset import ImageDataset
from stylegan.data.pictures import Pictures
from stylegan.data.prepare import PrepareOptions, prepare
from stylegan.data.readers import LOSSY_FORMATS
from stylegan.errors import DataError
from stylegan.image_size import ImageSize


def write(folder, name, *shape):
    images.write(torch.full(shape, 7, dtype=torch.uint8), folder / name)


def test_images_keep_their_sizes_and_come_by_name(tmp_path):
    write(tmp_path, "b.png", 3, 5, 9)
    write(tmp_path, "a.png", 1, 4, 4)
    pictures = Pictures(tmp_path)
    assert [tuple(pictures[index].shape) for index in range(2)] == [(1, 4, 4), (3, 5, 9)]
    assert pictures.sizes == [(4, 4), (9, 5)]
    assert pictures.size is None
    assert pictures.preparation is None


@pytest.mark.parametrize(("channels", "expected"), [((1, 1), 1), ((3, 3), 3), ((1, 3), None)])
def test_grey_and_color_are_distinguished(tmp_path, channels, expected):
    for index, number in enumerate(channels):
        write(tmp_path, f"{index}.png", number, 4, 4)
    assert Pictures(tmp_path).num_channels == expected


def test_only_rank_0_reports_what_is_left_out(tmp_path, caplog, monkeypatch):
    write(tmp_path, "a.png", 3, 4, 4)
    (tmp_path / "b.png").write_bytes(b"no image")
    monkeypatch.setattr("stylegan.distributed.is_main_process", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert len(Pictures(tmp_path)) == len(ImageDataset(tmp_path)) == 1
    assert caplog.text == ""


def test_what_cannot_be_decoded_is_left_out_by_name(tmp_path, caplog):
    write(tmp_path, "a.png", 3, 4, 4)
    (tmp_path / "b.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        pictures = Pictures(tmp_path)
    assert len(pictures) == 1
    assert pictures.size == ImageSize(4, 4)
    assert "skipped 1 file: not an image (b.png)" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="has no image that Pillow can decode"):
        Pictures(tmp_path)


def test_a_file_that_changes_is_reported_by_name(tmp_path):
    write(tmp_path, "a.png", 3, 4, 4)
    pictures = Pictures(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png in .*: empty"):
        pictures[0]


def test_how_a_set_was_prepared_is_known(tmp_path):
    write(tmp_path / "raw", "a.png", 3, 20, 30)
    prepare(
        tmp_path / "raw", tmp_path / "set.zip", options=PrepareOptions(resolution=8, filter="box")
    )
    assert Pictures(tmp_path / "set.zip").preparation == {
        "crop": "center",
        "filter": "box",
        "background": None,
    }


def test_a_grid_among_samples_is_no_sample(tmp_path, caplog):
    for name in ("a.png", "grid.png"):  # a user's file may have any name
        write(tmp_path, name, 3, 4, 4)
    images.write_grid(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "overview.png")
    pictures = Pictures(tmp_path)
    assert len(pictures) == 2
    assert caplog.messages == [
        "skipped 1 file: a grid of images, written by stylegan (overview.png)"
    ]


@pytest.mark.parametrize(
    ("suffix", "options", "expected"),
    [
        ("png", {}, "PNG"),
        ("jpg", {}, "JPEG"),
        ("webp", {"lossless": True}, "WEBP"),
        ("webp", {}, "WEBP (lossy)"),
        ("webp", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}, "WEBP (lossy)"),
        ("jp2", {"irreversible": False}, "JPEG2000"),
        ("jp2", {"irreversible": True}, "JPEG2000 (lossy)"),
        ("tiff", {}, "TIFF"),
        ("tiff", {"compression": "jpeg"}, "TIFF (lossy)"),
        ("bmp", {}, "BMP"),
        ("avif", {}, "AVIF"),
    ],
)
def test_formats_say_whether_pixels_were_changed(tmp_path, suffix, options, expected):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    levels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(levels).save(path, **options)
    assert Pictures(tmp_path).formats == {expected: 1}
    with Image.open(path) as image:
        is_same = np.array_equal(np.asarray(image.convert("RGB")), levels)
    assert (expected in LOSSY_FORMATS) is not is_same
