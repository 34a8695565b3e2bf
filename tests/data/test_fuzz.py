"""Damaged images, label files and zips give a result or an error of one line."""

import io
import json
import resource
import zipfile

import numpy as np
import pillow_heif
import pytest
from PIL import Image

import processes
from stylegan.data.dataset import ImageDataset
from stylegan.data.label_files import read_csv_labels, read_labels
from stylegan.data.readers import decode
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError, StyleganError


def encoded(picture, name, **options):
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def intact_images():
    """One small file of each format and mode."""
    pillow_heif.register_heif_opener()
    generator = np.random.default_rng(0)
    color = Image.fromarray(generator.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    grey, palette = color.convert("L"), color.quantize(16)
    deep = Image.fromarray(generator.integers(0, 65536, (24, 20), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(color, name) for name in ("BMP", "PPM", "TIFF", "AVIF", "HEIF", "JPEG2000")]
    files += [encoded(picture, "PNG") for picture in (color, grey, palette, deep)]
    files += [encoded(color, "JPEG", exif=exif), encoded(color.convert("CMYK"), "JPEG")]
    files += [encoded(color, "JPEG", progressive=True)]
    files += [encoded(color, "WEBP", lossless=lossless) for lossless in (True, False)]
    files += [encoded(color, "GIF", save_all=True, append_images=[grey.convert("RGB")])]
    files += [encoded(color, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg")]
    return files


def mutated(files, generator):
    """Return one of the files with a few random changes."""
    data = bytearray(files[generator.integers(len(files))])
    for _ in range(generator.integers(1, 4)):
        start, end = sorted(generator.integers(0, len(data) + 1, 2))
        match generator.integers(7):
            case 0:
                del data[start:]
            case 1:
                data[start:] = bytes(len(data) - start)
            case 2:  # a header, more often than elsewhere
                data[min(start, 40) : min(start, 40) + 2] = generator.bytes(2)
            case 3:
                del data[start:end]
            case 4:
                other = files[generator.integers(len(files))]
                data[start:end] = other[start:end]
            case 5:
                data[start:start] = generator.bytes(generator.integers(1, 9))
            case _:
                for place in generator.integers(0, max(len(data), 1), 8):
                    data[place : place + 1] = generator.bytes(1)
    return bytes(data)


def check_one_line(error):
    text = str(error)
    assert text.isprintable(), ascii(text)
    assert len(text) < 1000


def print_peak(num_refused, num):
    print(f"{num_refused} of {num} refused, ", end="")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def check_peak(output):
    """Check the peak memory of a process that called `print_peak`, in MiB."""
    assert float(output.partition("peak ")[2].split()[0]) < 1024, output


def decode_mutants(num):
    """Decode damaged images; return 0 if each gives an image or an error of one line."""
    files, generator = intact_images(), np.random.default_rng(1)
    num_refused = 0
    for _ in range(num):
        try:
            assert decode(mutated(files, generator)).image.mode in ("L", "RGB")
        except DataError as error:
            check_one_line(error)
            num_refused += 1
    print_peak(num_refused, num)
    assert num / 4 < num_refused < num


def test_intact_files_are_decoded():
    for data in intact_images():
        assert decode(data).image.size in ((20, 24), (24, 20))


@pytest.mark.parametrize("num", [400, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_decoded_or_refused(num, tmp_path):
    check_peak(processes.run(decode_mutants, num, folder=tmp_path))


@pytest.fixture
def images_folder(tmp_path):
    folder = tmp_path / "images"
    for index in range(3):
        (folder / str(index)).mkdir(parents=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / str(index) / "a.png")
    return folder


LABELS = [
    *({"labels": [[f"{index}/a.png", index] for index in range(3)]}, {"labels": None}),
    *({"labels": {f"{index}/a.png": [0.5, index] for index in range(3)}}, {"labels": []}),
    {"labels": [[f"images\\{index}\\a.png", 2.0] for index in range(3)], "classes": ["a", "b"]},
    {"labels": [["0/a.png", 10**30], ["1/a.png", None], ["2/a.png", True]]},
]
DEEP = b'{"labels": ' + b"[" * 100_000
TABLES = ["name,label\n0/a.png,cat\n1/a.png,dog\n2/a.png,cat\n", "0/a.png;0.5;1\n1/a.png;1;2\n"]


def read_label_mutants(num, folder):
    """Read damaged label files of a folder of images, as `decode_mutants`."""
    source, generator = open_source(folder), np.random.default_rng(2)
    json_files = [*(json.dumps(content).encode() for content in LABELS), DEEP]
    tables = [text.encode() for text in TABLES]
    num_refused = 0
    for index in range(num):
        try:
            if index % 2:
                (folder / "dataset.json").write_bytes(mutated(json_files, generator))
                labels = read_labels(source)
            else:
                (folder / "labels.csv").write_bytes(mutated(tables, generator))
                labels = read_csv_labels(folder / "labels.csv", source)
            assert labels is None or set(labels.by_name) <= set(source.images)
        except DataError as error:
            check_one_line(error)
            num_refused += 1
    print_peak(num_refused, num)
    assert num / 10 < num_refused < num


@pytest.mark.parametrize("num", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_label_files_are_read_or_refused(images_folder, tmp_path, num):
    check_peak(processes.run(read_label_mutants, num, images_folder, folder=tmp_path))


def open_zip_mutants(num, folder):
    """Open damaged zips of the images of a folder, as `decode_mutants`."""
    files, generator = [], np.random.default_rng(3)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for path in sorted(folder.rglob("*.png")):
                archive.write(path, path.relative_to(folder).as_posix())
            archive.writestr("dataset.json", json.dumps(LABELS[0]))
        files.append(buffer.getvalue())
    num_refused = 0
    for _ in range(num):
        (folder / "set.zip").write_bytes(mutated(files, generator))
        try:
            dataset = ImageDataset(folder / "set.zip", workers=1)
            assert dataset.gather(range(len(dataset))).shape[1:] == (3, 8, 8)
        except StyleganError as error:
            check_one_line(error)
            num_refused += 1
    print_peak(num_refused, num)
    assert num / 4 < num_refused < num


@pytest.mark.parametrize("num", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_damaged_zips_are_opened_or_refused(images_folder, tmp_path, num):
    check_peak(processes.run(open_zip_mutants, num, images_folder, folder=tmp_path))


def test_an_entry_that_declares_gigabytes_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**20))
    data = bytearray((tmp_path / "set.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24  # the size in the directory of the archive
    data[place : place + 4] = (2**31).to_bytes(4, "little")
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(DataError, match="too large"):
        open_source(tmp_path / "set.zip").read("a.png")
