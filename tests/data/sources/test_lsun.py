import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from stylegan.cli.data import main
from stylegan.data.dataset import ImageDataset
from stylegan.data.sources.open import open_source
from stylegan.errors import ConfigError, DataError

lmdb = pytest.importorskip("lmdb")


def write_database(path, values):
    with lmdb.open(str(path), map_size=1 << 22) as database, database.begin(write=True) as writer:
        for key, value in values.items():
            writer.put(key, value)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three images in lossless WebP under keys such as LSUN's, and one under another kind."""
    values = {}
    for index, key in enumerate([b"0a7f", b"1b00", b"ffee", b"\xff\x00/key"]):
        path = tmp_path / "image.webp"
        Image.new("RGB", (16, 16), (index, 2, 3)).save(path, lossless=True)
        values[key] = path.read_bytes()
    return write_database(tmp_path / "church_train_lmdb", values)


@pytest.mark.parametrize("name", ["", "data.mdb"])
def test_values_are_images_and_keys_are_names(folder, name):
    dataset = ImageDataset(folder / name)
    assert dataset.image_names == ("0a7f", "1b00", "ffee", "\xff\x00/key")
    assert [dataset[index][0, 0, 0].item() for index in range(4)] == [0, 1, 2, 3]
    assert dataset.labels is None


def test_threads_forks_and_copies_read_the_same(folder):
    source, second = open_source(folder), open_source(folder)
    expected = [source.read(name) for name in source.images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(second.read, source.images * 20)) == expected * 20
    copied = pickle.loads(pickle.dumps(source))
    child = os.fork()
    if child == 0:
        os._exit([source.read(name) for name in source.images] != expected)
    assert os.waitpid(child, 0)[1] == 0
    assert [copied.read(name) for name in copied.images] == expected


def test_values_that_are_no_images_are_left_out_alone(tmp_path, folder):
    write_database(folder, {b"length": b"3", b"0a7f": b""})
    dataset = ImageDataset(folder)
    assert dataset.bad == (("0a7f", "empty"), ("length", "not an image"))
    assert len(dataset) == 3


def test_an_empty_database_has_no_images(tmp_path):
    write_database(tmp_path / "empty", {})
    with pytest.raises(DataError, match="no usable image among 0 files"):
        ImageDataset(tmp_path / "empty")


@pytest.mark.parametrize("fraction", [0, 0.2, 0.5, 0.95])
def test_a_truncated_database_is_refused_and_does_not_end_the_process(folder, fraction):
    path = folder / "data.mdb"
    os.truncate(path, int(path.stat().st_size * fraction))
    with pytest.raises(DataError, match=r"is truncated|damaged"):
        open_source(folder)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "data.mdb").write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(DataError, match="is no LMDB database, or a damaged one"):
        open_source(tmp_path)


def test_without_its_package_the_extra_is_named(folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'stylegan\[lmdb\]'"):
        main(["prepare", str(folder), str(tmp_path / "p.zip"), "--resolution", "8"])


def test_a_database_below_a_folder_of_images_is_named(folder):
    Image.new("RGB", (16, 16)).save(folder.parent / "a.png")
    (folder.parent / "image.webp").unlink()
    source = open_source(folder.parent)
    assert source.images == ("a.png",)
    reason = "not an image (an LMDB database; name its folder instead)"
    assert ("church_train_lmdb/data.mdb", reason) in source.left_out
