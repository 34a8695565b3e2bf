"""`stylegan generate video`: walks through latent space."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from stylegan import images
from stylegan.cli.drawing import Batch, Class, Cutoff, Network, NoiseFrom, Psi
from stylegan.cli.options import Device, Seed, console, progress
from stylegan.errors import ConfigError
from stylegan.latent.interpolate import (
    Easing,
    Interpolation,
    ease,
    loop_through,
    smooth_loop,
    walk_through,
)
from stylegan.latent.render import map_latents, render
from stylegan.latent.saved import Key, parse_keys, styles_of
from stylegan.latent.seeds import latents_from_seeds
from stylegan.latent.video import auto_scale, check_video, write_video
from stylegan.latents import truncate
from stylegan.models.base import AbstractGenerator
from stylegan.models.growth import resolution_at
from stylegan.models.noise import store_noise
from stylegan.nn.noise import NoiseMode
from stylegan.rng import generator_for
from stylegan.workflows.networks import (
    check_batch,
    check_psi,
    check_truncation,
    label_of,
    load_generator,
    read_noise,
)

SMOOTHING_SECONDS = 1.0  # of the official interpolation videos

VIDEO = """Write a video that walks through seeds and latents, or wanders where none are given.

The ending of OUT decides: .mp4 (H.264) and .webm (VP9) need the extra [video]; .gif, and a folder
of PNG files, need nothing. The frame after the last one would be the first, unless --no-loop. Key
frames are the images of their seeds.

