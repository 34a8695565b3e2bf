"""The files are written by hand from the format's description, with another CRC."""

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest

from stylegan.cli.data import main
from stylegan.data.dataset import ImageDataset
from stylegan.data.label_files import read_labels
from stylegan.data.readers import decode
from stylegan.data.sources.crc32c import crc32c
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError


def bitwise_crc(data):
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data):
    value = bitwise_crc(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) % 2**32)


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(packed=True, **features):
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        elif packed:
            feature = field(3, field(1, b"".join(map(varint, value))))
        else:
            feature = field(3, b"".join(b"\x08" + varint(each) for each in value))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def record(data):
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def pixels(seed, channels=3, side=8):
    return np.random.default_rng(seed).integers(0, 256, (channels, side, side), dtype=np.uint8)


def image(seed, *, packed=True, **shape):
    values = pixels(seed, **shape)
    return record(example(packed, shape=values.shape, data=values.tobytes()))


@pytest.fixture
def folder(tmp_path):
    """Four images at 4x4 and 8x8, as the official tool writes them, with one-hot labels."""
    path = tmp_path / "cats"
    path.mkdir()
    for level, side in ((2, 4), (3, 8)):
        content = b"".join(image(seed, side=side) for seed in range(4))
        (path / f"cats-r{level:02d}.tfrecords").write_bytes(content)
    np.save(path / "labels.npy", np.eye(3, dtype=np.float32)[[2, 0, 1, 1]])
    (path / "labels.npy").rename(path / "cats-rxx.labels")
    return path


# RFC 3720, appendix B.4, and the check value of the catalogue of parametrised CRC algorithms
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_the_checksum_has_its_published_values(data, expected):
    assert crc32c(data) == expected == bitwise_crc(data)


@pytest.mark.parametrize("num_bytes", [1, 63, 64, 65, 1023, 1024, 1025, 2500])
def test_the_checksum_of_any_length_is_that_of_the_bitwise_form(num_bytes):
    data = np.random.default_rng(num_bytes).bytes(num_bytes)
    assert crc32c(data) == bitwise_crc(data)


@pytest.mark.parametrize("name", ["", "cats-r03.tfrecords"])
def test_the_images_of_the_highest_resolution_are_read_with_labels(folder, name):
    source = open_source(folder / name)
    assert len(source.images) == 4
    for seed, each in enumerate(source.images):
        decoded = np.asarray(decode(source.read(each)).image)
        assert np.array_equal(decoded, pixels(seed).transpose(1, 2, 0))
    assert list(read_labels(source).by_name.values()) == [2, 0, 1, 1]
    again = pickle.loads(pickle.dumps(source))
    assert again.read(source.images[3]) == source.read(source.images[3])


def test_grey_images_and_lower_resolutions_are_read(tmp_path):
    path = tmp_path / "g-r02.tfrecords"
    path.write_bytes(image(0, channels=1, side=4) + image(1, packed=False, channels=1, side=4))
    dataset = ImageDataset(path)
    assert (len(dataset), dataset.num_channels, dataset.labels) == (2, 1, None)
    assert np.array_equal(dataset[1].numpy(), pixels(1, channels=1, side=4))


def test_prepare_packs_them_with_labels(folder, tmp_path):
    assert main(["prepare", str(folder), str(tmp_path / "p.zip"), "--resolution", "8"]) == 0
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))["labels"]
    assert [label for _, label in labels] == [2, 0, 1, 1]
    prepared = ImageDataset(tmp_path / "p.zip")
    assert np.array_equal(prepared[2].numpy(), pixels(2))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 5, 1, 1]), [0, 5, 1, 1]),
        (np.array([[0.0], [5], [1], [1]]), [0, 5, 1, 1]),
        (np.array([[0.5, -1], [0, 0], [1, 2], [1, 1]]), [(0.5, -1), (0, 0), (1, 2), (1, 1)]),
        (np.zeros((4, 0), np.float32), None),
    ],
)
def test_labels_are_classes_or_vectors(folder, values, expected):
    with (folder / "cats-rxx.labels").open("wb") as file:
        np.save(file, values)
    labels = read_labels(open_source(folder))
    assert (labels and list(labels.by_name.values())) == expected


