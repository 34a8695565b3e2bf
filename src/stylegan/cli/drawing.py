"""What the commands that draw with a network share: their options, and the checks of these."""

import itertools
import math
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from stylegan.cli.options import DeviceName, progress, resolve_device
from stylegan.errors import ConfigError, DataError, WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.latent.saved import read_latents
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import store_noise
from stylegan.perceptual.detector import AbstractDistance
from stylegan.perceptual.discriminator import DiscriminatorDistance
from stylegan.perceptual.networks import load_distance

_DISTANCES = {"lpips": "lpips-vgg16", "efficientnet": "efficientnet-lite0"}

Network = Annotated[
    str, tyro.conf.arg(metavar="NET", help="A run folder, a native folder or a weight file.")
]
Keys = Annotated[
    str,
    tyro.conf.arg(
        metavar="KEYS", help='Seeds and files of latents, such as "0-63,projected/cat.npz".'
    ),
]
NoiseFrom = Annotated[
    Path | None,
    tyro.conf.arg(metavar="FILE.npz", help="Take the noise of all images from saved latents."),
]
Psi = Annotated[
    float, tyro.conf.arg(help="Truncation: 1 for full variation, 0 for the mean image.")
]
Cutoff = Annotated[
    int | None,
    tyro.conf.arg(metavar="N", help="Truncate the N coarsest layers only; left out: all."),
]
Class = Annotated[
    int | None,
    tyro.conf.arg(name="class", metavar="N", help="The class, from 0, of a generator with labels."),
]
Perceptual = Literal["lpips", "efficientnet", "discriminator"]
PerceptualOption = Annotated[
    Perceptual,
    tyro.conf.arg(
        help="The distance: the published LPIPS, whose weights are downloaded once; "
        "EfficientNet-Lite0, of the extra [metrics]; or the network's own discriminator."
    ),
]
WeightsDir = Annotated[
    Path | None,
    tyro.conf.arg(metavar="DIR", help="A folder into which weights of feature networks were put."),
]
Batch = Annotated[
    int, tyro.conf.arg(metavar="N", help="Images at once on a GPU; the CPU makes one at a time.")
]


def load_generator(network: str | Path, device: DeviceName) -> AbstractGenerator:
    """Load a generator onto a device; on the CPU it computes in float32."""
    target = resolve_device(device)
    generator = load(network)
    if target.type == "cpu":
        generator.compute_dtype = torch.float32
    return generator.to(target)


def load_perceptual(
    name: Perceptual, network: Path, *, weights_dir: Path | None, device: torch.device
) -> AbstractDistance:
    """Load a perceptual distance, with a progress bar where its weights are downloaded.

    Args:
        name: which.
        network: whose discriminator is taken, where one is wanted.
        weights_dir: a folder into which weights were put by hand.
        device: where to put it.

    Raises:
        ConfigError: if the network has no discriminator.
        WeightsError: if weights can neither be found nor downloaded.
    """
    if name == "discriminator":
        discriminator = load_networks(network, only=["discriminator"]).discriminator
        if discriminator is None:
            raise ConfigError(
                f"{network} has no discriminator",
                expected="one, for --perceptual discriminator",
                fix="choose lpips or efficientnet",
            )
        return DiscriminatorDistance(discriminator).to(device)
    with progress(transient=True) as bar:
        task = bar.add_task("download, MB", total=None, visible=False)

        def observe(done: int, total: int | None) -> None:
            size = None if total is None else total / 1e6
            bar.update(task, completed=done / 1e6, total=size, visible=True)

        try:
            return load_distance(
                _DISTANCES[name], weights_dir=weights_dir, device=device, progress=observe
            )
        except WeightsError as error:
            fixes = [error.fix, "--perceptual discriminator needs no other file"]
            raise WeightsError(
                error.found, expected=error.expected, fix="; ".join(filter(None, fixes))
            ) from error


def take_noise(generator: AbstractGenerator, path: Path | None) -> None:
    """Store the noise of a file of latents in a generator; nothing without a file.

    Raises:
        DataError: if the file has no noise of this generator.
    """
    if path is None:
        return
    found = read_latents(path, generator)
    if not found.noise:
        raise DataError(
            f"--noise-from {path}: the file has no noise",
            expected="latents of `stylegan project`, with noise maps",
            fix="leave it out",
        )
    store_noise(generator, found.noise)


def check_batch(batch: int) -> None:
    """Raise ConfigError unless at least one image is made at once."""
    if batch < 1:
        raise ConfigError(f"--batch {batch}", expected="at least 1", fix="leave it out for 16")


def check_psi(psi: float) -> None:
    """Raise ConfigError unless a strength of truncation is a finite number."""
    if not math.isfinite(psi):
        raise ConfigError(f"--psi {psi}", expected="a finite number", fix="leave it out for 1")


def label_of(class_index: int | None, generator: AbstractGenerator) -> Tensor | None:
    """Return a class as a label [c_dim], one-hot; None for a generator without labels."""
    num = generator.c_dim
    if class_index is None and num == 0:
        return None
    if num == 0:
        raise ConfigError(
            f"--class {class_index}", expected="a generator with labels", fix="leave --class out"
        )
    if class_index is None or not 0 <= class_index < num:
        raise ConfigError(
            "no --class" if class_index is None else f"--class {class_index}",
            expected=f"0 to {num - 1}, the classes of this generator",
            fix="choose one of them; other labels from Python: G = stylegan.load(NET); G(z, c)",
        )
    return torch.eye(num)[class_index]


def check_truncation(psi: float, cutoff: int | None, generator: AbstractGenerator) -> None:
    """Raise ConfigError unless a generator can be truncated so."""
    if psi != 1 and generator.w_avg is None:
        raise ConfigError(
            f"--psi {psi:g}",
            expected="1: this generator has no mapping network whose mean it could approach",
            fix="leave it out",
        )
    if cutoff is not None and not 0 <= cutoff <= generator.num_ws:
        raise ConfigError(
            f"--cutoff {cutoff}",
            expected=f"0 to {generator.num_ws}, the layers of this generator",
            fix="leave it out to truncate all layers",
        )


def check_suffix(path: Path, *suffixes: str) -> None:
    """Raise ConfigError unless an output is a file whose name ends in one of `suffixes`."""
    if path.suffix.lower() not in suffixes or path.is_dir():
        raise ConfigError(
            f"--out {path}",
            expected=f"a file name that ends in {' or '.join(suffixes)}",
            fix="rename it",
        )


def new_name(name: str, taken: set[str]) -> str:
    """Return a name for another file, with a number where there is one of this name; take it."""
    numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    new = next(each for each in numbered if each not in taken)
    taken.add(new)
    return new