Example: stylegan generate video --network runs/demo --seeds 1-6 --psi 0.7 --out loop.gif"""


@dataclass(frozen=True, kw_only=True)
class Video:
    """Options of `stylegan generate video`."""

    network: Network
    out: Annotated[
        Path, tyro.conf.arg(metavar="OUT", help="LOOP.mp4, LOOP.webm, LOOP.gif or a folder.")
    ]
    seeds: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="KEYS",
            help='Key frames: seeds and saved latents, such as "1-6,projected/cat.npz"; left out: '
            "wander through z from --seed.",
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
    easing: Annotated[
        Easing, tyro.conf.arg(help="Rest at the keys: on arriving (out), leaving (in), or both.")
    ] = "none"
    loop: Annotated[bool, tyro.conf.arg(help="Go back to the first key, or end at the last.")] = (
        True
    )
    grid: Annotated[
        str,
        tyro.conf.arg(
            metavar="CxR", help="Columns and rows of walks side by side, which share the keys out."
        ),
    ] = "1x1"
    psi: Psi = 1.0
    psi_to: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="PSI", help="Sweep truncation from --psi to here; a loop comes back."
        ),
    ] = None
    cutoff: Cutoff = None
    class_index: Class = None
    noise_mode: Annotated[
        NoiseMode,
        tyro.conf.arg(help="The stored noise, new noise in each frame, or none."),
    ] = "const"
    noise_from: NoiseFrom = None
    scale: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N",
            help="Enlarge by a whole number; left out: .mp4 and .webm to 256 pixels or more.",
        ),
    ] = None
    batch: Batch = 16
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Write the video."""
        keys = None if self.seeds is None else parse_keys(self.seeds)
        columns, rows = self._check(keys)
        generator = load_generator(self.network, self.device)
        label = label_of(self.class_index, generator)
        for psi in (self.psi, self.psi_to):
            check_truncation(1.0 if psi is None else psi, self.cutoff, generator)
        store_noise(generator, read_noise(self.noise_from, generator))
        walks = self._walks(generator, label, keys, columns * rows)
        num_frames = len(walks[0])
        side = columns * resolution_at(generator.img_resolution, generator.lod)
        scale = auto_scale(self.out, side) if self.scale is None else self.scale
        with progress() as bar:
            frames = bar.track(
                self._frames(generator, walks, columns), total=num_frames, description="frames"
            )
            write_video(frames, self.out, fps=self.fps, scale=scale)
        console().print(f"{num_frames} frames in {self.out}", markup=False)
        return 0

    @property
    def _num_frames(self) -> int:
        return round(self.seconds * self.fps) if math.isfinite(self.seconds * self.fps) else 0

    def _check(self, keys: Sequence[Key] | None) -> tuple[int, int]:
        """Refuse what can be refused before the network is read; return columns and rows."""
        check_batch(self.batch)
        check_psi(self.psi)
        check_psi(1.0 if self.psi_to is None else self.psi_to)
        check_video(self.out, self.fps)
        if self._num_frames < 1:
            raise ConfigError(
                f"--seconds {self.seconds:g} at --fps {self.fps:g}",
                expected="at least one frame",
                fix="raise --seconds",
            )
        if self.scale is not None and self.scale < 1:
            raise ConfigError(f"--scale {self.scale}", expected="1 or more", fix="leave it out")
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", self.grid, re.ASCII)
        if match is None:
            raise ConfigError(
                f"--grid {self.grid}", expected="columns and rows, such as 3x2", fix="change it"
            )
        if keys is None and not self.loop:
            raise ConfigError(
                "--no-loop without --seeds",
                expected="keys, the last of which ends the walk",
                fix="name some, or leave it out",
            )
        if self.space == "z" and any(isinstance(key, Path) for key in keys or []):
            raise ConfigError(
                "--space z with saved latents",
                expected="seeds: what is saved lies in w",
                fix="leave --space out",
            )
        return int(match[1]), int(match[2])

    def _walks(
        self,
        generator: AbstractGenerator,
        label: Tensor | None,
        keys: Sequence[Key] | None,
        num: int,
    ) -> list[Tensor]:
        """Return ws [frames, num_ws, w_dim] of each walk."""
        # a sweep truncates the path; without one the keys are, so that they equal their stills
        psi = self.psi if self.psi_to is None else 1.0

        def to_ws(z: Tensor) -> Tensor:
            return map_latents(generator, z, c=label, psi=psi, cutoff=self.cutoff, batch=self.batch)

        if keys is None:
            walks = [
                to_ws(
                    smooth_loop(
                        self._num_frames,
                        generator.z_dim,
                        sigma_frames=SMOOTHING_SECONDS * self.fps,
                        generator=generator_for("video", seed=self.seed, nimg=index),
                    )
                )
                for index in range(num)
            ]
        else:
            if self.space == "z":
                seeds = [key for key in keys if not isinstance(key, Path)]
                points = latents_from_seeds(seeds, generator.z_dim)
            else:
                points = styles_of(
                    generator, keys, c=label, psi=psi, cutoff=self.cutoff, batch=self.batch
                )
            if len(points) % num != 0:
                raise ConfigError(
                    f"{len(points)} keys for --grid {self.grid}",
                    expected=f"a multiple of {num}, each walk's share",
                    fix="name more or fewer by --seeds",
                )
            path = loop_through if self.loop else walk_through
            shares = points.view(num, len(points) // num, *points.shape[1:])
            walks = [
                path(
                    share,
                    self._num_frames,
                    interpolation=self.interpolation,
                    easing=self.easing,
                )
                for share in shares
            ]
            if self.space == "z":
                walks = [to_ws(walk) for walk in walks]
        return walks if self.psi_to is None else [self._swept(generator, walk) for walk in walks]

    def _swept(self, generator: AbstractGenerator, ws: Tensor) -> Tensor:
        """Truncate a path more and more, and in a loop less and less again."""
        assert self.psi_to is not None
        assert generator.w_avg is not None
        num = len(ws)
        swept = []
        for index in range(num):
            # there and back in a loop, whose turning points are at rest
            t = (
                ease(2 * index / num, "in-out")
                if self.loop
                else ease(index / max(1, num - 1), self.easing)
            )
            psi = self.psi + (self.psi_to - self.psi) * t
            swept.append(truncate(ws[index : index + 1], generator.w_avg, psi, self.cutoff))
        return torch.cat(swept)

    def _frames(
        self, generator: AbstractGenerator, walks: Sequence[Tensor], columns: int
    ) -> Iterator[Tensor]:
        """Make frames when they are asked for."""
        cells = [
            render(
                generator,
                walk,
                noise_mode=self.noise_mode,
                noise_keys=range(index * len(walk), (index + 1) * len(walk)),
                seed=self.seed,
                batch=self.batch,
            )
            for index, walk in enumerate(walks)
        ]
        for pictures in zip(*cells, strict=True):
            one = len(pictures) == 1
            yield pictures[0] if one else images.grid(torch.stack(pictures), columns=columns)
