"""TensorFlow pickles of every age are read as data."""

import builtins
import copyreg
import os
import pickle
import shutil
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorflow_files import Network

from stylegan.errors import WeightsError
from stylegan.interop.tensorflow_pickle import is_tensorflow_pickle, read_tensorflow_pickle

PARITY = Path(__file__).parents[1] / "parity"
GOLDEN = PARITY / "stylegan2-tf.pkl"


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_tensorflow_pickle(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def test_the_three_networks_come_back_with_their_components_variables():
    networks = read_tensorflow_pickle(GOLDEN)
    assert list(networks) == ["G", "D", "Gs"]
    average = networks["Gs"]
    assert (average.version, average.name, average.build_func_name) == (4, "Gs", "G_main")
    assert average.static_kwargs["fmap_base"] == 256
    shapes = {name: tuple(tensor.shape) for name, tensor in average.variables.items()}
    assert shapes["lod"] == ()
    assert shapes["dlatent_avg"] == (32,)
    assert shapes["mapping/Dense0/weight"] == (32, 32)
    assert shapes["synthesis/4x4/ToRGB/weight"] == (1, 1, 24, 3)
    assert all(tensor.dtype == torch.float32 for tensor in average.variables.values())
    assert networks["D"].variables["Output/bias"].shape == (1,)


def test_only_its_own_kind_is_known_at_a_look(tmp_path):
    assert is_tensorflow_pickle(GOLDEN)
    assert not is_tensorflow_pickle(PARITY / "stylegan2-torch-skip-resnet.pkl")
    assert not is_tensorflow_pickle(tmp_path / "missing")
    assert not is_tensorflow_pickle(tmp_path)
    (tmp_path / "short").write_bytes(b"\x80\x04")
    assert not is_tensorflow_pickle(tmp_path / "short")


VALUES = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "turned": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "scalar": np.array(1.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.array([1.5, -2], np.float16),
    "double": np.array([1.5, -2], np.float64),
    "whole": np.array([1, -2], np.int64),
    "yes": np.array([True, False]),
    "bytes": np.array([200, 255], np.uint8),
}


@pytest.mark.parametrize("module", ["dnnlib.tflib.network", "tfutil"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_array_comes_back_in_every_protocol(write_tensorflow, protocol, module):
    root = Network("Gs", VALUES, static_kwargs={"psi": np.float64(0.7), "name": "x"}, version=2)
    path = write_tensorflow(root, protocol=protocol, module=module)
    assert is_tensorflow_pickle(path)
    read = read_tensorflow_pickle(path)["Gs"]
    assert read.version == 2
    assert read.static_kwargs == {"psi": 0.7, "name": "x"}
    for name, value in VALUES.items():
        assert np.array_equal(read.variables[name].numpy(), value), name
        assert read.variables[name].numpy().dtype == value.dtype
    read.variables["matrix"].fill_(7)  # it owns its memory


def test_the_spelling_of_old_numpy_is_known(write_tensorflow):
    path = write_tensorflow(Network("Gs", VALUES), protocol=2)
    data = path.read_bytes()
    assert b"numpy._core." in data
    path.write_bytes(data.replace(b"numpy._core.", b"numpy.core."))
    read = read_tensorflow_pickle(path)["Gs"]
    assert np.array_equal(read.variables["matrix"].numpy(), VALUES["matrix"])


def test_the_strings_of_python_2_are_read_as_bytes(tmp_path):
    """Written by hand as Python 2 writes them: names and data are byte strings."""

    def text(value: bytes) -> bytes:
        is_short = len(value) < 256
        return (
            b"U" + bytes([len(value)]) if is_short else b"T" + struct.pack("<i", len(value))
        ) + value

    values = np.arange(100, dtype=np.float32) * -1.7  # bytes above 127 are in it
    dtype = (
        b"cnumpy\ndtype\n("
        + text(b"f4")
        + b"K\x00K\x01tR(K\x03"
        + text(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
        b"(K\x01(K\x64t" + dtype + b"\x89" + text(values.tobytes()) + b"tb"
    )
    state = b"}(" + text(b"name") + text(b"Gs") + text(b"version") + b"K\x02"
    state += text(b"variables") + b"](" + text(b"w") + array + b"\x86e" + b"u"
    path = tmp_path / "old.pkl"
    path.write_bytes(b"\x80\x02ctfutil\nNetwork\n)\x81" + state + b"b.")
    assert np.array_equal(read_tensorflow_pickle(path)["Gs"].variables["w"].numpy(), values)


def test_the_official_dictionaries_come_back_with_and_without_attributes(
    write_tensorflow, monkeypatch
):
    module = types.ModuleType("dnnlib.util")

    class EasyDict(dict):
        def __reduce_ex__(self, protocol):  # as up to Python 3.10: an empty state, too
            return (copyreg.__newobj__, (EasyDict,), {}, None, iter(self.items()))

    EasyDict.__module__, EasyDict.__qualname__ = module.__name__, "EasyDict"
    module.EasyDict = EasyDict
    said = EasyDict(a=1, inner=OrderedDict(b=EasyDict()))
    root = Network("Gs", VALUES)
    root.state["static_kwargs"] = said
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "dnnlib", types.ModuleType("dnnlib"))
    path = write_tensorflow(root, module="tfutil")
    assert read_tensorflow_pickle(path)["Gs"].static_kwargs == {"a": 1, "inner": {"b": {}}}


def test_fewer_networks_are_known_by_their_names(write_tensorflow):
    g, d, average = (Network(name, VALUES) for name in ("G", "D", "Gs"))
    for root, keys in (
        (average, ["Gs"]),
        ((d,), ["D"]),
        ([average, d], ["Gs", "D"]),
        ((g, average), ["G", "Gs"]),
    ):
        assert list(read_tensorflow_pickle(write_tensorflow(root))) == keys
    renamed = tuple(Network(name, VALUES) for name in ("a", "b", "c"))
    assert list(read_tensorflow_pickle(write_tensorflow(renamed))) == ["G", "D", "Gs"]


def test_only_the_wanted_are_built(write_tensorflow):
    bad = Network("D", {"w": np.ones(3, np.float32)})
    bad.state["variables"] = [("w", "no array")]
    path = write_tensorflow((Network("G", VALUES), bad, Network("Gs", VALUES)))
    assert list(read_tensorflow_pickle(path, only=["Gs"])) == ["Gs"]
    assert "(D) holds 'no array' where a Array should be" in refusal(path)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ((), "holds a tuple"),
        ("text", "is no|holds 'text'"),
        ({"G": 1}, "holds a dict"),
        ((1, 2, 3), "holds 1"),
        ((Network("G", {}),) * 2, "holds a second network 'G'"),
        (Network("lpips", {}), "holds network 'lpips'"),
        ((Network("G", {}),) * 4, "holds a tuple"),
    ],
)
def test_other_contents_are_refused(write_tensorflow, root, message):
    found = refusal(write_tensorflow(root))
    assert any(part in found for part in message.split("|")), found


def with_state(**changes: object) -> Network:
    network = Network("Gs", VALUES)
    network.state |= changes
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (with_state(variables={"a": 1}), "where a list should be"),
        (with_state(variables=[("a",)]), "a variable that is not a pair"),
        (with_state(variables=[(1, VALUES["matrix"])]), "1 where a str"),
        (with_state(variables=[("a" * 101, VALUES["matrix"])]), "with too long a name"),
        (with_state(variables=[("a", VALUES["matrix"])] * 2), "variable 'a' twice"),
        (with_state(components={"x": 3}), "3 where a _Network"),
        (with_state(components={"x" * 101: 3}), "a name that is too long"),
        (with_state(static_kwargs=[1]), "a list where a dict"),
        (with_state(version="4"), "'4' where a int"),
        (with_state(name=4), "4 where a str"),
    ],
)
def test_states_of_another_form_are_refused(write_tensorflow, network, message):
    assert message in refusal(write_tensorflow(network))


