"""`stylegan generate images | mix | video`: pictures of a trained generator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from stylegan import images
from stylegan.cli.drawing import (
    Batch,
    Class,
    Cutoff,
    Network,
    Psi,
    check_batch,
    check_psi,
    check_suffix,
    check_truncation,
    label_of,
    load_generator,
)
from stylegan.cli.options import Device, Seed, console, progress
from stylegan.errors import ConfigError
from stylegan.latent.interpolate import Interpolation, loop_through, smooth_loop
from stylegan.latent.layers import parse_layers
from stylegan.latent.render import map_latents, render
from stylegan.latent.seeds import latents_from_seeds, parse_seeds
from stylegan.latent.sheets import mixing_sheet
from stylegan.models.base import AbstractGenerator
from stylegan.nn.modulated import NoiseMode
from stylegan.rng import generator_for

CHUNK_SEEDS = 256  # so many styles are held at once
SMOOTHING_SECONDS = 1.0  # of the official interpolation videos
MAX_GIF_FPS = 50  # viewers slow down frames of less than two hundredths of a second

_IMAGES = """Write one PNG for each seed, OUT/seed0000.png and so on.

On the CPU a seed gives the same file, byte for byte, whatever the other seeds and the batch size.

Example: stylegan generate images --network runs/demo --seeds 0-63 --psi 0.7 --out out --grid"""

_MIX = """Draw a sheet that mixes styles: rows keep their image, but for the layers of the columns.

The first row and column show the sources and the destinations alone. At 1024x1024 coarse layers
(4x4 to 8x8) carry pose and shape, middle ones (16x16, 32x32) features, fine ones colors.

Example: stylegan generate mix --network runs/demo --rows 85,100 --cols 55,821 --out mix.png"""

_VIDEO = """Write an endless GIF that walks through seeds, or wanders where no seeds are given.

The frame after the last one would be the first. Key frames are the images of their seeds.

Example: stylegan generate video --network runs/demo --seeds 1-6 --psi 0.7 --out loop.gif"""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Options of `stylegan generate images`."""

    network: Network
    seeds: Annotated[str, tyro.conf.arg(metavar="SEEDS", help='Such as "0-63,100".')]
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder to write to.")]
    psi: Psi = 1.0
    cutoff: Cutoff = None
    class_index: Class = None
    noise_mode: Annotated[
        NoiseMode,
        tyro.conf.arg(help="The stored noise, noise drawn from --seed and the image's, or none."),
    ] = "const"
    grid: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="Write DIR/grid.png, too.")
    ] = False
    batch: Batch = 16
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Write the images."""
        seeds = parse_seeds(self.seeds)
        check_batch(self.batch)
        check_psi(self.psi)
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(
                f"--out {self.out} is a file", expected="a folder", fix="choose another name"
            )
        generator = load_generator(self.network, self.device)
        label = label_of(self.class_index, generator)
        check_truncation(self.psi, self.cutoff, generator)
        pictures: list[Tensor] = []
        with progress() as bar:
            task = bar.add_task("images", total=len(seeds))
            for start in range(0, len(seeds), CHUNK_SEEDS):
                chunk = seeds[start : start + CHUNK_SEEDS]
                ws = map_latents(
                    generator,
                    latents_from_seeds(chunk, generator.z_dim),
                    c=label,
                    psi=self.psi,
                    cutoff=self.cutoff,
                    batch=self.batch,
                )
                rendered = render(
                    generator,
                    ws,
                    noise_mode=self.noise_mode,
                    noise_keys=chunk,
                    seed=self.seed,
                    batch=self.batch,
                )
                for seed, picture in zip(chunk, rendered, strict=True):
                    images.write(picture, self.out / f"seed{seed:04d}.png")
                    if self.grid:
                        pictures.append(picture)
                    bar.advance(task)
        if self.grid:
            columns = math.ceil(math.sqrt(len(seeds)))
            images.write(images.grid(torch.stack(pictures), columns=columns), self.out / "grid.png")
        console().print(f"{len(seeds)} images in {self.out}", markup=False)
        return 0


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Options of `stylegan generate mix`."""

    network: Network
    rows: Annotated[str, tyro.conf.arg(metavar="SEEDS", help="Destinations, a row each.")]
    cols: Annotated[str, tyro.conf.arg(metavar="SEEDS", help="Sources, a column each.")]
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
    class_index: Class = None
    batch: Batch = 16
    device: Device = "auto"

    def run(self) -> int:
        """Write the sheet."""
        rows, columns = parse_seeds(self.rows), parse_seeds(self.cols)
        check_batch(self.batch)
        check_psi(self.psi)
        check_suffix(self.out, ".png")
        generator = load_generator(self.network, self.device)
        label = label_of(self.class_index, generator)
        check_truncation(self.psi, None, generator)
        if generator.num_ws == 1:
            raise ConfigError(
                f"{self.network} has no styles to mix",
                expected="a StyleGAN or StyleGAN2 generator with a mapping network",
                fix="use another network",
            )
        sheet = mixing_sheet(
            generator,
            latents_from_seeds(rows, generator.z_dim),
            sources=latents_from_seeds(columns, generator.z_dim),
            layers=parse_layers(self.layers, generator.num_ws),
            c=label,
            psi=self.psi,
            batch=self.batch,
        )
        images.write(sheet, self.out)
        console().print(f"{len(rows)} rows and {len(columns)} columns in {self.out}", markup=False)
        return 0


