"""Files of torch.save are read as data, and no file makes the reader run or fill the memory."""

import argparse
import io
import os
import pickle
import random
import resource
import shutil
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.torch_file import is_torch_file, open_torch_file

MAX_GROWTH_KIB = 64 * 1024  # ru_maxrss counts KiB on Linux
FORMS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def refusal(path: Path, key: str = "g") -> str:
    """Return the error for a file, which must be one line, quick, and cost no memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(WeightsError) as caught, open_torch_file(path) as file:
        file.tensors(key)
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    def write(root: object, *, is_zip: bool = True, name: str = "weights.pt") -> Path:
        torch.save(root, tmp_path / name, _use_new_zipfile_serialization=is_zip)
        return tmp_path / name

    return write


class Call:
    """An object that pickles as a call."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@FORMS
def test_every_tensor_comes_back(save, is_zip):
    base = torch.randn(4, 6)
    tensors = {
        "plain": base,
        "turned": base.t(),
        "part": base[1:, ::2],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "double": torch.randn(3).double(),
        "whole": torch.arange(3),
        "yes": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    path = save({"g": OrderedDict(tensors), "other": {"a": base}}, is_zip=is_zip)
    assert is_torch_file(path)
    with open_torch_file(path) as file:
        assert file.has_tensors("g")
        assert not file.has_tensors("d")
        found = file.tensors("g")
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(found[name], tensor), name
            assert found[name].dtype == tensor.dtype
        assert torch.equal(file.tensors("other")["a"], base)  # from the same storage


@FORMS
def test_a_training_checkpoint_is_read_with_its_options(save, is_zip):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    options = argparse.Namespace(path="data", size=8, augment=False, channels=[1, 2], ada=None)
    root = {
        "g": network.state_dict(),
        "g_optim": optimizer.state_dict(),
        "args": options,
        "ada_aug_p": np.float64(0.25),
        "names": {"a", "b"},
    }
    with open_torch_file(save(root, is_zip=is_zip)) as file:
        found = file.tensors("g")
        assert file.root["ada_aug_p"] == 0.25
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_other_files_are_distinguished_at_a_look(tmp_path):
    (tmp_path / "pickle").write_bytes(pickle.dumps({}))
    (tmp_path / "empty").touch()
    for name in ("pickle", "empty", "missing", "."):
        assert not is_torch_file(tmp_path / name)
    assert "cannot be read" in refusal(tmp_path / "missing")
    assert "cannot be read" in refusal(tmp_path)


@FORMS
@pytest.mark.parametrize("place", ["root", "tensor", "option"])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system"), (eval, "eval'"), (getattr, "getattr'"), (torch.load, ".load'")],
)
def test_a_call_is_refused_by_name_and_nothing_runs(save, tmp_path, is_zip, function, name, place):
    marker = tmp_path / "marker"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    call = Call(function, code)
    root: dict[str, object] = {"g": {"weight": torch.ones(2)}}
    if place == "root":
        root["x"] = call
    elif place == "tensor":
        root["g"] = {"weight": call}
    else:
        root["args"] = argparse.Namespace(x=call)
    message = refusal(save(root, is_zip=is_zip))
    assert "refers to '" in message
    assert name in message
    assert not marker.exists()


@FORMS
def test_other_contents_are_refused(save, is_zip):
    assert "holds a list" in refusal(save([torch.ones(2)], is_zip=is_zip))
    assert "holds 'text'" in refusal(save("text", is_zip=is_zip))
    assert "(g) holds a NoneType where a dict" in refusal(save({"d": {}}, is_zip=is_zip))
    assert "(g) holds 3 where a StoredTensor" in refusal(save({"g": {"w": 3}}, is_zip=is_zip))
    tensor = torch.ones(2)
    assert "(g) holds 3 where a str" in refusal(save({"g": {3: tensor}}, is_zip=is_zip))
    assert "name that is too long" in refusal(save({"g": {"a" * 300: tensor}}, is_zip=is_zip))


@FORMS
def test_one_storage_seen_as_many_tensors_is_refused(save, is_zip):
    tensor = torch.zeros(1 << 18)
    path = save({"g": {f"v{index}": tensor for index in range(1000)}}, is_zip=is_zip)
    assert path.stat().st_size < 2 << 20
    assert "declares more data than it holds" in refusal(path)


