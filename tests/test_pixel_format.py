import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan import images, png16
from stylegan.alpha import compose, premultiply
from stylegan.errors import ConfigError
from stylegan.pixel_format import PixelFormat, channel_means

RGBA = PixelFormat(num_channels=4, has_alpha=True)


def bands(num, depth="uint8", **options):
    return PixelFormat(num_channels=num, depth=depth, **options)


def soft_disc(side=32):
    """An orange disc with a soft edge on a transparent ground: straight uint8 [4, side, side]."""
    axis = torch.arange(side) - side / 2 + 0.5
    radius = (axis[:, None].square() + axis.square()).sqrt()
    alpha = (255 * (side / 3 - radius).div(4).add(0.5).clamp(0, 1)).round()
    color = torch.tensor([255.0, 140.0, 20.0])[:, None, None].expand(3, side, side)
    return torch.cat([color, alpha[None]]).to(torch.uint8)


def test_a_ramp_of_16_bits_survives_the_way_to_float_and_back():
    ramp = torch.arange(65536).to(torch.uint16).reshape(1, 256, 256)
    there = bands(1, "uint16").to_float(ramp)
    assert there.dtype == torch.float32
    assert (there.min(), there.max()) == (-1, 1)
    assert torch.equal(bands(1, "uint16").to_stored(there), ramp)


@pytest.mark.parametrize("range", [(0.0, 1.0), (-1.0, 1.0), (-1024.0, 3072.0), (0.0, 65536.0)])
def test_a_ramp_of_floats_survives_the_way_to_float_and_back(range):
    low, high = range
    ramp = low + torch.arange(65536.0).reshape(1, 256, 256) * ((high - low) / 65536)
    pixels = bands(1, "float32", range=range)
    assert torch.equal(pixels.to_stored(pixels.to_float(ramp)), ramp)


