"""The files are written tag by tag, from the description of TIFF 6.0."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from stylegan.data.check import examine
from stylegan.data.dataset import ImageDataset
from stylegan.data.readers import Reading, decode, read_raster
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (8, 16), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (8, 16, 3), dtype=np.uint8)


def tiff(*pages, order="<", kinds=None):
    """Write uncompressed pages [H, W] or [H, W, C], C 3 or 4; `kinds` are their NewSubfileType."""
    data = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 0))
    link = 4
    for page, kind in zip(pages, kinds or [0] * len(pages), strict=True):
        (height, width), bits = page.shape[:2], 8 * page.dtype.itemsize
        channels = 1 if page.ndim == 2 else page.shape[2]
        pixels, depths = len(data), len(data) + page.nbytes
        data += page.astype(page.dtype.newbyteorder(order)).tobytes()
        data += struct.pack(f"{order}{channels}H", *[bits] * channels)
        data += bytes(len(data) % 2)
        short, long = 3, 4
        rows = [(254, long, 1, kind), (256, long, 1, width), (257, long, 1, height)]
        rows += [(258, short, channels, bits if channels == 1 else depths), (259, short, 1, 1)]
        rows += [(262, short, 1, 1 if channels == 1 else 2), (273, long, 1, pixels)]
        rows += [(277, short, 1, channels), (278, long, 1, height), (279, long, 1, page.nbytes)]
        rows += [(338, short, 1, 2)] if channels == 4 else []
        data[link : link + 4] = struct.pack(f"{order}I", len(data))
        data += struct.pack(f"{order}H", len(rows))
        for tag, kind_of_value, num, value in rows:
            is_short = kind_of_value == short and num == 1
            packed = struct.pack(
                f"{order}HH" if is_short else f"{order}I", *[value, 0][: 1 + is_short]
            )
            data += struct.pack(f"{order}HHI", tag, kind_of_value, num) + packed
        link = len(data)
        data += bytes(4)
    return bytes(data)


@pytest.fixture
def stack(tmp_path):
    """A folder with a file of three pages, beside a TIFF of one page and a PNG."""
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(tiff(COLOR, COLOR // 2, COLOR // 4))
    (tmp_path / "c.tiff").write_bytes(tiff(GREY))
    return tmp_path


def test_each_page_is_an_image(stack):
    source = open_source(stack)
    pages = [f"b.tif/{number:06d}" for number in range(3)]
    assert source.images == ("a.png", *pages, "c.tiff")
    for name, expected in zip(pages, (COLOR, COLOR // 2, COLOR // 4), strict=True):
        assert np.array_equal(np.asarray(decode(source.read(name)).image), expected)
    copied = pickle.loads(pickle.dumps(source))
    assert copied.read(pages[2]) == source.read(pages[2])
    alone = open_source(stack / "b.tif")
    assert [alone.read(name) for name in alone.images] == [source.read(name) for name in pages]


def test_pages_in_a_zip_are_named_and_not_dropped(stack, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(stack / "b.tif", "b.tif")
    source = open_source(tmp_path / "set.zip")
    with pytest.raises(DataError, match=r"several pages \(put the file into a folder"):
        decode(source.read("b.tif"))


def test_smaller_copies_and_masks_are_not_images(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(COLOR, GREY[::2, ::2], GREY, kinds=[0, 1, 4]))
    (tmp_path / "b.tif").write_bytes(tiff(COLOR, GREY, COLOR // 2, kinds=[0, 1, 2]))
    source = open_source(tmp_path)
    assert source.images == ("a.tif", "b.tif/000000", "b.tif/000001")
    assert decode(source.read("a.tif")).image.tobytes() == COLOR.tobytes()
    assert decode(source.read("b.tif/000001")).image.tobytes() == (COLOR // 2).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("num_pages", [1, 2])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_to_8(tmp_path, order, num_pages, channels):
    levels = np.arange(0, 65536, 128, dtype=np.uint16).reshape(16, 32)
    page = levels if channels == 1 else np.stack([levels] * channels, axis=2)
    if channels == 4:
        page[..., 3] = 65535
    (tmp_path / "a.tif").write_bytes(tiff(*[page] * num_pages, order=order))
    source = open_source(tmp_path / "a.tif")
    decoded = decode(source.read(source.images[-1]))
    image = np.asarray(decoded.image).astype(int)
    image = image if channels == 1 else image[..., 1]
    exact = levels / 257
    assert np.abs(image - exact).max() <= 0.5
    assert (image.min(), image.max()) == (0, 255)
    assert "scaled 16 bits to 8" in decoded.steps


def test_color_of_more_bits_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(np.zeros((8, 8, 3), np.uint32)))
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match="no usable image among 2 files"):
        ImageDataset(tmp_path)
    with pytest.raises(DataError, match=r"wrong mode uint32 .*\(save uint8, uint16 or float32\)"):
        decode((tmp_path / "a.tif").read_bytes())


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_channels_and_depth_of_a_file_are_kept(tmp_path, channels, kind, planar):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, channels)).astype(kind)
    array = array / np.float32(256) if kind == "float32" else array
    stored = array.transpose(2, 0, 1) if planar == "separate" else array
    options = {} if channels == 1 else {"planarconfig": planar}
    extra = {"extrasamples": ["unspecified"] * (channels - 1)} if channels > 1 else {}
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored if channels > 1 else array[:, :, 0],
        photometric="minisblack",
        **options,
        **extra,
    )
    reading = Reading(alpha="none")
    raster = read_raster((tmp_path / "a.tif").read_bytes(), reading)
    assert str(raster.pixels.depth) == kind
    if kind == "uint8" and channels == 3:
        return  # Pillow cannot tell it from RGB
    assert np.array_equal(raster.stored.numpy().transpose(1, 2, 0), array)
    assert open_source(tmp_path / "a.tif").read("000000") == (tmp_path / "a.tif").read_bytes()


def test_a_truncated_file_is_named_as_damaged(tmp_path):
    path = tmp_path / "a.tif"
    whole = tiff(COLOR, COLOR, COLOR)
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="truncated or damaged"):
            open_source(path)
        (entry,) = examine(open_source(tmp_path))
        assert (entry.reason or "").startswith(("truncated or damaged", "empty"))


def test_the_file_is_opened_once_for_all_pages(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(tiff(*[GREY] * 20))
    source = open_source(tmp_path / "a.tif")
    opened, open_image = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: (opened.append(a), open_image(*a, **k))[1])
    assert len({source.read(name) for name in source.images}) == 1
    assert len(opened) == 1
