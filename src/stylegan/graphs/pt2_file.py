"""A generator as a program of `torch.export`, or compiled by AOTInductor."""

import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.graphs.parts import BATCH, GeneratorPart


def export_program(part: GeneratorPart) -> Any:
    """Return a `torch.export.ExportedProgram` of a part, for any size of the batch."""
    batch = torch.export.Dim(BATCH, min=1)
    shapes = tuple({0: batch} if value.shape[:1] == (BATCH,) else {} for value in part.inputs)
    # A batch of one would be taken for a constant.
    with torch.inference_mode(False), torch.no_grad():
        return torch.export.export(part, tuple(part.example(2)), dynamic_shapes=(shapes,))


def write_program(program: Any, path: Path, *, is_compiled: bool) -> None:
    """Write a program as a .pt2 file, or compile it and write its library as one."""
    if is_compiled:
        from torch import _inductor  # takes seconds

        with warnings.catch_warnings():  # PyTorch's compiler calls what PyTorch deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            _inductor.aoti_compile_and_package(program, package_path=str(path))
    else:
        torch.export.save(program, path)


def run_program(path: Path, *, is_compiled: bool) -> Callable[[list[Tensor]], Tensor]:
    """Load a file of `write_program`, and return a function that computes it."""
    if is_compiled:
        from torch import _inductor

        compiled: Any = _inductor.aoti_load_package(str(path))
        return lambda tensors: compiled(*tensors)
    module: Any = torch.export.load(path).module()

    def run(tensors: list[Tensor]) -> Tensor:
        with torch.no_grad():
            result: Tensor = module(*tensors)
        return result

    return run


def add_metadata(path: Path, name: str, text: str) -> None:
    """Add a text to a .pt2 file, which `torch.export.load` returns as an extra file `name`.json."""
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/{name}.json", text)


def check_aot_compiler() -> None:
    """Raise ConfigError unless there is a C++ compiler, which PyTorch takes from CXX."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "cl"]
    if not any(map(shutil.which, names)):
        raise ConfigError(
            f"--aot needs a C++ compiler, and there is no {' or '.join(names)}",
            fix="install one, or leave out --aot",
        )