@dataclass(frozen=True, kw_only=True)
class Video:
    """Options of `stylegan generate video`."""

    network: Network
    out: Annotated[Path, tyro.conf.arg(metavar="LOOP.gif", help="The GIF to write.")]
    seeds: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="SEEDS",
            help='Key frames, such as "1-6"; left out: wander through z from --seed.',
        ),
    ] = None
    seconds: Annotated[
        float, tyro.conf.arg(help="From one key to the next; of the whole where there are none.")
    ] = 2.0
    fps: Annotated[
        float, tyro.conf.arg(help="Frames per second; a GIF counts in hundredths of a second.")
    ] = 25.0
    space: Annotated[Literal["z", "w"], tyro.conf.arg(help="Where to walk.")] = "w"
    interpolation: Annotated[
        Interpolation, tyro.conf.arg(help="Linear and spherical have corners at the keys.")
    ] = "spline"
    psi: Psi = 1.0
    cutoff: Cutoff = None
    class_index: Class = None
    noise_mode: Annotated[
        Literal["const", "none"], tyro.conf.arg(help="The stored noise, or none.")
    ] = "const"
    batch: Batch = 16
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Write the GIF."""
        keys = None if self.seeds is None else parse_seeds(self.seeds)
        check_batch(self.batch)
        check_psi(self.psi)
        check_suffix(self.out, ".gif")
        if not 0 < self.fps <= MAX_GIF_FPS:
            raise ConfigError(
                f"--fps {self.fps:g}",
                expected=f"more than 0, and at most {MAX_GIF_FPS}, in a GIF",
                fix="leave it out for 25",
            )
        num_frames = round(self.seconds * self.fps) if math.isfinite(self.seconds) else 0
        if num_frames < 1:
            raise ConfigError(
                f"--seconds {self.seconds:g} at --fps {self.fps:g}",
                expected="at least one frame",
                fix="raise --seconds",
            )
        generator = load_generator(self.network, self.device)
        label = label_of(self.class_index, generator)
        check_truncation(self.psi, self.cutoff, generator)
        ws = self._path(generator, label, keys, num_frames)
        pictures = render(generator, ws, noise_mode=self.noise_mode, batch=self.batch)
        with progress() as bar:
            frames = list(bar.track(pictures, total=len(ws), description="frames"))
        images.write_gif(frames, self.out, fps=self.fps)
        console().print(f"{len(frames)} frames in {self.out}", markup=False)
        return 0

    def _path(
        self,
        generator: AbstractGenerator,
        label: Tensor | None,
        keys: Sequence[int] | None,
        num_frames: int,
    ) -> Tensor:
        """Return ws [frames, num_ws, w_dim]."""

        def to_ws(z: Tensor) -> Tensor:
            return map_latents(
                generator, z, c=label, psi=self.psi, cutoff=self.cutoff, batch=self.batch
            )

        if keys is None:
            source = generator_for("video", seed=self.seed)
            sigma_frames = SMOOTHING_SECONDS * self.fps
            return to_ws(
                smooth_loop(
                    num_frames, generator.z_dim, sigma_frames=sigma_frames, generator=source
                )
            )
        z = latents_from_seeds(keys, generator.z_dim)
        if self.space == "z":
            return to_ws(loop_through(z, num_frames, interpolation=self.interpolation))
        return loop_through(to_ws(z), num_frames, interpolation=self.interpolation)


_Command = (
    Annotated[Images, tyro.conf.subcommand("images", description=_IMAGES, prefix_name=False)]
    | Annotated[Mix, tyro.conf.subcommand("mix", description=_MIX, prefix_name=False)]
    | Annotated[Video, tyro.conf.subcommand("video", description=_VIDEO, prefix_name=False)]
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan generate` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command: Images | Mix | Video = tyro.cli(
        _Command,
        prog="stylegan generate",
        description="Make pictures with a trained generator.",
        args=arguments,
    )
    return command.run()
