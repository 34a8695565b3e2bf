"""`stylegan generate mix | blend | truncation`: the papers' sheets."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from stylegan import images
from stylegan.cli.drawing import Batch, Class, Cutoff, Keys, Network, NoiseFrom, Psi
from stylegan.cli.options import Device, Seed, console
from stylegan.errors import ConfigError
from stylegan.latent.grids import TRUNCATION_PSIS, blend_grid, mixing_grid, truncation_grid
from stylegan.latent.layers import parse_layers
from stylegan.latent.saved import Key, parse_keys, styles_of
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import store_noise
from stylegan.workflows.networks import (
    check_batch,
    check_psi,
    check_suffix,
    check_truncation,
    label_of,
    load_generator,
    read_noise,
)

MAX_LATENTS = 4  # in a blend, as in the paper

MIX = """Draw a sheet that mixes styles: rows keep their image, but for the layers of the columns.

The first row and column show the sources and the destinations alone. At 1024x1024 coarse layers
(4x4 to 8x8) carry pose and shape, middle ones (16x16, 32x32) features, fine ones colors. Seeds and
latents of `stylegan project` can stand side by side.

Example: stylegan generate mix --network runs/demo --rows 85,100 --cols 55,821 --out mix.png"""

BLEND = """Draw images of two to four latents each: one up to a style input, then the next.

The latents of an image, and where one follows the other, are drawn from --seed.

Example: stylegan generate blend --network runs/demo --seeds 0-31 --latents 3 --out blend.png"""

TRUNCATION = """Draw a sheet of truncation: a row for each seed, a column for each strength.

1 is the image itself, 0 the mean image, negative strengths show opposites.

