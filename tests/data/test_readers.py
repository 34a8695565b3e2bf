import importlib.util
import io
import os
import shutil
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from stylegan.data import readers
from stylegan.data.readers import decode, map_in_order, num_threads, parse_color
from stylegan.data.sources.open import open_source
from stylegan.errors import ConfigError, DataError
from stylegan.files import npy_bytes
from stylegan.image_size import ImageSize
from stylegan.latent.targets import read_targets
from stylegan.pixel_format import PixelFormat


def encoded(image, *, format="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def test_names_are_relative_and_sorted_and_litter_is_passed_over(tmp_path):
    for name in ["b/1.PNG", "a.jpg", "b.webp", "notes.txt", "b/dataset.json"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ["dataset.json", "prepare.json", ".DS_Store", "Thumbs.db", ".git/x.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = open_source(tmp_path)
    assert source.images == ("a.jpg", "b.webp", "b/1.PNG")
    assert source.left_out == (("notes.txt", "not an image (by its file name extension)"),)


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    assert open_source(tmp_path / "set").images == ("linked/a.png",)


def test_a_damaged_member_of_a_zip_is_distinguished(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"some bytes that are kept as they are")
    path.write_bytes(path.read_bytes().replace(b"some bytes", b"soma bytes"))
    with pytest.raises(DataError) as caught:
        open_source(path).read("a.png")
    assert caught.value.message.startswith("truncated or damaged in the zip (Bad CRC-32")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_images_come_unchanged(mode):
    levels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    image = Image.fromarray(levels).convert(mode)
    decoded = decode(encoded(image))
    assert decoded.image.mode == mode
    assert decoded.image.tobytes() == image.tobytes()
    assert decoded.steps == ()


def test_every_16_bit_level_is_scaled_to_the_nearest_8_bit_level():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(encoded(Image.fromarray(levels)))
    assert (decoded.image.mode, decoded.steps) == ("L", ("scaled 16 bits to 8",))
    expected = np.floor(levels / 257 + 0.5)  # 65535 = 255 * 257
    assert np.array_equal(np.asarray(decoded.image), expected)


def test_alpha_is_composed_on_the_background():
    levels = np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [255, 0, 0, 51]]], dtype=np.uint8)
    decoded = decode(encoded(Image.fromarray(levels)), background=(0, 0, 255))
    assert np.asarray(decoded.image).tolist() == [[[0, 0, 255], [255, 0, 0], [51, 0, 204]]]
    assert decoded.steps == ("composed RGBA on #0000ff",)


def test_grey_with_alpha_stays_grey_on_a_grey_background_only():
    levels = np.array([[[100, 0], [100, 255]]], dtype=np.uint8)
    data = encoded(Image.fromarray(levels, mode=None))
    on_white = decode(data).image
    assert (on_white.mode, np.asarray(on_white).tolist()) == ("L", [[255, 100]])
    on_red = decode(data, background=(255, 0, 0)).image
    assert (on_red.mode, np.asarray(on_red).tolist()) == ("RGB", [[[255, 0, 0], [100] * 3]])


def test_a_transparent_color_of_a_palette_or_of_rgb_is_composed_too():
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    decoded = decode(encoded(palette, transparency=1))
    assert np.asarray(decoded.image).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    decoded = decode(encoded(keyed, transparency=(1, 2, 3)))
    assert np.asarray(decoded.image).tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize(("mode", "format"), [("1", "png"), ("P", "gif"), ("CMYK", "jpeg")])
def test_other_modes_are_converted_as_pillow_does_and_recorded(mode, format):
    image = Image.fromarray(np.full((8, 8, 3), 255, dtype=np.uint8)).convert(mode)
    decoded = decode(encoded(image, format=format))
    assert decoded.mode == mode
    assert decoded.image.mode == ("L" if mode == "1" else "RGB")
    assert decoded.steps == (f"converted {mode} to {decoded.image.mode}",)
    assert np.asarray(decoded.image).min() == 255


