"""`stylegan generate images`, and the other ways to draw with a trained generator."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from stylegan import images
from stylegan.cli.drawing import Batch, Class, Cutoff, Keys, Network, NoiseFrom, Psi
from stylegan.cli.options import Device, Seed, console, progress
from stylegan.cli.sheets import BLEND, MIX, TRUNCATION, Blend, Mix, Truncation
from stylegan.cli.video import VIDEO, Video
from stylegan.errors import ConfigError
from stylegan.files import unique_name
from stylegan.latent.render import render
from stylegan.latent.saved import (
    Key,
    SavedLatents,
    name_of,
    parse_keys,
    read_latents,
    styles_of,
)
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps, store_noise
from stylegan.nn.noise import NoiseMode
from stylegan.workflows.networks import (
    check_batch,
    check_psi,
    check_truncation,
    label_of,
    load_generator,
    read_noise,
)

CHUNK_SEEDS = 256  # so many styles are held at once

_IMAGES = """Write one PNG for each seed, OUT/seed0000.png and so on, and for each saved latent.

On the CPU a seed gives the same file, byte for byte, whatever the other seeds and the batch size.

Example: stylegan generate images --network runs/demo --seeds 0-63 --psi 0.7 --out out --grid"""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Options of `stylegan generate images`."""

    network: Network
    seeds: Keys
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder to write to.")]
    psi: Psi = 1.0
    cutoff: Cutoff = None
    class_index: Class = None
    noise_mode: Annotated[
        NoiseMode,
        tyro.conf.arg(
            help="The stored noise, or that of a file of latents; noise drawn from --seed and the "
            "image's; or none."
        ),
    ] = "const"
    noise_from: NoiseFrom = None
    grid: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="Write DIR/grid.png, too.")
    ] = False
    batch: Batch = 16
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Write the images."""
        keys = parse_keys(self.seeds)
        check_batch(self.batch)
        check_psi(self.psi)
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(
                f"--out {self.out} is a file", expected="a folder", fix="choose another name"
            )
        generator = load_generator(self.network, self.device)
        needs_label = any(not isinstance(key, Path) for key in keys)
        label = label_of(self.class_index, generator) if needs_label else None
        check_truncation(self.psi, self.cutoff, generator)
        store_noise(generator, read_noise(self.noise_from, generator))
        saved = {key: read_latents(key, generator) for key in keys if isinstance(key, Path)}
        total = sum(len(saved[key].ws) if isinstance(key, Path) else 1 for key in keys)
        pictures: list[Tensor] = []
        names: set[str] = set()
        with progress() as bar:
            task = bar.add_task("images", total=total)
            for name, picture in self._pictures(generator, keys, saved, label):
                images.write(picture, self.out / f"{unique_name(name, names)}.png")
                if self.grid:
                    pictures.append(picture)
                bar.advance(task)
        if self.grid:
            columns = math.ceil(math.sqrt(total))
            images.write(images.grid(torch.stack(pictures), columns=columns), self.out / "grid.png")
        console().print(f"{total} images in {self.out}", markup=False)
        return 0

    def _pictures(
        self,
        generator: AbstractGenerator,
        keys: Sequence[Key],
        saved: Mapping[Path, SavedLatents],
        label: Tensor | None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield name and pixels of each image, as they are made."""
        for is_file, group in itertools.groupby(keys, lambda key: isinstance(key, Path)):
            if is_file:
                for path in group:
                    assert isinstance(path, Path)
                    yield from self._saved_pictures(generator, path, saved[path])
                continue
            seeds = [key for key in group if not isinstance(key, Path)]
            for start in range(0, len(seeds), CHUNK_SEEDS):
                chunk = seeds[start : start + CHUNK_SEEDS]
                ws = styles_of(
                    generator,
                    chunk,
                    c=label,
                    psi=self.psi,
                    cutoff=self.cutoff,
                    batch=self.batch,
                )
                for seed, picture in zip(chunk, self._render(generator, ws, chunk), strict=True):
                    yield f"seed{seed:04d}", picture

    def _saved_pictures(
        self, generator: AbstractGenerator, path: Path, found: SavedLatents
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield what is saved in a file, with the noise that is saved with it."""
        stored = {layer: noise.clone() for layer, noise in noise_maps(generator).items()}
        if self.noise_from is None:
            store_noise(generator, found.noise)
        rendered = self._render(generator, found.ws, range(len(found.ws)))
        for index, picture in enumerate(rendered):
            yield name_of(path) + (f"-{index:04d}" if len(found.ws) > 1 else ""), picture
        store_noise(generator, stored)

    def _render(
        self, generator: AbstractGenerator, ws: Tensor, keys: Sequence[int]
    ) -> Iterator[Tensor]:
        return render(
            generator,
            ws,
            noise_mode=self.noise_mode,
            noise_keys=keys,
            seed=self.seed,
            batch=self.batch,
        )


_Command = (
    Annotated[Images, tyro.conf.subcommand("images", description=_IMAGES, prefix_name=False)]
    | Annotated[Mix, tyro.conf.subcommand("mix", description=MIX, prefix_name=False)]
    | Annotated[Blend, tyro.conf.subcommand("blend", description=BLEND, prefix_name=False)]
    | Annotated[
        Truncation,
        tyro.conf.subcommand("truncation", description=TRUNCATION, prefix_name=False),
    ]
    | Annotated[Video, tyro.conf.subcommand("video", description=VIDEO, prefix_name=False)]
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan generate` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command: Images | Mix | Blend | Truncation | Video = tyro.cli(
        _Command,
        prog="stylegan generate",
        description="Make pictures with a trained generator.",
        args=arguments,
    )
    return command.run()
