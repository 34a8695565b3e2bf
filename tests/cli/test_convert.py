"""`stylegan convert`: what it prints, and that hostile files get one line and nothing else."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.cli import main as cli
from stylegan.interop.storages import LEGACY_START
from stylegan.models.io import load

PARITY = Path(__file__).parents[1] / "parity"


def run(*arguments: object) -> int:
    return cli.main(["convert", *map(str, arguments)])


def test_the_table_shows_what_was_read_and_the_license_follows(tmp_path, capsys):
    assert run(PARITY / "stylegan-tf.pkl", tmp_path / "native") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "found an official TensorFlow pickle" in out
    for part in ("generator_ema", "stylegan", "growing, lod 0", "16x16", "24 at 4 to 8", "33,853"):
        assert part in out
    assert f"written native: {tmp_path / 'native'}" in out
    assert "license of the weights goes with them" in out
    assert load(tmp_path / "native").discriminator is not None


@pytest.mark.parametrize(("to", "names"), [("nvidia", "G_ema"), ("native", "generator_ema")])
def test_names_in_the_new_file_are_shown(tmp_path, capsys, to, names):
    assert run(PARITY / "stylegan2-torch-orig-orig.pkl", tmp_path / "out", "--to", to) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "becomes" in line]
    assert names in row


def test_a_file_does_not_get_the_suffix_of_another_format(tmp_path, capsys):
    out = tmp_path / "weights.pkl"
    assert run(PARITY / "stylegan2-torch-orig-orig.pkl", out, "--to", "nvidia") == 1
    error = capsys.readouterr().err
    assert "has the suffix .pkl of another format, but --to nvidia writes a torch.save" in error
    assert error.endswith("; name it weights.pt\n")
    assert not out.exists()


def test_what_cannot_be_said_is_one_line(tmp_path, capsys):
    assert run(PARITY / "stylegan-tf.pkl", tmp_path / "out.pt", "--to", "rosinality") == 1
    error = capsys.readouterr().err
    assert error.startswith("stylegan convert: generator has family stylegan, which rosinality")
    assert error.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("name", ["c.pkl", "c.PT", "c.safetensors"])
def test_a_folder_does_not_get_the_name_of_a_file(tmp_path, capsys, name):
    assert run(PARITY / "stylegan-tf.pkl", tmp_path / name) == 1
    error = capsys.readouterr().err
    assert f"{name} has the suffix {Path(name).suffix} of a file, but --to native writes a" in error
    assert not (tmp_path / name).exists()


def test_offline_the_place_for_the_file_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert run("http://127.0.0.1:9/network.pkl", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "http://127.0.0.1:9/network.pkl cannot be reached" in error
    assert f"put the file at {tmp_path}" in error
    assert error.count("\n") == 1


class Call:
    """An object that pickles as a call."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def persistent(meta: dict[str, object]) -> bytes:
    """Pickle a dictionary with one official module under G_ema, by hand."""
    head = b"\x80\x04}\x8c\x05G_ema\x8c\x17torch_utils.persistence\x8c\x1b"
    body = pickle.dumps(meta, protocol=2).removeprefix(b"\x80\x02").removesuffix(b".")
    return head + b"_reconstruct_persistent_obj\x93" + body + b"\x85Rs."


def tensorflow(variables: object) -> bytes:
    """Pickle one TensorFlow network, by hand."""
    state = {"name": "Gs", "version": 4, "variables": variables}
    body = pickle.dumps(state, protocol=2).removeprefix(b"\x80\x02").removesuffix(b".")
    return b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81" + body + b"b."


