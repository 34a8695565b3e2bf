"""Fixtures of the weight readers' tests."""

import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow_files


@pytest.fixture
def write_pickle(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Return a function that writes a root object with the official names in scope."""

    def refuse(meta: object) -> None:
        raise AssertionError("nothing from a file may run")

    module = types.ModuleType("torch_utils.persistence")
    refuse.__module__, refuse.__qualname__ = module.__name__, "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = refuse
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(root: object, *, protocol: int = 4, name: str = "network.pkl") -> Path:
        path = tmp_path / name
        path.write_bytes(pickle.dumps(root, protocol=protocol))
        return path

    return write


@pytest.fixture
def write_tensorflow(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Return a function that writes networks under the official names of their class."""

    def write(
        root: object,
        *,
        protocol: int = 4,
        name: str = "network.pkl",
        module: str = "dnnlib.tflib.network",
    ) -> Path:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            stub = types.ModuleType(".".join(parts[:end]))
            monkeypatch.setitem(sys.modules, stub.__name__, stub)
        stub.Network = tensorflow_files.Network
        monkeypatch.setattr(tensorflow_files.Network, "__module__", module)
        path = tmp_path / name
        path.write_bytes(pickle.dumps(root, protocol=protocol))
        return path

    return write