@pytest.mark.parametrize("content", [None, b"", b"no array", b"\x93NUMPY\x01\x00\x02\x00{\n"])
def test_labels_that_do_not_fit_are_named_and_the_images_are_used(folder, content, caplog):
    with (folder / "cats-rxx.labels").open("wb") as file:
        np.save(file, np.zeros(5)) if content is None else file.write(content)
    dataset = ImageDataset(folder)
    assert (len(dataset), dataset.labels) == (4, None)
    (line,) = {each for each in caplog.messages if "labels not used" in each}
    assert "cats-rxx.labels" in line
    assert ("float64 [5] for 4 images" in line) == (content is None)


def error_of(path):
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_damaged_file_is_named_with_the_place(folder):
    path = folder / "cats-r03.tfrecords"
    whole = path.read_bytes()
    size = len(whole) // 4
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    assert error_of(folder) == (
        f"{path} is a damaged TFRecord file (wrong checksum of the length of record 0 at byte 0); "
        "copy or download it again"
    )
    for end in (3 * size + 5, 4 * size - 1):
        path.write_bytes(whole[:end])
        assert f"(record 3 at byte {3 * size} is cut off)" in error_of(path)
    path.write_bytes(whole + b"more bytes that are no record")
    assert f"wrong checksum of the length of record 4 at byte {4 * size}" in error_of(path)


def test_a_record_with_a_wrong_checksum_is_left_out_alone(folder):
    path = folder / "cats-r03.tfrecords"
    data = bytearray(path.read_bytes())
    size = len(data) // 4
    data[size + 60] ^= 1
    path.write_bytes(data)
    dataset = ImageDataset(path)
    reason = f"truncated or damaged (wrong checksum of record 1 at byte {size})"
    assert (len(dataset), dataset.bad) == (3, (("00000001", reason),))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (example(shape=[3, 8, 8], data=b"too few"), "not an image (shape [3, 8, 8] of 7 bytes)"),
        (example(shape=[8, 8, 3], data=bytes(192)), "not an image (shape [8, 8, 3] of 192 bytes)"),
        (example(shape=[3, 64], data=bytes(192)), "not an image (shape [3, 64] of 192 bytes)"),
        (example(shape=[3, 0, 0], data=b""), "empty"),
        (example(data=bytes(192)), "not an image (the record has no features shape and data)"),
        (b"", "not an image (the record has no features shape and data)"),
        (b"\xff\xff", "not an image (record 1 at byte"),
        (b"\x0a\x7fcut", "not an image (record 1 at byte"),
    ],
)
def test_a_record_that_is_no_image_is_left_out_with_a_reason(tmp_path, content, reason):
    path = tmp_path / "x-r03.tfrecords"
    path.write_bytes(image(0) + record(content))
    dataset = ImageDataset(path)
    assert len(dataset) == 1
    assert dataset.bad[0][0] == "00000001"
    assert dataset.bad[0][1].startswith(reason)


def test_records_of_other_programs_are_named_by_their_features(tmp_path):
    path = tmp_path / "train.tfrecord"
    path.write_bytes(record(example(**{"image/encoded": b"x", "image/class": [1]})))
    assert "has the features 'image/class', 'image/encoded'" in error_of(path)


def test_several_sets_in_one_folder_are_not_mixed(folder):
    (folder / "dogs-r03.tfrecords").write_bytes(image(9))
    assert error_of(folder).endswith("several sets of TFRecords: cats, dogs; name one of the files")
    assert len(open_source(folder / "dogs-r03.tfrecords").images) == 1


def test_a_file_without_records_has_no_images(tmp_path):
    (tmp_path / "x-r05.tfrecords").touch()
    assert open_source(tmp_path).images == ()
    with pytest.raises(DataError, match="no usable image among 0 files"):
        main(["prepare", str(tmp_path), str(tmp_path / "p.zip"), "--resolution", "8"])