def write_hostile_files(folder: Path, marker: Path) -> None:
    """Write every kind of file that is not what it should be."""
    golden = (PARITY / "stylegan2-torch-skip-resnet.pkl").read_bytes()
    code = f"open({str(marker)!r}, 'w')"
    system, evaluate = Call(os.system, f"touch {marker}"), Call(eval, code)
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    meta = {"type": "class", "version": 6, "class_name": "Generator", "state": state}
    reconstruct, arguments, _ = np.zeros(1).__reduce__()
    billion = Call(reconstruct, *arguments, state=(1, (10**9,), np.dtype("f4"), False, b"\0" * 8))
    nested = b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b"."
    files = {
        "system.pkl": pickle.dumps({"G_ema": system}),
        "eval.pkl": pickle.dumps({"G_ema": evaluate}),
        "system-2.pkl": pickle.dumps(system, protocol=2),
        "eval-in-tuple.pkl": pickle.dumps((evaluate, 1, 2), protocol=4),
        "source.pkl": persistent(meta | {"module_src": code}),
        "call-in-meta.pkl": persistent(meta | {"module_src": system}),
        "billion-tensorflow.pkl": tensorflow([("w", billion)]),
        "call-tensorflow.pkl": tensorflow([("w", evaluate)]),
        "claimed-bytes.pkl": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x",
        "nested.pkl": nested,
        "operations.pkl": b"\x80\x04" + b"}" * 3_000_000,
        "truncated.pkl": golden[: len(golden) // 2],
        "truncated-tf.pkl": (PARITY / "stylegan2-tf.pkl").read_bytes()[:200_000],
        "page.pkl": b"<!DOCTYPE html><html>sign in</html>",
        "text.pkl": json.dumps({"G_ema": [1, 2]}).encode(),
        "empty.pkl": b"",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    Image.new("RGB", (64, 64)).save(folder / "picture.pkl", format="JPEG")
    (folder / "folder").mkdir()
    torch.save({"g_ema": {"w": system}}, folder / "zip-system.pt")
    legacy = {"_use_new_zipfile_serialization": False}
    torch.save({"g_ema": {"w": evaluate}}, folder / "legacy-eval.pt", **legacy)
    (folder / "truncated.pt").write_bytes((folder / "zip-system.pt").read_bytes()[:-100])
    buffer = io.BytesIO()
    torch.save({"g_ema": {"w": torch.zeros(3)}}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # the number of elements of the storage, and those of the view, are 3 each
    data_pkl, threes = members["archive/data.pkl"], b"K\x03"
    assert data_pkl.count(threes) == 2
    large = b"J" + struct.pack("<i", 10**9)
    changes = {
        "billion-storage.pt": {"archive/data.pkl": data_pkl.replace(threes, large)},
        "billion-view.pt": {"archive/data.pkl": large.join(data_pkl.rsplit(threes, 1))},
        "bomb.pt": {"archive/data.pkl": b"\x80\x02" + b"N" * (1 << 28)},
        "bomb-data.pt": {"archive/data/0": bytes(1 << 28)},
    }
    for name, change in changes.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member, content in (members | change).items():
                is_bomb = len(content) > 1 << 20
                packing = zipfile.ZIP_DEFLATED if is_bomb else zipfile.ZIP_STORED
                archive.writestr(member, content, compress_type=packing)
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    write_files_with_holes(folder, golden)


def write_files_with_holes(folder: Path, golden: bytes) -> None:
    """Write files that take little disk, and would take all memory of a reader that trusts them."""
    start = b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81"
    data, text = b"\x8e" + struct.pack("<Q", 68 << 20), b"\x8d" + struct.pack("<Q", 28 << 20)
    wide = text + "\U0001f600".encode()  # one such character makes four bytes of each
    texts = b"".join(b"X\x05\0\0\0%05d" % index for index in range(20_000))
    sets = b"cbuiltins\nset\n](" + texts + b"eq\x09\x85R"
    files = {
        "holes-bytes.pkl": [start, *[data, 68 << 20] * 50, b"."],
        "holes-bytearrays.pkl": [start, *[b"\x96" + data[1:], 68 << 20] * 50, b"."],
        "holes-texts.pkl": [start, *[data, 68 << 20] * 7, *[wide, (28 << 20) - 4] * 50, b"."],
        "holes-string.pkl": [start, b"T" + struct.pack("<i", (1 << 31) - 1), 1 << 31],
        "holes-integer.pkl": [b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1), 1 << 31],
        "holes-name.pkl": [b"\x80\x02c", 10 << 30],
        "holes-name.pt": [LEGACY_START, b"\x80\x02c", 10 << 30],
        "trailer.pkl": [golden, 10 << 30],
        "sets.pkl": [b"\x80\x02}(", sets, *[b"cbuiltins\nset\nh\x09\x85R"] * 1000, b"u."],
    }
    for name, parts in files.items():
        with (folder / name).open("wb") as file:
            for part in parts:
                if isinstance(part, int):
                    file.seek(part, os.SEEK_CUR)
                    file.truncate()
                else:
                    file.write(part)
    for name in ("holes-description", "holes-weights"):
        (folder / name).mkdir()
        header = b'{"generator_ema.a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'
        with (folder / name / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header % (2 << 30, 8 << 30))))
            file.write(header % (2 << 30, 8 << 30))
            file.truncate(file.tell() + (8 << 30))
        network = {"family": "stylegan2", "config": {"resolution": 8}}
        description = {"format": "stylegan", "version": 1, "metadata": {}}
        description["networks"] = {"generator_ema": network}
        (folder / name / "model.json").write_text(json.dumps(description))
    os.truncate(folder / "holes-description" / "model.json", 4 << 30)
    os.mkfifo(folder / "pipe.pkl")
    # 2 MB of text that Python 2 wrote, as the data of 500 arrays
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    size = struct.pack("<i", 2_000_000)
    first = b"T" + size + bytes(2_000_000) + b"q\x05"
    dtype = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R"
    arrays = [
        b"X\x04\0\0\0%04d" % index + reconstruct + b"(K\x01J" + size + b"\x85" + dtype
        + b"\x89" + (first if index == 0 else b"h\x05") + b"tb\x86"
        for index in range(500)
    ]  # fmt: skip
    state = b"}(U\x04nameU\x02GsU\tvariables](" + b"".join(arrays) + b"eub."
    (folder / "text-of-many-arrays.pkl").write_bytes(start + state)