def test_every_visible_color_and_alpha_survives_premultiplication():
    alpha, color = torch.meshgrid(torch.arange(1, 256), torch.arange(256), indexing="ij")
    stored = torch.stack([color, 255 - color, color // 2, alpha]).to(torch.uint8)
    assert torch.equal(RGBA.to_stored(RGBA.to_float(stored)), stored)


def test_transparent_pixels_get_the_color_of_their_neighbors():
    disc = soft_disc()
    disc[:3, disc[3] == 0] = 0  # black where it is transparent, as in many files
    stored = RGBA.to_stored(RGBA.to_float(disc))
    expected = torch.tensor([255, 140, 20])[:, None, None].expand(3, 32, 32)
    assert (stored[:3].int() - expected).abs().max() <= 1
    assert torch.equal(stored[3], disc[3])
    nothing = RGBA.to_stored(torch.full([4, 5, 7], -1.0))
    assert torch.equal(nothing, torch.zeros(4, 5, 7, dtype=torch.uint8))


@pytest.mark.parametrize("background", [-1.0, 1.0])
def test_a_reduced_disc_has_no_fringe_on_black_and_white(background):
    x = RGBA.to_float(soft_disc())
    small = RGBA.to_float(RGBA.to_stored(torch.nn.functional.avg_pool2d(x, 4)))
    expected = torch.nn.functional.avg_pool2d(compose(x, background), 4)
    assert (compose(small, background) - expected).abs().max() < 2 / 255


def test_composition_is_that_of_pillow():
    stored = torch.randint(0, 256, [4, 9, 8], dtype=torch.uint8)
    white = Image.new("RGBA", (8, 9), "white")
    expected = images.from_pil(
        Image.alpha_composite(white, images.pil_image(stored)).convert("RGB")
    )
    x = RGBA.as_rgb(RGBA.to_float(stored))
    assert (images.to_uint8(x).int() - expected.int()).abs().max() <= 1
    assert (images.over_color(stored).int() - expected.int()).abs().max() <= 1


def test_black_and_transparent_is_the_lowest_value():
    x = premultiply(torch.tensor([1.0, 0.0, -1.0, -1.0])[:, None, None])
    assert x.flatten().tolist() == [-1, -1, -1, -1]


def test_other_channels_are_seen_as_means_of_thirds():
    x = torch.rand(2, 7, 3, 3)
    seen = bands(7).as_rgb(x)
    torch.testing.assert_close(seen[:, 0], x[:, :3].mean(dim=1))
    torch.testing.assert_close(seen[:, 1], x[:, 2:5].mean(dim=1))
    torch.testing.assert_close(seen[:, 2], x[:, 4:].mean(dim=1))
    two = bands(2).as_rgb(x[:, :2])
    torch.testing.assert_close(two[:, 1], x[:, :2].mean(dim=1))
    assert torch.equal(two[:, [0, 2]], x[:, :2])
    assert torch.equal(bands(1).as_rgb(x[0, :1]), x[0, :1].expand(3, 3, 3))
    assert torch.equal(bands(3).as_rgb(x[:, :3]), x[:, :3])
    assert torch.equal(channel_means(3, 1), torch.full([1, 3], 1 / 3))


def test_pictures_of_each_format_can_be_shown():
    for pixels, channels in ((bands(1), 1), (bands(3), 3), (RGBA, 4), (bands(4), 3), (bands(9), 3)):
        shown = pixels.shown(torch.zeros(2, pixels.num_channels, 4, 4))
        assert (shown.dtype, list(shown.shape)) == (torch.uint8, [2, channels, 4, 4])
        assert pixels.seen(torch.zeros(2, pixels.num_channels, 4, 4)).shape[1] in (1, 3)


def test_grids_of_transparent_pictures_have_a_checkerboard():
    pictures = torch.zeros(2, 4, 16, 16, dtype=torch.uint8)
    pictures[1] = 255
    sheet = images.grid(pictures, columns=2)
    assert sheet.shape == (3, 16, 32)
    assert sheet[0, 0, :16].tolist() == [255] * 8 + [204] * 8
    assert (sheet[:, :, 16:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_files_of_16_bits_hold_the_pixels(channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (31, 45, channels), dtype=np.uint16)
    data = png16.encode(pixels)
    assert png16.is_sixteen_bits(data)
    assert np.array_equal(png16.decode(data), pixels)
    with Image.open(io.BytesIO(data)) as file:
        file.verify()
    assert png16.encode(pixels) == data


def test_grey_with_alpha_of_16_bits_becomes_rgba():
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, 2), dtype=np.uint16)
    rows = pixels.astype(">u2").view(np.uint8).reshape(5, -1)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 7, 5, 16, 4, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts.items()
    )
    assert np.array_equal(png16.decode(data), pixels[:, :, [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        (bands(1), ".png"),
        (RGBA, ".png"),
        (bands(4), ".npy"),
        (bands(3, "uint16"), ".png"),
        (bands(7, "uint16"), ".npy"),
        (bands(1, "float32"), ".npy"),
    ],
    ids=str,
)
def test_files_hold_the_pixels_exactly(pixels, suffix):
    stored = pixels.to_stored(torch.rand(pixels.num_channels, 6, 5) * 2 - 1)
    data = pixels.file_bytes(stored)
    assert pixels.suffix == suffix
    if suffix == ".npy":
        found = np.load(io.BytesIO(data))
    elif pixels.depth == "uint16":
        found = png16.decode(data)
    else:
        found = images.read(io.BytesIO(data)).permute(1, 2, 0).numpy()
    assert np.array_equal(found, stored.permute(1, 2, 0).numpy())


def test_formats_survive_json_and_have_names():
    for pixels, name in (
        (bands(1), "L"),
        (RGBA, "RGBA"),
        (bands(4), "4 channels"),
        (bands(3, "uint16"), "RGB uint16"),
        (bands(2, "float32", range=(-2.0, 3.0)), "2 channels float32 [-2, 3]"),
    ):
        assert str(pixels) == name
        assert PixelFormat.from_json(pixels.to_json()) == pixels
    for broken in (None, {"channels": 3}, {"channels": 0, "depth": "uint8"}):
        with pytest.raises(ValueError, match="no pixel format"):
            PixelFormat.from_json(broken)


@pytest.mark.parametrize(
    "options",
    [
        {"num_channels": 0},
        {"num_channels": 3, "has_alpha": True},
        {"depth": "uint8", "range": (0.0, 2.0)},
        {"depth": "float32", "range": (1.0, 1.0)},
        {"depth": "float64"},
    ],
)
def test_impossible_formats_are_refused(options):
    with pytest.raises(ConfigError):
        PixelFormat(**options)
