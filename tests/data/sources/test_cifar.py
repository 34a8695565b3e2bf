"""The batches are written operation by operation, as Python 2 wrote the published ones."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from stylegan.cli.data import main
from stylegan.data.dataset import ImageDataset
from stylegan.data.label_files import read_labels
from stylegan.data.readers import decode
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError


def text(value):
    data = value.encode("latin1") if isinstance(value, str) else value
    return (
        b"U" + bytes([len(data)]) + data
        if len(data) < 256
        else b"T" + struct.pack("<i", len(data)) + data
    )


def dump(value):
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(dump, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(dump(key) + dump(item) for key, item in value.items()) + b"u"
    shape = b"(" + b"".join(map(dump, value.shape)) + b"t"
    dtype = b"cnumpy\ndtype\n" + text(value.dtype.str[1:]) + dump(0) + dump(1) + b"\x87R"
    dtype += (
        b"(" + dump(3) + text(value.dtype.str[:1]) + b"NNN" + dump(-1) + dump(-1) + dump(0) + b"tb"
    )
    empty = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + dump(0) + b"\x85" + text("b")
    )
    return empty + b"\x87R(" + dump(1) + shape + dtype + b"\x89" + text(value.tobytes()) + b"tb"


def pickled(value):
    return b"\x80\x02" + dump(value) + b"."


def pixels(number, num=3):
    return np.random.default_rng(number).integers(0, 256, (num, 3072), dtype=np.uint8)


def batch(number, labels="labels"):
    classes = [(number + index) % 10 for index in range(3)]
    return pickled({"batch_label": "b", labels: classes, "data": pixels(number)})


CLASSES = [f"class {number}" for number in range(10)]


@pytest.fixture
def files():
    """CIFAR-10 with three images in a batch, in the order of the published archive."""
    folder = "cifar-10-batches-py"
    content = {f"{folder}/data_batch_4": batch(4), f"{folder}/readme.html": b"<html>"}
    content |= {f"{folder}/test_batch": batch(9), f"{folder}/data_batch_3": batch(3)}
    content[f"{folder}/batches.meta"] = pickled({"num_vis": 3072, "label_names": CLASSES})
    return content | {f"{folder}/data_batch_{number}": batch(number) for number in (2, 5, 1)}


def archive_of(files, path):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(params=["archive", "folder"])
def cifar(request, files, tmp_path):
    if request.param == "archive":
        return archive_of(files, tmp_path / "cifar-10-python.tar.gz")
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return path.parent


def test_the_training_batches_are_read_in_order_with_classes(cifar):
    source = open_source(cifar)
    assert len(source.images) == 15
    everything = np.concatenate([pixels(number) for number in range(1, 6)])
    for name, row in zip(source.images, everything, strict=True):
        image = np.asarray(decode(source.read(name)).image)
        assert np.array_equal(image, row.reshape(3, 32, 32).transpose(1, 2, 0))
    labels = read_labels(source)
    assert list(labels.by_name.values())[:5] == [1, 2, 3, 2, 3]
    assert labels.classes == tuple(CLASSES)
    again = pickle.loads(pickle.dumps(source))
    assert again.read("00000014") == source.read("00000014")


def test_cifar_100_has_its_fine_classes(tmp_path):
    meta = {"coarse_label_names": ["x"], "fine_label_names": CLASSES}
    files = {"c/train": batch(1, "fine_labels"), "c/test": batch(2, "fine_labels")}
    files["c/meta"] = pickled(meta)
    dataset = ImageDataset(archive_of(files, tmp_path / "cifar-100-python.tar.gz"))
    assert (len(dataset), dataset.labels, dataset.class_names) == (3, (1, 2, 3), tuple(CLASSES))


def test_prepare_prints_the_classes(files, tmp_path, capsys):
    path = archive_of(files, tmp_path / "cifar-10-python.tar.gz")
    assert main(["prepare", str(path), str(tmp_path / "p.zip"), "--resolution", "32"]) == 0
    out = capsys.readouterr().out
    assert "class 1 class 1: 1 images\nclass 2 class 2: 2 images\n" in out
    assert "15 images, 32x32 RGB" in out


def error_of(path):
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (pickled({"labels": [1], "data": pixels(0)}), "uint8 [3, 3072] and 1 labels"),
        (pickled({"labels": [1] * 3, "data": pixels(0)[:, :99].copy()}), "uint8 [3, 99] and 3"),
        (pickled({"labels": ["a", "b", "c"], "data": pixels(0)}), "uint8 [3, 3072] and 3 labels"),
        (pickled({"labels": [1]}), "no array `data`"),
        (pickled([1, 2]), "holds a list; expected a dictionary"),
        (b"", "is incomplete or damaged"),
        (batch(3)[:500], "is incomplete or damaged"),
        (
            b"\x80\x02cos\nsystem\nU\x04true\x85R.",
            "refers to 'os.system', which no supported file needs",
        ),
    ],
)
def test_a_batch_that_does_not_fit_is_named_and_nothing_is_run(files, tmp_path, content, error):
    files["cifar-10-batches-py/data_batch_3"] = content
    message = error_of(archive_of(files, tmp_path / "c.tar.gz"))
    assert "data_batch_3 of" in message
    assert error in message


def test_missing_batches_and_other_archives_are_named(files, tmp_path):
    del files["cifar-10-batches-py/data_batch_2"]
    assert "c.tar.gz has no data_batch_2;" in error_of(archive_of(files, tmp_path / "c.tar.gz"))
    other = archive_of({"photos/a.png": b"x"}, tmp_path / "photos.tar.gz")
    assert "has no data_batch_1, data_batch_2" in error_of(other)
    assert "extract other archives, and name the folder of their images" in error_of(other)


def test_a_damaged_archive_is_named(files, tmp_path):
    path = archive_of(files, tmp_path / "c.tgz")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no archive", gzip.compress(b"no tar")):
        path.write_bytes(damaged)
        assert "c.tgz is truncated or damaged" in error_of(path)
