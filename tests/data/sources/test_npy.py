import pickle

import numpy as np
import pytest

from stylegan.data.dataset import ImageDataset
from stylegan.data.pictures import Pictures
from stylegan.data.readers import decode
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (5, 8, 16), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (5, 8, 16, 3), dtype=np.uint8)


def saved(path, array):
    np.save(path, array, allow_pickle=array.dtype == object)
    return path


def images_of(source):
    return [np.asarray(decode(source.read(name)).image) for name in source.images]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (COLOR, COLOR),
        (COLOR.transpose(0, 3, 1, 2), COLOR),
        (np.asfortranarray(COLOR), COLOR),
        (GREY, GREY),
        (GREY[..., None], GREY),
        (GREY[:, None], GREY),
        (COLOR[0], COLOR[:1]),
        (GREY[0], GREY[:1]),
        (GREY[:1], GREY[:1]),
        (GREY[0][..., None], GREY[:1]),
        (COLOR[:, :, :, [0, 0, 0]], COLOR[:, :, :, [0, 0, 0]]),
        (GREY.astype(np.uint16) * 257, GREY),
        (GREY.astype(">u2") * 257, GREY),
        (COLOR.astype(np.uint16) * 257, COLOR),
        (COLOR / 255, COLOR),
        ((GREY / 255).astype(np.float32), GREY),
        (COLOR[:0], COLOR[:0]),
    ],
)
def test_arrays_of_every_layout_and_type_are_read(tmp_path, array, expected):
    source = open_source(saved(tmp_path / "a.npy", array))
    assert np.array_equal(np.array(images_of(source)).reshape(expected.shape), expected)
    copied = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 2000
    assert all(copied.read(name) == source.read(name) for name in source.images)


def test_16_bits_and_floats_are_rounded_to_the_nearest_level(tmp_path):
    levels = np.array([[0, 128, 129, 65406, 65407, 65535]], np.uint16)
    (image,) = images_of(open_source(saved(tmp_path / "a.npy", levels)))
    assert image.tolist() == [[0, 0, 1, 254, 255, 255]]
    floats = np.array([[0, 0.49, 0.51, 1.49, 254.51, 255]]) / 255
    (image,) = images_of(open_source(saved(tmp_path / "b.npy", floats)))
    assert image.tolist() == [[0, 0, 1, 1, 255, 255]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [2, 7])
def test_arrays_of_many_channels_keep_all_of_them(tmp_path, channels, dtype):
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels)).astype(dtype)
    values = values / 256 if dtype == "float32" else values
    for array in (values, values.transpose(0, 3, 1, 2)):
        dataset = ImageDataset(saved(tmp_path / "a.npy", array))
        assert (dataset.num_channels, dataset.pixels.depth) == (channels, dtype)
        assert np.array_equal(dataset[2].numpy().transpose(1, 2, 0), values[2])
    one = tmp_path / "one.npy"
    assert ImageDataset(saved(one, values[0])).num_channels == channels


def test_transparent_pixels_are_composed_on_white(tmp_path):
    array = np.zeros((2, 4, 4, 4), np.uint8)
    array[1, ..., 3] = 255
    transparent, opaque = images_of(open_source(saved(tmp_path / "a.npy", array)))
    assert (transparent.min(), opaque.max()) == (255, 0)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (COLOR[:3, :, :, 0], "one image [C, H, W] or 3 images [N, H, W]; save it with 4 axes"),
        (COLOR.astype(np.int64), "of int64; expected uint8, uint16, or floats"),
        (GREY > 9, "of bool; expected"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), "[2, 2, 8, 8, 3]; expected"),
        (np.zeros(8, np.uint8), "[8]; expected"),
        (np.zeros((2, 0, 8, 3), np.uint8), "[2, 0, 8, 3]; expected"),
        (
            np.array([{"a": 1}], object),
            "unreadable (Array can't be memory-mapped",
        ),
    ],
)
def test_other_arrays_are_refused_in_one_line(tmp_path, array, reason):
    path = saved(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused(tmp_path):
    whole = saved(tmp_path / "a.npy", COLOR).read_bytes()
    unclosed = whole.replace(b"}", b" ", 1)
    for damaged in (whole[:-1], whole[:100], whole[:7], unclosed, b"", b"no array" * 9):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npy: unreadable \("):
            open_source(tmp_path / "a.npy")
    np.savez_compressed(tmp_path / "a.npz", COLOR)
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (whole[:-40], b"", whole[:300] + bytes(50) + whole[350:]):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npz: unreadable \("):
            open_source(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "labels"),
    [
        ({"arr_0": COLOR}, None),
        ({"arr_0": COLOR, "arr_1": np.array([1, 0, 2, 2, 1])}, (1, 0, 2, 2, 1)),
        ({"images": COLOR, "labels": np.eye(3)[[0, 1, 2, 0, 0]]}, (0, 1, 2, 0, 0)),
        ({"x_train": COLOR, "y_train": np.arange(5), "x_test": COLOR[:2]}, (0, 1, 2, 3, 4)),
        ({"images": COLOR, "a": np.arange(5), "b": np.arange(5)}, None),
        ({"images": COLOR, "names": np.array(list("abcde"))}, None),
        ({"images": COLOR, "mean": np.zeros(3)}, None),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_give_images_and_labels(tmp_path, save, arrays, labels):
    save(tmp_path / "set.npz", **arrays)
    source = open_source(tmp_path / "set.npz")
    assert np.array_equal(images_of(source), COLOR)
    assert (source.labels and tuple(source.labels.by_name.values())) == labels
    copied = pickle.loads(pickle.dumps(source))
    assert copied.read("00000004") == source.read("00000004")


def test_npz_files_without_one_array_of_images_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    for arrays, error in (
        (
            {"a": COLOR, "b": GREY},
            r"\(several arrays of images among a uint8 \[5, 8, 16, 3\], b uint8",
        ),
        ({"w": np.zeros((2, 4))}, r"\(no array of images among w float64 \[2, 4\]\)"),
        ({}, "no array of images among no arrays"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=error):
            open_source(path)
    np.savez(path, COLOR)
    monkeypatch.setattr("stylegan.data.sources.npy._MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"too large .* save the images as a \.npy file"):
        open_source(path)


def test_an_array_can_be_trained_on_and_measured(tmp_path):
    path = saved(tmp_path / "a.npy", COLOR[:, :, :8])
    dataset = ImageDataset(path)
    assert (dataset.resolution, len(dataset)) == (8, 5)
    assert np.array_equal(dataset[3].numpy().transpose(1, 2, 0), COLOR[3, :, :8])
    assert Pictures(path).fingerprint == dataset.fingerprint