@FORMS
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(save, is_zip, share):
    path = save({"g": {"w": torch.randn(1000)}}, is_zip=is_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    message = refusal(path)
    assert "damaged" in message or "declares a storage" in message


def test_a_flipped_bit_in_an_archive_is_noticed(save):
    path = save({"g": {"w": torch.zeros(1000)}})
    data = bytearray(path.read_bytes())
    data[data.index(bytes(1000)) + 500] = 1
    path.write_bytes(data)
    assert "Bad CRC" in refusal(path)


class Archive:
    """Write a file like torch.save's, member by member, honest or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(self.path, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return self.path


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive(tmp_path / "archive.pt")


def tensor_pickle(
    numel: object, *, key: object = "0", size=(2,), stride=(1,), offset=0, dtype=torch.FloatStorage
) -> bytes:
    """Write the data.pkl of one tensor under g.w."""

    return tensors_pickle({"w": (dtype, key, numel)}, size=size, stride=stride, offset=offset)


def tensors_pickle(
    headers: dict[str, tuple[object, object, object]], *, size=(2,), stride=(1,), offset=0
) -> bytes:
    """Write the data.pkl of tensors under g, each by dtype, key and count of its storage."""

    class Header:
        def __init__(self, dtype, key, numel):
            self.identity = ("storage", dtype, key, "cpu", numel)

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return item.identity if isinstance(item, Header) else None

    rebuild = torch._utils._rebuild_tensor_v2
    tensors = {
        name: Call(rebuild, Header(*header), offset, size, stride, False, {})
        for name, header in headers.items()
    }
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"g": tensors})
    return buffer.getvalue()


def test_an_archive_written_by_hand_is_read(archive):
    path = archive.write({"a/data.pkl": tensor_pickle(2), "a/data/0": struct.pack("<2f", 1, 2)})
    with open_torch_file(path) as file:
        assert file.tensors("g")["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data_pkl", "data"),
    [
        (tensor_pickle(10**9), bytes(8)),
        (tensor_pickle(10**9, size=(10**9,)), bytes(8)),
        (tensor_pickle(1 << 62), bytes(8)),
        (tensor_pickle(-2), bytes(8)),
        (tensor_pickle(3), bytes(8)),
        (tensor_pickle(1), bytes(8)),
        (tensor_pickle(2.0), bytes(8)),
        (tensor_pickle(2, size=(10**9,), stride=(0,)), bytes(8)),
        (tensor_pickle(2, size=(3,)), bytes(8)),
        (tensor_pickle(2, stride=(2,)), bytes(8)),
        (tensor_pickle(2, offset=-1), bytes(8)),
        (tensor_pickle(2, size=(1,) * 9, stride=(1,) * 9), bytes(8)),
        (tensor_pickle(2, size=(0, 1 << 40), stride=(1, 1)), bytes(8)),
        (tensor_pickle(2, key="1"), bytes(8)),
        (tensor_pickle(2, key="../data/0"), bytes(8)),
        (tensor_pickle(2, key=0), bytes(8)),
        (tensor_pickle(2, dtype=3), bytes(8)),
        (tensor_pickle(2)[:-20], bytes(8)),
        (b"", bytes(8)),
    ],
)
def test_tensors_that_are_not_what_they_say_are_refused(archive, data_pkl, data):
    message = refusal(archive.write({"a/data.pkl": data_pkl, "a/data/0": data}))
    assert "declares" in message or "damaged" in message


def test_packed_members_are_refused(archive):
    """A zip bomb: a thousand times as large as it looks."""
    members = {"a/data.pkl": tensor_pickle(1 << 26, size=(1 << 26,)), "a/data/0": bytes(4 << 26)}
    path = archive.write(members, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    assert "a compressed member" in refusal(path)


def test_members_that_lie_upon_one_another_are_refused(archive):
    """A directory that names the same megabyte many times."""
    count, size = 50, 1 << 20
    with zipfile.ZipFile(archive.path, "w") as file:
        file.writestr("a/data/0", bytes(size))
        for index in range(1, count):
            file.writestr(f"a/data/{index}", b"")
            twin = file.infolist()[-1]
            first = file.infolist()[0]
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = size
        headers = {f"w{i}": (torch.FloatStorage, str(i), size // 4) for i in range(count)}
        file.writestr("a/data.pkl", tensors_pickle(headers, size=(size // 4,)))
    assert archive.path.stat().st_size < 2 << 20
    message = refusal(archive.path)
    assert "declares more data than it holds" in message


def test_a_size_beyond_the_file_is_refused(archive):
    path = archive.write({"a/data.pkl": tensor_pickle(2), "a/data/0": bytes(8)})
    with zipfile.ZipFile(path) as file:
        assert file.getinfo("a/data/0").file_size == 8
    data = path.read_bytes()
    start = data.rindex(b"PK\x01\x02")
    sizes = start + 20  # of the last entry of the directory, data/0
    path.write_bytes(data[:sizes] + struct.pack("<II", 1 << 31, 1 << 31) + data[sizes + 8 :])
    message = refusal(path)
    assert "larger than the file" in message or "damaged" in message


def test_a_directory_of_too_many_names_is_refused(archive, tmp_path):
    path = archive.write({"a/data.pkl": tensor_pickle(2), "a/data/0": bytes(8)})
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start : data.index(b"PK\x01\x02", start + 4)]
    num = (20 << 20) // len(entry)
    directory = entry * num
    tail = bytearray(data[end:])
    tail[8:12] = struct.pack("<HH", 0xFFFF & num, 0xFFFF & num)
    tail[12:20] = struct.pack("<II", len(directory), start)
    path.write_bytes(data[:start] + directory + bytes(tail))
    assert "a larger directory than such files have" in refusal(path)


def test_archives_of_other_kinds_are_refused(archive, tmp_path):
    assert "without data.pkl" in refusal(archive.write({"img.png": b"x"}))
    assert "without data.pkl" in refusal(archive.write({"a/data.pkl": b"", "b/data.pkl": b""}))
    members = {"a/data.pkl": tensor_pickle(2), "a/constants.pkl": b"", "a/data/0": bytes(8)}
    assert "is a TorchScript program" in refusal(archive.write(members))
    np.savez(tmp_path / "arrays.npz", x=np.ones(3))
    assert "without data.pkl" in refusal(tmp_path / "arrays.npz")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and no more")
    assert "damaged" in refusal(tmp_path / "cut.zip")


def test_the_other_byte_order_is_refused(archive):
    members = {"a/data.pkl": tensor_pickle(2), "a/data/0": bytes(8), "a/byteorder": b"big"}
    assert "other byte order" in refusal(archive.write(members))


def test_encrypted_members_are_refused(archive):
    path = archive.write({"a/data.pkl": tensor_pickle(2), "a/data/0": bytes(8)})
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + flags] |= 1
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_a_pickle_in_an_archive_may_not_call(archive, tmp_path):
    marker = tmp_path / "marker"
    content = pickle.dumps({"g": Call(os.system, f"touch {marker}")}, protocol=2)
    assert "refers to 'posix.system'" in refusal(archive.write({"a/data.pkl": content}))
    assert not marker.exists()


def test_a_legacy_file_that_goes_on_is_refused(save):
    path = save({"g": {"w": torch.ones(2)}}, is_zip=False)
    with path.open("ab") as file:
        file.write(b"more")
    assert "has 4 bytes after its last storage" in refusal(path)


def test_a_legacy_storage_larger_than_the_file_is_refused(save):
    path = save({"g": {"w": torch.ones(1000)}}, is_zip=False)
    data = path.read_bytes()
    assert data.count(b"M\xe8\x03") >= 1  # 1000, in the persistent id, and in the size
    path.write_bytes(data.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))
    assert "declares" in refusal(path)


def test_the_file_is_open_no_longer_than_needed(save, tmp_path):
    path = save({"g": {"w": torch.ones(2)}})
    with open_torch_file(path) as file:
        found = file.tensors("g")
    shutil.rmtree(tmp_path)
    assert found["w"].tolist() == [1, 1]


@FORMS
def test_random_damage_gives_weights_errors_and_nothing_else(save, is_zip):
    path = save({"g": {"w": torch.arange(3.0), "v": torch.ones(2)}}, is_zip=is_zip)
    whole, dice = path.read_bytes(), random.Random(0)
    messages = []
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 1, 2, 8])):
            start = dice.randrange(2, len(data))
            data[start : start + dice.choice([0, 1, 1, 4])] = dice.randbytes(dice.choice([0, 1, 4]))
        path.write_bytes(data)
        try:
            with open_torch_file(path) as file:
                file.tensors("g")
        except WeightsError as error:
            messages.append(str(error))
    assert len(messages) > 500
    assert all(message.isprintable() for message in messages)


def test_a_member_beyond_the_end_is_refused(archive):
    """Its header stands last of all, in the archive's comment."""
    path = archive.write({"a/data.pkl": tensor_pickle(2), "a/data/0": bytes(8)})
    data = bytearray(path.read_bytes())
    local, entry = data.rindex(b"PK\x03\x04"), data.rindex(b"PK\x01\x02")
    header = data[local : local + 30 + len("a/data/0")]
    data[entry + 42 : entry + 46] = struct.pack("<I", len(data))
    data[-2:] = struct.pack("<H", len(header))
    path.write_bytes(data + header)
    assert "damaged" in refusal(path)
