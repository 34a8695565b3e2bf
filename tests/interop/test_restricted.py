"""The reader builds plain data, runs nothing, and takes no more memory than the file has."""

import io
import os
import pickle
import random
import resource
import struct
import sys
import time
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from interop_files import persistent

from stylegan.errors import WeightsError
from stylegan.interop.official_pickle import read_official_pickle

GOLDEN = Path(__file__).parents[1] / "parity" / "stylegan2-torch-skip-resnet.pkl"
MAX_GROWTH_KIB = 64 * 1024  # ru_maxrss counts KiB on Linux


class Call:
    """An object that pickles as a call."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def refusal(path: Path) -> str:
    """Return the error for a file, which must be one line, quick, and cost no memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(WeightsError) as caught:
        read_official_pickle(path)
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def tiny_root() -> dict[str, object]:
    return {"G_ema": persistent("Generator", {"mapping.fc0.weight": torch.arange(6.0).view(2, 3)})}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_tensors_settings_and_names_come_back(write_pickle, protocol):
    weight, const = torch.randn(4, 3).t(), torch.randn(5)[::2]
    network = persistent(
        "Generator",
        {"fc0.weight": weight, "b4.noise_const": const},
        init_args=(3, 0),
        init_kwargs={"synthesis_kwargs": {"channel_max": 24}, "scale": np.float64(0.5)},
        attributes={"z_dim": 3},
    )
    (key, module), *rest = read_official_pickle(
        write_pickle({"G": None, "D": None, "G_ema": network}, protocol=protocol)
    ).items()
    assert (key, rest) == ("G_ema", [])
    assert module.class_name == "Generator"
    assert module.init_args == (3, 0)
    assert module.init_kwargs == {"synthesis_kwargs": {"channel_max": 24}, "scale": 0.5}
    assert module.attributes["z_dim"] == 3
    assert module.state_dict.keys() == {"fc0.weight", "b4.noise_const"}
    assert torch.equal(module.state_dict["fc0.weight"], weight)
    assert torch.equal(module.state_dict["b4.noise_const"], const)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_official_dictionaries_sizes_and_devices_come_back(write_pickle, monkeypatch, protocol):
    module = types.ModuleType("dnnlib.util")
    module.EasyDict = type("EasyDict", (dict,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "dnnlib", types.ModuleType("dnnlib"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    root = tiny_root()
    root["training_set_kwargs"] = module.EasyDict(path="data.zip")
    root["G_ema"].meta["state"]["_init_kwargs"] = module.EasyDict(
        z_dim=3,
        inner=module.EasyDict(a=OrderedDict(b=1)),
        size=torch.Size([2, 3]),
        device=torch.device("cpu"),
        names={"one"},
    )
    read = read_official_pickle(write_pickle(root, protocol=protocol))["G_ema"]
    inner, size = {"a": {"b": 1}}, (2, 3)
    assert read.init_kwargs == {
        "z_dim": 3,
        "inner": inner,
        "size": size,
        "device": "cpu",
        "names": {"one"},
    }


def test_a_dictionary_made_from_arguments_is_refused(write_pickle):
    for argument in ([("a", 1)], torch.ones(2)):
        root = root_with() | {"augment_pipe": Call(OrderedDict, argument)}
        assert "a dictionary made from arguments" in refusal(write_pickle(root))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_each_dtype_comes_back(write_pickle, dtype):
    tensor = torch.arange(4).to(dtype)
    root = {"G": persistent("Generator", {"noise_const": tensor, "const": tensor[:0]})}
    state = read_official_pickle(write_pickle(root))["G"].state_dict
    assert torch.equal(state["noise_const"], tensor)
    assert state["noise_const"].dtype == dtype
    assert state["const"].shape == (0,)


@pytest.mark.parametrize("place", ["root", "argument", "attribute", "tensor"])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (getattr, "builtins.getattr"),
        (torch.load, "torch.serialization.load"),
        (np.load, "numpy.load"),
        (bytearray, "builtins.bytearray"),
    ],
)
def test_a_call_is_refused_by_name_and_nothing_runs(write_pickle, tmp_path, function, name, place):
    marker = tmp_path / "marker"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    call = Call(function, code)
    root: dict[str, object] = tiny_root()
    state = root["G_ema"].meta["state"]
    if place == "root":
        root["training_set_kwargs"] = call
    elif place == "argument":
        state["_init_kwargs"] = {"z_dim": call}
    elif place == "attribute":
        state["hook"] = call
    else:
        state["_parameters"] = {"weight": call}
    assert f"refers to '{name}'" in refusal(write_pickle(root))
    assert not marker.exists()


def test_embedded_source_is_never_run(write_pickle, tmp_path):
    marker = tmp_path / "marker"
    root = tiny_root()
    root["G_ema"].meta["module_src"] = f"open({str(marker)!r}, 'w')\nraise SystemExit\n"
    assert set(read_official_pickle(write_pickle(root))) == {"G_ema"}
    assert not marker.exists()


def raw(body: bytes) -> bytes:
    """Put a protocol mark before operations and a stop after them."""
    return b"\x80\x04" + body + b"."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR", "refers to 'os.system'"),
        (b"(S'true'\nios\nsystem\n", "operation MARK|operation INST|operation STRING"),
        (b"Pname\n", "operation PERSID"),
        (b"K\x01Q", "operation BINPERSID"),
        (b"\x82\x01", "operation EXT1"),
        (b"}}b", "takes no state"),
        (b"}K\x01R", "damaged"),
        (b"}2", "operation DUP"),
        (b"\x97", "operation NEXT_BUFFER"),
        (b"h\x05", "damaged"),
        (b"(t0", "operation POP"),
        (b"(K\x01\x85", "no network under G"),
        (b"(\x85", "damaged"),
        (b"\x8e" + struct.pack("<Q", 1 << 60) + b"x", "damaged"),
        (b"\x8e" + struct.pack("<Q", 1 << 33) + b"x", "damaged"),
        (b"\x8d" + struct.pack("<Q", 1 << 40) + b"x", "damaged"),
        (b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x", "damaged"),
        (b"K\x01r\xff\xff\xff\x7f", "no network under G"),
        (b"})" + b"\x85" * 200_000 + b"K\x01s", "as a key"),
        (b")" + b"\x85" * 200_000, "no network under G"),
        (b"]" + b"]a" * 5, "no network under G"),
        (b"cbuiltins\nset\n(" + b"]" + b"\x8c\x01aa" + b"\x85R", "no network under G|damaged"),
        (b"\x8c\x04\xc3\x28\xff\x0a", "damaged"),
        (b"ca\\q\nb\n", "refers to 'a"),  # pickletools would warn of the backslash
        (b"N" * 1_000_001, "more than 1000000 operations"),
    ],
)
def test_operations_that_no_official_file_has_are_refused(tmp_path, body, message):
    path = tmp_path / "network.pkl"
    path.write_bytes(raw(body))
    found = refusal(path)
    assert any(part in found for part in message.split("|")), found


