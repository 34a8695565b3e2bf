"""One door for weights of every kind: what a source is, its content says, not its suffix."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from stylegan.errors import WeightsError
from stylegan.interop import tensorflow_stylegan2
from stylegan.interop.nvidia import load_official_pickle
from stylegan.interop.tensorflow_pickle import OURS, is_tensorflow_pickle, read_tensorflow_pickle
from stylegan.models import io
from stylegan.models.base import AbstractGenerator, Networks

_SNAPSHOTS = "snapshots"


def load(source: str | os.PathLike[str]) -> AbstractGenerator:
    """Load a generator for use: in eval mode, without gradients for its parameters.

    Only it is built, and only it is read where the file allows that.

    Args:
        source: as for `load_networks`.

    Returns:
        The running average of the generator where the source has it, else the generator.

    Raises:
        WeightsError: as `load_networks`; or if the source has no generator.
    """
    for name in ("generator_ema", "generator"):
        networks = load_networks(source, only=[name])
        generator: AbstractGenerator | None = getattr(networks, name)
        if generator is not None:
            return generator.eval().requires_grad_(False)
    raise WeightsError(
        f"{source} has no generator",
        expected="a generator_ema or a generator",
        fix="pass another source",
    )


def load_networks(
    source: str | os.PathLike[str], *, only: Collection[str] | None = None
) -> Networks:
    """Load all networks of a source.

    Args:
        source: a native folder, a run folder (its newest complete snapshot), or a file of any
            kind in `KINDS`.
        only: names out of "generator_ema", "generator" and "discriminator", to build no others;
            None builds all.

    Returns:
        On the CPU, in float32; None for what the source does not have.

    Raises:
        WeightsError: if the source is missing, of no known kind, or damaged.
    """
    path = Path(source)
    return kind_of(path).load(path, only)


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Args:
        name: what to call it, with its article.
        recognizes: look at a path that exists; must be quick, and raise nothing.
        load: read it, or raise WeightsError; the second argument is `only` of `load_networks`.
    """

    name: str
    recognizes: Callable[[Path], bool]
    load: Callable[[Path, Collection[str] | None], Networks]


def kind_of(path: Path) -> Kind:
    """Say what a source is.

    Raises:
        WeightsError: if it is missing, or of no known kind.
    """
    for kind in KINDS:
        if path.exists() and kind.recognizes(path):
            return kind
    raise WeightsError(
        f"{path} is of no known kind" if path.exists() else f"{path} does not exist",
        expected=" or ".join(kind.name for kind in KINDS),
        fix="check the path",
    )


def _is_pickle(path: Path) -> bool:
    """Look for the protocol mark that every pickle since 2003 starts with."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return False
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def _is_run(path: Path) -> bool:
    return (path / _SNAPSHOTS).is_dir()


def _load_native(path: Path, only: Collection[str] | None) -> Networks:
    return io.load(path, only=only)


def _load_run(path: Path, only: Collection[str] | None) -> Networks:
    """Load the newest snapshot; one that was being written when the run died is passed over."""
    folders = [folder for folder in (path / _SNAPSHOTS).iterdir() if folder.name.isdigit()]
    for folder in sorted(folders, key=lambda folder: int(folder.name), reverse=True):
        if io.is_native(folder):
            return io.load(folder, only=only)
    raise WeightsError(
        f"{path / _SNAPSHOTS} has no complete snapshot",
        expected="a folder named by nimg with model.safetensors and model.json",
        fix="wait for the run's first snapshot, or pass another source",
    )


def _load_tensorflow(path: Path, only: Collection[str] | None) -> Networks:
    keys = [key for key, name in OURS.items() if only is None or name in only]
    return tensorflow_stylegan2.networks_of(read_tensorflow_pickle(path, only=keys), str(path))


def _load_official(path: Path, only: Collection[str] | None) -> Networks:
    return load_official_pickle(path, only=only)


KINDS = (
    Kind("a native folder (model.safetensors, model.json)", io.is_native, _load_native),
    Kind("a run folder (snapshots/)", _is_run, _load_run),
    Kind("an official TensorFlow pickle (.pkl)", is_tensorflow_pickle, _load_tensorflow),
    Kind("an official PyTorch pickle (.pkl)", _is_pickle, _load_official),
)
"""Every kind of source we read; the first that recognizes a path loads it."""