REFUSALS = {
    "billion-storage.pt": "declares a storage of 1000000000 elements over 12 bytes",
    "billion-tensorflow.pkl": "an array of [1000000000] f4 over 8 bytes",
    "billion-view.pt": "declares a tensor of 1000000000 elements",
    "bomb-data.pt": "a compressed member 'data/0'",
    "bomb.pt": "a compressed member 'data.pkl'",
    "call-in-meta.pkl": "refers to 'posix.system'",
    "call-tensorflow.pkl": "refers to '__builtin__.eval'",
    "claimed-bytes.pkl": "one value of 1099511627776 bytes",
    "empty.pkl": "is of an unknown kind",
    "eval-in-tuple.pkl": "refers to 'builtins.eval'",
    "eval.pkl": "refers to 'builtins.eval'",
    "folder": "is of an unknown kind",
    "holes-bytearrays.pkl": "needs more than 560 MiB of memory",
    "holes-bytes.pkl": "needs more than 560 MiB of memory",
    "holes-description": "is of an unknown kind",
    "holes-integer.pkl": "one value of 2147483647 bytes",
    "holes-name.pkl": "no newline found",
    "holes-name.pt": "no newline found",
    "holes-string.pkl": "one value of 2147483647 bytes",
    "holes-texts.pkl": "needs more than 560 MiB of memory",
    "holes-weights": "(generator_ema) lacks",
    "legacy-eval.pt": "refers to '__builtin__.eval'",
    "nested.pkl": "holds no network",
    "operations.pkl": "more than 1000000 operations",
    "page.pkl": "is of an unknown kind",
    "picture.pkl": "is of an unknown kind",
    "pipe.pkl": "is neither a file nor a folder",
    "pictures.zip": "is a zip archive without data.pkl",
    "sets.pkl": "needs more than 560 MiB of memory",
    "source.pkl": "(G_ema) is a 'Generator' that is not StyleGAN2",
    "system-2.pkl": "refers to 'posix.system'",
    "system.pkl": "refers to 'posix.system'",
    "text.pkl": "is of an unknown kind",
    "text-of-many-arrays.pkl": "declares more data than it holds",
    "trailer.pkl": "bytes after the end of its pickle",
    "truncated-tf.pkl": "is incomplete or damaged",
    "truncated.pkl": "is incomplete or damaged",
    "truncated.pt": "is incomplete or damaged",
    "zip-system.pt": "refers to 'posix.system'",
}
PROGRAM = """
import sys
from pathlib import Path
from stylegan.cli.main import main

for path in sys.argv[2:]:
    status = main(["convert", path, sys.argv[1]])
    sys.stderr.write(f"{path}\\t{status}\\n")
# ru_maxrss would not do: it begins with what the process that started this one had
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_hostile_files_get_one_line_each_run_nothing_and_stay_below_a_gigabyte(tmp_path):
    """All in one process of the program, so that its peak is the largest of all."""
    folder, marker, out = tmp_path / "files", tmp_path / "marker", tmp_path / "out"
    folder.mkdir()
    write_hostile_files(folder, marker)
    assert {path.name for path in folder.iterdir()} == REFUSALS.keys()
    paths = [str(folder / name) for name in REFUSALS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out), *paths],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(paths), done.stderr
    for (name, refusal), path, message, status in zip(
        REFUSALS.items(), paths, lines[::2], lines[1::2], strict=True
    ):
        assert status == f"{path}\t1", message
        assert message.startswith(f"stylegan convert: {path}"), message
        assert refusal in message, name
        assert "; " in message  # what to do
        assert message.isprintable()
        assert len(message) < 1000
    assert not marker.exists()
    assert not out.exists()
    assert int(done.stdout) < 2**20  # KiB; 905 MiB of them here, the interpreter's 155 included


def test_an_honest_file_in_their_place_is_converted(tmp_path):
    """The refusals above are not for another reason."""
    assert run(PARITY / "stylegan2-torch-skip-resnet.pkl", tmp_path / "out") == 0
