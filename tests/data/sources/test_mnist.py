import gzip
import pickle
import struct

import numpy as np
import pytest

from stylegan.data.dataset import ImageDataset
from stylegan.data.pictures import Pictures
from stylegan.data.readers import decode
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def digits(num=4, side=28):
    return np.random.default_rng(0).integers(0, 256, (num, side, side), dtype=np.uint8)


def write(path, data):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture(params=["", ".gz"])
def folder(request, tmp_path):
    write(tmp_path / f"train-images-idx3-ubyte{request.param}", idx(digits()))
    write(tmp_path / f"train-labels-idx1-ubyte{request.param}", idx(np.array([5, 0, 4, 1])))
    write(tmp_path / f"t10k-images-idx3-ubyte{request.param}", idx(digits(2)))
    return tmp_path


def test_digits_are_padded_to_32_pixels_and_have_labels(folder):
    dataset = ImageDataset(folder)
    assert (len(dataset), dataset.num_channels, dataset.resolution) == (4, 1, 32)
    assert dataset.labels == (5, 0, 4, 1)
    for image, expected in zip(dataset, digits(), strict=False):
        assert np.array_equal(image[0, 2:30, 2:30].numpy(), expected)
        assert image.sum() == expected.sum()


def test_the_test_set_and_other_sizes_are_read_by_name(folder, tmp_path):
    (path,) = folder.glob("t10k-images*")
    assert len(ImageDataset(path)) == 2
    write(tmp_path / "digits.idx3-ubyte.images.idx3", idx(digits(side=20)))
    assert Pictures(tmp_path / "digits.idx3-ubyte.images.idx3").sizes == [(20, 20)]


def test_copies_in_other_processes_load_the_file_again(folder):
    source = open_source(folder)
    copied = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 2000
    assert copied.read("00000003") == source.read("00000003")
    assert np.asarray(decode(copied.read("00000003")).image).shape == (32, 32)


@pytest.mark.parametrize("labels", [idx(np.arange(3)), b"", idx(digits())])
def test_labels_that_do_not_fit_are_named_and_the_images_are_used(folder, labels, caplog):
    (path,) = folder.glob("train-labels*")
    write(path, labels)
    dataset = ImageDataset(folder)
    assert (len(dataset), dataset.labels) == (4, None)
    assert f"labels not used: {path}" in caplog.messages[0]


def test_without_labels_the_images_are_used(folder):
    next(folder.glob("train-labels*")).unlink()
    assert ImageDataset(folder).labels is None


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (idx(digits())[:-1], r"damaged \(3135 bytes for 4x28x28\)"),
        (idx(digits()) + b"x", r"damaged \(more than 3136 bytes for 4x28x28\)"),
        (idx(digits())[:9], "truncated or damaged"),
        (b"", "is not an IDX file of bytes in 3 dimensions"),
        (idx(digits()[0]), "is not an IDX file of bytes in 3 dimensions"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "declares .* bytes, more than"),
    ],
)
def test_a_damaged_file_is_refused(folder, data, error):
    (path,) = folder.glob("train-images*")
    write(path, data)
    with pytest.raises(DataError, match=error):
        open_source(folder)


def test_a_damaged_gzip_file_is_refused(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    write(path, idx(digits()))
    for data in (path.read_bytes()[:500], b"no gzip file", path.read_bytes()[:-6] + b"abcdef"):
        path.write_bytes(data)
        with pytest.raises(DataError, match="truncated or damaged"):
            open_source(tmp_path)


def test_a_set_without_images_has_none(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", idx(digits(0)))
    with pytest.raises(DataError, match="no usable image among 0 files"):
        ImageDataset(tmp_path)