def storage(numel: int, *, count: int | None = None, data: bytes = b"\0" * 8) -> bytes:
    """Write one float32 storage in torch.save's old form.

    `numel` stands in its header; `count`, as large if None, before the data.
    """
    count = numel if count is None else count

    class Header:
        def persistent_id(self):
            return ("storage", torch.FloatStorage, "0", "cpu", numel, None)

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return item.persistent_id() if isinstance(item, Header) else None

    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    out = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(Header())
    return (
        out + buffer.getvalue() + pickle.dumps(["0"], protocol=2) + struct.pack("<q", count) + data
    )


def tensor_of(stored: bytes, *, offset=0, size=(2,), stride=(1,)) -> Call:
    inner = Call(torch.storage._load_from_bytes, stored)
    return Call(torch._utils._rebuild_tensor_v2, inner, offset, size, stride, False, {})


def root_with(**parameters: object) -> dict[str, object]:
    root = tiny_root()
    root["G_ema"].meta["state"]["_parameters"] = parameters
    return root


def test_our_own_storage_is_read_as_torch_reads_it(write_pickle):
    stored = storage(2, data=struct.pack("<2f", 1.5, -2.0))
    state = read_official_pickle(write_pickle(root_with(weight=tensor_of(stored))))["G_ema"]
    assert state.state_dict["weight"].tolist() == [1.5, -2.0]
    theirs = torch.load(io.BytesIO(stored), weights_only=True)._untyped_storage
    assert bytes(theirs.tolist()) == struct.pack("<2f", 1.5, -2.0)


@pytest.mark.parametrize(
    "tensor",
    [
        tensor_of(storage(2), size=(10**9,)),
        tensor_of(storage(2), size=(10**9,), stride=(0,)),
        tensor_of(storage(2), size=(1 << 62, 1 << 62), stride=(0, 0)),
        tensor_of(storage(2), size=(2,), stride=(2,)),
        tensor_of(storage(2), size=(2,), offset=1),
        tensor_of(storage(2), size=(-1,)),
        tensor_of(storage(2), size=(1,), stride=(1 << 80,)),
        tensor_of(storage(2), size=(0, 1 << 80), stride=(1, 1)),
        tensor_of(storage(2), size=(0, 1 << 40, 1 << 40), stride=(1, 1, 1)),
        tensor_of(storage(2), offset=-1),
        tensor_of(storage(2), size=(2, 1)),
        tensor_of(storage(2), size=(1,) * 9, stride=(1,) * 9),
        tensor_of(storage(10**9)),
        tensor_of(storage(1 << 62)),
        tensor_of(storage(3)),
        tensor_of(storage(1, count=2)),
        tensor_of(storage(2, count=1)),
        tensor_of(storage(-1)),
        tensor_of(storage(2, data=b"")),
        tensor_of(storage(2)[:-9]),
        tensor_of(b"PK\x03\x04"),
        tensor_of(b""),
    ],
)
def test_a_tensor_larger_than_its_data_is_refused(write_pickle, tensor):
    message = refusal(write_pickle(root_with(weight=tensor)))
    assert "declares" in message or "damaged" in message


