"""Loading of weights. The format of a file is detected from its contents, not from its suffix."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from stylegan import download
from stylegan.errors import WeightsError, did_you_mean
from stylegan.files import file_sha256
from stylegan.interop import (
    basicsr,
    catalogue,
    nvidia,
    rosinality,
    tensorflow_stylegan,
    tensorflow_stylegan2,
    unsupported,
)
from stylegan.interop.tensorflow_pickle import (
    NETWORK_NAMES,
    is_tensorflow_pickle,
    read_tensorflow_pickle,
)
from stylegan.interop.torch_file import TorchFile, is_torch_file, open_torch_file
from stylegan.models import io
from stylegan.models.base import AbstractGenerator, Networks
from stylegan.progress import Counter

_SNAPSHOTS = "snapshots"


def load(source: str | os.PathLike[str]) -> AbstractGenerator:
    """Load a generator for use: in eval mode, without gradients for its parameters.

    Other networks are not built, and not read if the format allows it.

    Args:
        source: as for `load_networks`.

    Returns:
        The running average of the generator if the source has it, else the generator.

    Raises:
        WeightsError: as `load_networks`; or if the source has no generator.
    """
    for name in ("generator_ema", "generator"):
        networks = load_networks(source, only=[name])
        generator: AbstractGenerator | None = getattr(networks, name)
        if generator is not None:
            return generator.eval().requires_grad_(False)
    raise WeightsError(f"{source} has no generator")


def load_networks(
    source: str | os.PathLike[str], *, only: Collection[str] | None = None
) -> Networks:
    """Load all networks of a source.

    Args:
        source: a native folder, a run folder (its newest complete snapshot), a file of any kind
            in `KINDS`, a URL of such a file, the name of a bundled network, or a name in
            `catalogue.KNOWN`.
        only: the networks to build, out of "generator_ema", "generator" and "discriminator"; None
            for all.

    Returns:
        Networks on the CPU, in float32; None for those that the source does not have.

    Raises:
        WeightsError: if the source is missing, of an unknown kind, or damaged.
    """
    path = local_path(source)
    return kind_of(path).load(path, only)


def local_path(source: str | os.PathLike[str], *, progress: Counter | None = None) -> Path:
    """Return the local path of a source. URLs and known names are downloaded into the cache.

    Args:
        source: as for `load_networks`.
        progress: progress of a download.

    Raises:
        WeightsError: as `download.fetch`.
    """
    if isinstance(source, str):
        if (bundled := catalogue.bundled_path(source)) is not None:
            return bundled
        if (url := catalogue.url_of(source)) is not None:
            return download.fetch(url, progress=progress)
    return Path(source)


def weights_path(source: str | os.PathLike[str], *, progress: Counter | None = None) -> Path:
    """Return the file or folder with the weights of a source; of a run, the newest snapshot.

    Args:
        source: as for `load_networks`.
        progress: called while the source is downloaded.

    Raises:
        WeightsError: if the source is missing or of no known kind, or a run has no snapshot yet.
    """
    path = local_path(source, progress=progress)
    kind_of(path)
    return newest_snapshot(path) if is_run(path) and not io.is_native(path) else path


def origin_of(path: Path) -> dict[str, object]:
    """Return what identifies weights: path, SHA-256, and images shown in training (or None)."""
    weights = path / "model.safetensors" if path.is_dir() else path
    nimg = io.read_metadata(path).get("nimg") if io.is_native(path) else None
    return {"path": str(path), "sha256": file_sha256(weights), "nimg": nimg}


def newest_snapshot(run_dir: Path) -> Path:
    """Return the newest snapshot of a run folder, which is a native folder.

    Raises:
        WeightsError: if the run has no snapshot yet.
    """
    if snapshots := complete_snapshots(run_dir):
        return snapshots[-1]
    raise WeightsError(
        f"{run_dir / _SNAPSHOTS} has no complete snapshot",
        expected="a folder named by nimg with model.safetensors and model.json",
        fix="wait for the run's first snapshot",
    )


def complete_snapshots(run_dir: Path) -> list[Path]:
    """Return the folders of a run's snapshots, oldest first, each named by its nimg.

    Incomplete snapshots, of a run that was killed while writing one, are left out.
    """
    folders = (run_dir / _SNAPSHOTS).glob("*")
    complete = [folder for folder in folders if _is_nimg(folder.name) and io.is_native(folder)]
    return sorted(complete, key=lambda folder: int(folder.name))


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Args:
        name: description for messages, with its article.
        recognizes: returns whether an existing path is of this kind; fast, and never raises.
        load: reads it, or raises WeightsError; the second argument is `only` of `load_networks`.
    """

    name: str
    recognizes: Callable[[Path], bool]
    load: Callable[[Path, Collection[str] | None], Networks]