def test_components_in_two_places_or_too_deep_are_refused(write_tensorflow):
    node = Network("x", {})
    for _ in range(40):  # 2**40 paths
        outer = Network("Gs", {}, components={"a": node, "b": node})
        node = outer
    assert "twice or too deep" in refusal(write_tensorflow(node))
    node = Network("x", {})
    for _ in range(8):
        node = Network("Gs", {}, components={"a": node})
    assert "twice or too deep" in refusal(write_tensorflow(node))


def test_one_array_under_many_names_is_refused(write_tensorflow):
    array = np.zeros(1 << 18, np.float32)
    root = Network("Gs", {f"v{index}": array for index in range(1000)})
    path = write_tensorflow(root)
    assert path.stat().st_size < 2 << 20
    assert "declares more data than it holds" in refusal(path)


class Call:
    """An object that pickles as a call."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def array(shape=(2,), dtype="f4", data: object = b"\0" * 8, *, is_fortran=False) -> Call:
    """Pickle an array by its parts."""
    reconstruct, arguments, _ = np.zeros(1).__reduce__()
    return Call(reconstruct, *arguments, state=(1, shape, np.dtype(dtype), is_fortran, data))


def test_an_array_by_its_parts_is_read(write_tensorflow):
    root = Network("Gs", {"a": array()})
    assert read_tensorflow_pickle(write_tensorflow(root))["Gs"].variables["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "value",
    [
        array(shape=(10**9,)),
        array(shape=(1 << 62, 1 << 62)),
        array(shape=(0, 1 << 62), data=b""),
        array(shape=(-1, -2)),
        array(shape=(3,)),
        array(shape=(1,) * 9 + (2,)),
        array(shape=(1.5,)),
        array(data=[1, 2]),
        array(data="\u2020" * 8),
        array(data=b""),
        array(dtype=">f4"),
        array(dtype="O", data=[1, 2]),
        array(dtype="U2"),
        array(dtype="f8"),
        array(dtype="c8", shape=(1,)),
        Call(np.zeros, 3),
        Call(np.ndarray, (10**9,)),
        Call(*np.zeros(1).__reduce__()[:1], np.ndarray, (10**9,), b"b"),
        Call(*np.zeros(1).__reduce__()[:1], *np.zeros(1).__reduce__()[1]),
    ],
)
def test_arrays_that_are_not_what_they_say_are_refused(write_tensorflow, value):
    message = refusal(write_tensorflow(Network("Gs", {"a": value})))
    assert "damaged" in message or "holds" in message or "refers to 'numpy." in message


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system"), (builtins.eval, "builtins.eval"), (np.load, "numpy.load")],
)
@pytest.mark.parametrize("place", ["root", "argument", "variable", "source"])
def test_a_call_is_refused_by_name_and_nothing_runs(
    write_tensorflow, tmp_path, function, name, place
):
    marker = tmp_path / "marker"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    call = Call(function, code)
    network = Network("Gs", VALUES)
    if place == "argument":
        network.state["static_kwargs"] = {"x": call}
    elif place == "variable":
        network.state["variables"] = [("a", call)]
    elif place == "source":
        network.state["build_module_src"] = call
    root = (network, call) if place == "root" else network
    assert f"refers to '{name}'" in refusal(write_tensorflow(root))
    assert not marker.exists()


def test_source_text_is_never_run(write_tensorflow, tmp_path):
    network = Network("Gs", VALUES)
    network.state["build_module_src"] = f"open({str(tmp_path / 'marker')!r}, 'w')"
    assert list(read_tensorflow_pickle(write_tensorflow(network))) == ["Gs"]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "rot13", "zip"])
def test_only_latin1_is_encoded(write_tensorflow, encoding):
    import _codecs

    network = Network("Gs", {"a": array(data=Call(_codecs.encode, "x", encoding))})
    assert "text to encode as" in refusal(write_tensorflow(network))


def test_a_missing_file_and_a_cut_file_are_reported_in_one_line(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "missing")
    cut = tmp_path / "cut.pkl"
    shutil.copy(GOLDEN, cut)
    with cut.open("r+b") as file:
        file.truncate(200_000)
    assert "is incomplete or damaged" in refusal(cut)
    cut.write_bytes(pickle.dumps(3))
    assert "holds 3" in refusal(cut)