def test_one_storage_read_many_times_is_refused(write_pickle):
    stored = storage(1 << 18, data=bytes(4 << 18))
    parameters = {f"p{i}": tensor_of(stored) for i in range(1000)}
    path = write_pickle(root_with(**parameters))
    assert path.stat().st_size < 2 << 20
    assert "declares more data than it holds" in refusal(path)


def test_one_tensor_under_many_names_is_refused(write_pickle):
    tensor = torch.zeros(1 << 18)
    path = write_pickle(root_with(**{f"p{i}": tensor for i in range(1000)}))
    assert "declares more data than it holds" in refusal(path)


def test_a_module_in_two_places_is_refused(write_pickle):
    node = persistent("Layer", {})
    for _ in range(60):  # 2**60 paths
        outer = persistent("Layer", {})
        outer.meta["state"]["_modules"] = {"a": node, "b": node}
        node = outer
    assert "twice or too deep" in refusal(write_pickle({"G": node}))


def test_one_state_under_many_modules_is_refused(write_pickle):
    root = persistent("Generator", {})
    state = {f"a{i}": 0 for i in range(1000)}
    children = {f"m{i}": persistent("Layer", {}) for i in range(1000)}
    for child in children.values():
        child.meta["state"] = state
    root.meta["state"]["_modules"] = children
    assert "twice or too deep" in refusal(write_pickle({"G": root}))


@pytest.mark.parametrize("num", [0, 1, 2, 3, 100, 2000, 30_000, 163_000, 303_000, 303_708])
def test_a_truncated_file_is_refused(tmp_path, num):
    path = tmp_path / "network.pkl"
    path.write_bytes(GOLDEN.read_bytes()[:num])
    assert (
        "is no pickle" in refusal(path) if num < 2 else "is incomplete or damaged" in refusal(path)
    )


def test_files_of_other_kinds_are_refused(tmp_path, write_pickle):
    torch.save({"g_ema": {}}, tmp_path / "zip.pkl")
    with zipfile.ZipFile(tmp_path / "zip2.pkl", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Call(os.system, f"touch {tmp_path / 'marker'}")))
    (tmp_path / "text.pkl").write_text("not weights\n")
    assert "is a zip archive" in refusal(tmp_path / "zip.pkl")
    assert "is a zip archive" in refusal(tmp_path / "zip2.pkl")
    assert "is no pickle" in refusal(tmp_path / "text.pkl")
    assert "cannot be read" in refusal(tmp_path / "missing.pkl")
    assert "cannot be read" in refusal(tmp_path)
    assert not (tmp_path / "marker").exists()
    for root in ([1, 2], {"g_ema": {}}, {"G": None}, "text", {"G": 3}):
        assert "no network under G" in refusal(write_pickle(root))
    assert "an integer of 801 bits" not in refusal(write_pickle({"G": 1 << 800}))


def test_names_from_a_file_stay_in_one_line(write_pickle):
    root = tiny_root()
    root["G_ema"].meta["state"]["_modules"] = {"a\nb\x1b[31m" + "c" * 1000: 3}
    refusal(write_pickle(root))
    path = write_pickle(root, name="other.pkl")
    path.write_bytes(raw(b"\x8c\x05o\ns\x1bx\x8c\x01y\x93"))
    refusal(path)


def test_random_damage_gives_weights_errors_and_nothing_else(write_pickle, tmp_path):
    whole = write_pickle(root_with(weight=torch.arange(3.0), bias=torch.ones(2))).read_bytes()
    dice = random.Random(0)
    path = tmp_path / "damaged.pkl"
    messages = []
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 1, 2, 8])):
            start = dice.randrange(2, len(data))
            data[start : start + dice.choice([0, 1, 1, 4])] = dice.randbytes(dice.choice([0, 1, 4]))
        path.write_bytes(data)
        try:
            read_official_pickle(path)
        except WeightsError as error:
            messages.append(str(error))
    for _ in range(300):
        path.write_bytes(b"\x80\x04" + dice.randbytes(dice.randrange(200)))
        refusal(path)
    assert len(messages) > 500
    assert all(message.isprintable() for message in messages)