# Where EXIF 2.32 puts row 0 and column 0 of what is stored, seen as it should be shown.
SHOWN = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", SHOWN)
def test_images_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8))
    decoded = decode(encoded(stored, exif=exif))
    assert np.asarray(decoded.image).tolist() == SHOWN[orientation]
    assert decoded.size == (3, 2)
    turned = (f"turned upright (EXIF orientation {orientation})",)
    assert decoded.steps == (() if orientation == 1 else turned)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    data = encoded(frames[0], format="webp", save_all=True, append_images=frames[1:], lossless=True)
    decoded = decode(data)
    assert decoded.image.getpixel((0, 0)) == (255, 0, 0)
    assert decoded.steps[0] == "took the first of 3 frames"


def reason_of(data):
    with pytest.raises(DataError) as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    return caught.value.message


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "bmp"])
def test_a_cut_file_is_truncated_at_whatever_length(format):
    data = encoded(Image.effect_noise((32, 32), 50).convert("RGB"), format=format)
    for fraction in (0.5, 0.9):
        assert reason_of(data[: int(fraction * len(data))]).startswith("truncated or damaged")


def test_other_bad_files_have_reasons_of_their_own(monkeypatch):
    assert reason_of(b"") == "empty"
    assert reason_of(b"plain text, long enough to hold any header") == "not an image"
    floats = encoded(Image.fromarray(np.full((8, 8), -1, np.float32)), format="tiff")
    reason = "wrong mode float32 (floats from -1 to -1; state their range by --range)"
    assert reason_of(floats) == reason
    assert reason_of(npy_bytes(np.full((8, 8), np.nan))) == (
        "wrong mode float32 (values that are not finite)"
    )
    assert reason_of(npy_bytes(np.zeros((2, 2, 8, 8)))).startswith("not an image (an array [2, 2,")
    assert reason_of(npy_bytes(np.zeros((8, 8), np.int64))).startswith("wrong mode int64 (save")
    negative = Image.fromarray(np.full((8, 8), -1, np.int32))
    assert reason_of(encoded(negative, format="tiff")).startswith("wrong mode I (values")
    data = encoded(Image.new("L", (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 3)  # far beyond: Pillow's error
    assert reason_of(data) == "too large (more than 1365 pixels)"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)  # just beyond: its warning
    assert reason_of(data) == "too large (more than 4095 pixels)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reason_of(data) == "too large (more than 4095 pixels)"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
    assert decode(data).size == (64, 64)


def test_colors_have_names_or_six_digits():
    assert parse_color("white") == (255, 255, 255)
    assert parse_color("#0a141E") == (10, 20, 30)
    for text in ("whitish", "#12345678", ""):
        with pytest.raises(ConfigError, match="is neither a CSS name, such as white, nor #rrggbb"):
            parse_color(text)


def test_threads_give_results_in_order_and_run_little_ahead():
    started = []

    def square(number):
        started.append(number)
        return number**2

    results = map_in_order(square, range(1000), workers=2)
    assert [next(results) for _ in range(10)] == [number**2 for number in range(10)]
    assert len(started) <= 18
    results.close()
    assert list(map_in_order(square, range(3), workers=8)) == [0, 1, 4]


def test_the_number_of_threads_is_at_least_one():
    assert num_threads(None) == num_threads(0) >= 1
    assert num_threads(3) == 3
    with pytest.raises(ConfigError, match="workers must be 0 or more, got -1"):
        num_threads(-1)


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, who runs the tests, may read everything
    with pytest.raises(DataError, match=r"closed cannot be read \(Permission denied\)"):
        open_source(tmp_path)


@pytest.fixture
def heic_folder(tmp_path):
    """A folder with a HEIC file as phones write it, a PNG, and one whose name has no extension."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    readers.image_formats.cache_clear()
    readers.image_extensions.cache_clear()
    picture = Image.new("RGB", (64, 48), "#c08040")
    picture.save(tmp_path / "IMG_1.HEIC", format="HEIF", quality=90)
    picture.save(tmp_path / "b.png")
    shutil.copy(tmp_path / "b.png", tmp_path / "scan0001")
    (tmp_path / "README").write_text("no image, in spite of its having no extension")
    yield tmp_path
    pillow_heif.register_heif_opener()
    readers.image_formats.cache_clear()
    readers.image_extensions.cache_clear()


def test_heic_and_files_without_an_extension_are_read(heic_folder):
    source = open_source(heic_folder)
    assert source.images == ("IMG_1.HEIC", "b.png", "scan0001")
    assert [name for name, _ in source.left_out] == ["README"]
    for name in source.images:
        decoded = decode(source.read(name)).image
        assert decoded.size == (64, 48)
        assert np.abs(np.asarray(decoded).astype(int) - [192, 128, 64]).max() < 4


@pytest.fixture
def without_heif(heic_folder, monkeypatch):
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, find=importlib.util.find_spec: None if name == "pillow_heif" else find(name),
    )
    for table in ("OPEN", "EXTENSION", "ACCEPT"):
        known = {k: v for k, v in getattr(Image, table, {}).items() if "HEI" not in str((k, v))}
        monkeypatch.setattr(Image, table, known, raising=False)
    readers.image_formats.cache_clear()
    readers.image_extensions.cache_clear()


NEEDS_PACKAGE = r"HEIC, which needs .*stylegan\[heic\].*save it as JPEG"


@pytest.mark.usefixtures("without_heif")
def test_without_its_package_heic_is_named_with_what_to_install(heic_folder):
    source = open_source(heic_folder)
    assert source.images == ("IMG_1.HEIC", "b.png", "scan0001")
    with pytest.raises(DataError, match=NEEDS_PACKAGE):
        decode(source.read("IMG_1.HEIC"))
    assert decode(source.read("b.png")).image.size == (64, 48)


BRANDS = ["heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"]


@pytest.mark.parametrize("brand", BRANDS)
@pytest.mark.usefixtures("without_heif")
def test_heic_is_known_by_its_content(heic_folder, tmp_path, brand):
    data = bytearray((heic_folder / "IMG_1.HEIC").read_bytes())
    data[8:12] = brand.encode()
    for name in ("IMG_2.jpg", "burst.HIF", "live photo"):  # as exported, of cameras, without ending
        (heic_folder / name).write_bytes(data)
        with pytest.raises(DataError, match=NEEDS_PACKAGE):
            decode(open_source(heic_folder).read(name))
        with pytest.raises(DataError, match=rf"{name}: {NEEDS_PACKAGE}"):
            read_targets([heic_folder / name], size=ImageSize(16, 16), pixels=PixelFormat())
    with zipfile.ZipFile(heic_folder / "phone.zip", "w") as archive:
        archive.writestr("DCIM/IMG_2.HEIC", data)
    with pytest.raises(DataError, match=NEEDS_PACKAGE):
        decode(open_source(heic_folder / "phone.zip").read("DCIM/IMG_2.HEIC"))


@pytest.mark.parametrize("brand", [*BRANDS, "avif"])
def test_damaged_files_of_phones_are_not_called_another_format(heic_folder, brand):
    data = (heic_folder / "IMG_1.HEIC").read_bytes()
    (heic_folder / "cut").write_bytes(data[:8] + brand.encode() + data[12 : len(data) // 2])
    (heic_folder / "cut.heic").write_bytes(b"\0\0\0\x18ftyp" + brand.encode() + bytes(400))
    for name in ("cut", "cut.heic"):
        kind = "AVIF" if brand == "avif" else "HEIC"
        with pytest.raises(DataError, match=rf"^truncated or damaged, or a kind of {kind} that"):
            decode(open_source(heic_folder).read(name))


def test_other_formats_with_the_names_of_phones_are_read(heic_folder):
    picture = Image.new("RGB", (64, 48), "#c08040")
    for name, image_format in (("a.heic", "JPEG"), ("b.HEIF", "PNG"), ("c.avif", "HEIF")):
        picture.save(heic_folder / name, format=image_format)
        found = decode(open_source(heic_folder).read(name))
        assert (found.image.size, found.format) == ((64, 48), image_format)


@pytest.mark.parametrize(
    "image_format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000"]
)
def test_the_first_bytes_of_every_format_are_known(image_format):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format=image_format)
    assert readers.is_image_start(buffer.getvalue()[:16])
    assert not readers.is_image_start(b"%PDF-1.7 and more text")
