import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE = 16


def picture(seed: int, *, side: int = SIDE, mode: str = "RGB") -> Image.Image:
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    levels = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return Image.fromarray(levels[:, :, 0] if channels == 1 else levels, mode=None).convert(mode)


def encoded(image: Image.Image, *, format: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def make_folder(path: Path, num_images: int, **options: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for index in range(num_images):
        picture(index, **options).save(path / f"{index:03d}.png")
    return path


def zip_folder(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())
    return archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven color images of 16x16."""
    return make_folder(tmp_path / "set", 7)


@pytest.fixture
def rogues(tmp_path: Path) -> Path:
    """Three good images of 16x16, and one file of every kind that is not simply one."""
    path = make_folder(tmp_path / "rogues", 3)
    picture(10, mode="L").save(path / "grey.png")
    picture(11, mode="RGBA").save(path / "rgba.png")
    picture(12).quantize(8).save(path / "palette.png")
    picture(13, mode="CMYK").save(path / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(14).save(path / "rotated.png", exif=exif)
    deep = np.random.default_rng(15).integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)
    Image.fromarray(deep).save(path / "sixteen.png")
    Image.fromarray(np.zeros((SIDE, SIDE), np.float32)).save(path / "float.tiff")
    (path / "truncated.png").write_bytes(encoded(picture(16))[:500])
    (path / "empty.png").write_bytes(b"")
    picture(17, side=32).save(path / "large.png")
    Image.new("RGB", (16, 8)).save(path / "oblong.png")
    (path / "text.png").write_text("no image")
    (path / "notes.txt").write_text("nor this")
    return path


ROGUES: dict[str, str] = {
    "empty.png": "empty",
    "float.tiff": "wrong mode float32",
    "large.png": "wrong size 32x32 (most images are 16x16)",
    "notes.txt": "not an image (by its file name extension)",
    "oblong.png": "wrong size 16x8 (not square)",
    "text.png": "not an image",
    "truncated.png": "truncated or damaged",
}


@pytest.fixture
def rogue_reasons() -> dict[str, str]:
    """Name of each bad file of `rogues`, and how its reason starts."""
    return ROGUES


@pytest.fixture
def make_zip() -> Callable[[Path, Path], Path]:
    return zip_folder