def kind_of(path: Path) -> Kind:
    """Return the kind of a source.

    Raises:
        WeightsError: if it is missing, or of an unknown kind.
    """
    if not path.exists():
        names = [*catalogue.bundled_names(), *catalogue.KNOWN]
        raise WeightsError(
            f"{path} does not exist{did_you_mean(str(path), names)}",
            expected="a run folder, a weight file, a URL or a name of published weights",
        )
    if not path.is_file() and not path.is_dir():
        # Reading a pipe or a device could block or never end.
        raise WeightsError(
            f"{path} is neither a file nor a folder",
            expected="weights that can be read more than once",
            fix="write them to a file first",
        )
    for kind in KINDS:
        if kind.recognizes(path):
            return kind
    raise WeightsError(
        f"{path} is of an unknown kind",
        expected=", or ".join(kind.name for kind in KINDS if kind.load is not _refuse_torch_file),
    )


def _is_pickle(path: Path) -> bool:
    """Return whether a file starts with the protocol mark of pickles since 2003."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return False
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def is_run(path: Path) -> bool:
    """Return whether a folder is a run folder."""
    return (path / _SNAPSHOTS).is_dir()


def _is_nimg(name: str) -> bool:
    """Return whether a name is a count of images; `isdigit` would accept superscripts."""
    return name.isascii() and name.isdecimal()


def _load_native(path: Path, only: Collection[str] | None) -> Networks:
    return io.load(path, only=only)


def _load_run(path: Path, only: Collection[str] | None) -> Networks:
    return io.load(newest_snapshot(path), only=only)


def _load_tensorflow(path: Path, only: Collection[str] | None) -> Networks:
    keys = [key for key, name in NETWORK_NAMES.items() if only is None or name in only]
    # The family of a discriminator follows from the generator: names alone are ambiguous.
    tensorflow_networks = read_tensorflow_pickle(path, only=[*keys, "Gs"] if "D" in keys else keys)
    if not tensorflow_networks:
        return Networks()
    is_stylegan2 = any(
        tensorflow_stylegan2.is_stylegan2(network) for network in tensorflow_networks.values()
    )
    build = tensorflow_stylegan2.networks_of if is_stylegan2 else tensorflow_stylegan.networks_of
    networks = build(tensorflow_networks, str(path))
    if "Gs" not in keys:
        networks.generator_ema = None
    return networks


def _load_official(path: Path, only: Collection[str] | None) -> Networks:
    return nvidia.load_official_pickle(path, only=only)


def _is_torch_file_of(path: Path, holds: Callable[[TorchFile], bool]) -> bool:
    """Return whether a file of torch.save is readable and satisfies `holds`."""
    if not is_torch_file(path):
        return False
    try:
        with open_torch_file(path) as file:
            return holds(file)
    except WeightsError:
        return False


def _is_state_dicts(path: Path) -> bool:
    return _is_torch_file_of(path, nvidia.is_state_dicts)


def _load_state_dicts(path: Path, only: Collection[str] | None) -> Networks:
    with open_torch_file(path) as file:
        return nvidia.networks_of_state_dicts(file, only)


def _is_rosinality(path: Path) -> bool:
    return _is_torch_file_of(path, rosinality.is_rosinality)


def _load_rosinality(path: Path, only: Collection[str] | None) -> Networks:
    with open_torch_file(path) as file:
        return rosinality.networks_of(file, only)


def _is_basicsr(path: Path) -> bool:
    return _is_torch_file_of(path, basicsr.is_basicsr)


def _load_basicsr(path: Path, only: Collection[str] | None) -> Networks:
    with open_torch_file(path) as file:
        return basicsr.networks_of(file, only)


def _refuse_torch_file(path: Path, only: Collection[str] | None) -> Networks:
    """Raise the reason why a file of torch.save, or another zip archive, cannot be loaded."""
    with open_torch_file(path) as file:
        raise unsupported.refuse(file)


KINDS = (
    Kind("a native folder (model.safetensors, model.json)", io.is_native, _load_native),
    Kind("a run folder (snapshots/)", is_run, _load_run),
    Kind("an official TensorFlow pickle (.pkl)", is_tensorflow_pickle, _load_tensorflow),
    Kind("a torch.save file of official state dicts (.pt)", _is_state_dicts, _load_state_dicts),
    Kind("a BasicSR or GFPGAN file (.pth)", _is_basicsr, _load_basicsr),
    Kind("a rosinality file (.pt)", _is_rosinality, _load_rosinality),
    # Other and damaged files of torch.save must not be taken for pickles.
    Kind("another torch.save file", is_torch_file, _refuse_torch_file),
    Kind("an official PyTorch pickle (.pkl)", _is_pickle, _load_official),
)
"""All supported kinds of sources; the first one that recognizes a path loads it."""