Example: stylegan generate truncation --network runs/demo --seeds 91,388 --out truncation.png"""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Options of `stylegan generate mix`."""

    network: Network
    rows: Annotated[str, tyro.conf.arg(metavar="KEYS", help="Destinations, a row each.")]
    cols: Annotated[str, tyro.conf.arg(metavar="KEYS", help="Sources, a column each.")]
    out: Annotated[Path, tyro.conf.arg(metavar="SHEET.png", help="The PNG to write.")]
    layers: Annotated[
        str,
        tyro.conf.arg(
            metavar="LAYERS",
            help="Taken from the source: coarse, middle, fine, all, none, or numbers "
            'such as "0-3,6".',
        ),
    ] = "coarse"
    psi: Psi = 1.0
    cutoff: Cutoff = None
    class_index: Class = None
    noise_from: NoiseFrom = None
    batch: Batch = 16
    device: Device = "auto"

    def run(self) -> int:
        """Write the sheet."""
        rows, columns = parse_keys(self.rows), parse_keys(self.cols)
        check_batch(self.batch)
        check_psi(self.psi)
        check_suffix(self.out, ".png")
        generator = load_generator(self.network, self.device)
        label = label_of(self.class_index, generator)
        check_truncation(self.psi, self.cutoff, generator)
        _check_styles(self.network, generator)
        layers = parse_layers(self.layers, generator.num_ws)
        store_noise(generator, read_noise(self.noise_from, generator))

        def styles(keys: list[Key]) -> Tensor:
            return styles_of(
                generator, keys, c=label, psi=self.psi, cutoff=self.cutoff, batch=self.batch
            )

        destinations, sources = styles(rows), styles(columns)
        sheet = mixing_grid(
            generator, destinations, sources=sources, layers=layers, batch=self.batch
        )
        images.write(sheet, self.out)
        console().print(
            f"{len(destinations)} rows and {len(sources)} columns in {self.out}", markup=False
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Options of `stylegan generate blend`."""

    network: Network
    seeds: Keys
    out: Annotated[Path, tyro.conf.arg(metavar="SHEET.png", help="The PNG to write.")]
    latents: Annotated[
        int, tyro.conf.arg(metavar="K", help="In an image, 1 to 4; 1 shows latents as they are.")
    ] = 2
    num: Annotated[int, tyro.conf.arg(metavar="N", help="Images on the sheet.")] = 16
    crossovers: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="LAYERS",
            help='Where the next latent begins, in all images, such as "4,8"; left out: drawn.',
        ),
    ] = None
    psi: Psi = 1.0
    cutoff: Cutoff = None
    class_index: Class = None
    noise_from: NoiseFrom = None
    batch: Batch = 16
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Write the sheet."""
        keys = parse_keys(self.seeds)
        check_batch(self.batch)
        check_psi(self.psi)
        check_suffix(self.out, ".png")
        if not 1 <= self.latents <= MAX_LATENTS:
            raise ConfigError(
                f"--latents {self.latents}", expected=f"1 to {MAX_LATENTS}", fix="choose another"
            )
        if self.num < 1:
            raise ConfigError(f"--num {self.num}", expected="at least 1", fix="raise it")
        generator = load_generator(self.network, self.device)
        label = label_of(self.class_index, generator)
        check_truncation(self.psi, self.cutoff, generator)
        _check_styles(self.network, generator)
        places = None if self.crossovers is None else self._places(generator.num_ws)
        store_noise(generator, read_noise(self.noise_from, generator))
        ws = styles_of(generator, keys, c=label, psi=self.psi, cutoff=self.cutoff, batch=self.batch)
        if len(ws) < self.latents:
            raise ConfigError(
                f"{len(ws)} latents for images of {self.latents}",
                expected=f"at least {self.latents}",
                fix="name more by --seeds",
            )
        sheet = blend_grid(
            generator,
            ws,
            num_latents=self.latents,
            num_images=self.num,
            columns=math.ceil(math.sqrt(self.num)),
            crossovers=places,
            seed=self.seed,
            batch=self.batch,
        )
        images.write(sheet, self.out)
        console().print(f"{self.num} images in {self.out}", markup=False)
        return 0

    def _places(self, num_ws: int) -> list[int]:
        assert self.crossovers is not None
        places = parse_layers(self.crossovers, num_ws)
        if len(places) != self.latents - 1 or 0 in places:
            raise ConfigError(
                f"--crossovers {self.crossovers} for {self.latents} latents",
                expected=f"{self.latents - 1} of the style inputs 1-{num_ws - 1}",
                fix="leave it out to draw them",
            )
        return places


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """Options of `stylegan generate truncation`."""

    network: Network
    seeds: Keys
    out: Annotated[Path, tyro.conf.arg(metavar="SHEET.png", help="The PNG to write.")]
    psis: Annotated[
        tuple[float, ...], tyro.conf.arg(metavar="PSI...", help="Strengths, a column each.")
    ] = TRUNCATION_PSIS
    cutoff: Cutoff = None
    class_index: Class = None
    noise_from: NoiseFrom = None
    batch: Batch = 16
    device: Device = "auto"

    def run(self) -> int:
        """Write the sheet."""
        keys = parse_keys(self.seeds)
        check_batch(self.batch)
        check_suffix(self.out, ".png")
        if not self.psis:
            raise ConfigError("no --psis", expected="at least one", fix="leave it out")
        for psi in self.psis:
            check_psi(psi)
        generator = load_generator(self.network, self.device)
        label = label_of(self.class_index, generator)
        check_truncation(0.0, self.cutoff, generator)
        store_noise(generator, read_noise(self.noise_from, generator))
        ws = styles_of(generator, keys, c=label, batch=self.batch)
        sheet = truncation_grid(generator, ws, psis=self.psis, cutoff=self.cutoff, batch=self.batch)
        images.write(sheet, self.out)
        console().print(f"{len(ws)} rows in {self.out}", markup=False)
        return 0


def _check_styles(network: str, generator: AbstractGenerator) -> None:
    if generator.num_ws == 1:
        raise ConfigError(
            f"{network} has no styles to mix",
            expected="a StyleGAN or StyleGAN2 generator with a mapping network",
            fix="use another network",
        )
