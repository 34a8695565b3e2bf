"""Images, grids and videos of a generator."""

import functools
import itertools
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from stylegan.captions import Captions
from stylegan.devices import DeviceName
from stylegan.errors import ConfigError
from stylegan.files import unique_name, write_atomic
from stylegan.images import grid as tile
from stylegan.images import over_color, write_grid
from stylegan.latent.grids import (
    PADDING,
    TRUNCATION_PSIS,
    blend_grid,
    mixing_captions,
    mixing_grid,
    truncation_grid,
)
from stylegan.latent.interpolate import (
    Easing,
    Interpolation,
    loop_through,
    smooth_loop,
    sweep_truncation,
    walk_through,
)
from stylegan.latent.layers import parse_layers
from stylegan.latent.render import map_latents, render, synthesize_each
from stylegan.latent.saved import Key, Keys, as_keys, latents_of, name_of, names_of, styles_of
from stylegan.latent.seeds import latents_from_seeds
from stylegan.latent.video import auto_scale, check_video, video_html, write_video
from stylegan.models.base import AbstractGenerator
from stylegan.nn.noise import NoiseMode
from stylegan.notebook import Picture
from stylegan.pixel_format import UNIT, PixelFormat
from stylegan.progress import Progress, track
from stylegan.rng import generator_for
from stylegan.workflows.networks import (
    Network,
    check_batch,
    check_folder,
    check_psi,
    check_scale,
    check_suffix,
    check_truncation,
    label_of,
    load_generator,
    read_noise,
    stored_noise,
)

logger = logging.getLogger(__name__)

CHUNK_SEEDS = 256  # latents mapped before the first of them is rendered
MAX_LATENTS = 4  # of a blend, as in the paper
SMOOTHING_SECONDS = 1.0
"""Deviation of the filter of a random walk, as of the official interpolation videos."""
MAX_SMOOTHING = 1 / 8
"""Of the video's length; a wider filter leaves little motion."""
_MAX_SHOWN = 64


@dataclass(frozen=True, kw_only=True)
class GeneratedImages:
    """A sequence of generated images, read from their files on access.

    Each is [C, R, R] as it is stored: uint8 unless the network was trained on deeper images.

    Attributes:
        names: of the images, in the order of the seeds.
        folder: the folder with `NAME.png` or `NAME.npy`; None if no files were written.
        grid: path of the grid; None if none was written.
        pixels: the images if no files were written, else empty.
        format: channels and depth of the images.
    """

    names: Sequence[str]
    folder: Path | None
    grid: Path | None
    pixels: Sequence[Tensor] = field(repr=False)
    format: PixelFormat = field(default_factory=PixelFormat)

    @property
    def paths(self) -> list[Path]:
        """The files of the images; empty if none were written."""
        if self.folder is None:
            return []
        return [self.folder / f"{name}{self.format.suffix}" for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index] if self.folder is None else self.format.read(self.paths[index])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def picture(
        self, num: int = _MAX_SHOWN, *, captions: bool = False, scale: int | None = None
    ) -> Picture:
        """Return a grid of the first `num` images; options as of `images`."""
        shown = [self.format.shown_stored(image) for image in itertools.islice(self, num)]
        return Picture(pixels=_tiled(shown, self.names[:num] if captions else None, scale))

    def _repr_png_(self) -> bytes:
        return self.picture()._repr_png_()


@dataclass(frozen=True, kw_only=True)
class ImageGrid(Picture):
    """A grid of images.

    Attributes:
        rows: number of rows, without those that only show sources.
        columns: number of columns, likewise.
    """

    rows: int
    columns: int

    @classmethod
    def of(cls, pixels: Tensor, path: Path | None, *, rows: int, columns: int) -> Self:
        """Return a grid, written to a path if there is one."""
        grid = cls(pixels=pixels, path=path, rows=rows, columns=columns)
        if path is not None:
            grid.write(path)
        return grid


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video, which a notebook plays.

    Attributes:
        path: of the file, or of the folder of frames.
        num_frames: number of frames.
        fps: frames per second.
    """

    path: Path
    num_frames: int
    fps: float

    def _repr_html_(self) -> str:
        return video_html(self.path)


def images(
    network: Network,
    seeds: Keys,
    *,
    out: Path | str | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    class_index: str | int | None = None,
    noise_mode: NoiseMode = "const",
    noise_from: Path | None = None,
    grid: bool = False,
    captions: bool = False,
    scale: int | None = None,
    depth: Literal["auto", "uint8", "uint16", "float32"] = "auto",
    batch: int = 16,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> GeneratedImages:
    """Generate one image for each seed and each saved latent.

    OUT gets seed0000.png and so on; seed0000.npy, [H, W, C], for floats and channels that PNG files
    cannot hold. RGBA images have transparency. On the CPU a seed gives the same file, byte for
    byte, independent of the other seeds and the batch size.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        seeds: seeds and files of latents, such as "0-63,projected/cat.npz".
        out: the folder to write to.
        psi: truncation; 1 for full variation, 0 for the mean image. Saved latents are not
            truncated.
        cutoff: truncate only this many style inputs, coarsest first (default all).
        class_index: the class of a network with labels: its name, or its number from 0.
        noise_mode: "const" uses the stored noise, or that of a file of latents; "random" draws it
            from `seed` and the image's own seed; "none" adds none.
        noise_from: a file of latents whose noise maps are used for all images.
        grid: also write OUT/grid.png.
        captions: write the name of each image below it in the grid.
        scale: enlarge the images of the grid by this whole number (default: with captions to 64
            pixels or more).
        depth: type of a channel in the files; "auto" for that of the images that the network was
            trained on. Floats have the range of these images, else 0 to 1.
        batch: batch size on a GPU; the CPU computes one image at a time.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        seed: seed of random noise.
        progress: called after each image.

    Returns:
        The images, with their names.

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    keys = as_keys(seeds)
    check_batch(batch)
    check_psi(psi)
    folder = None if out is None else Path(out)
    check_folder(folder)
    check_scale(scale)
    if grid and folder is None:
        raise ConfigError("grid writes a file, so it needs out; use the result's picture()")
    if not grid and (captions or scale is not None):
        raise ConfigError("captions and scale are options of the grid: add --grid")
    generator = load_generator(network, device, progress=progress)
    has_seeds = any(isinstance(key, int) for key in keys)
    label = label_of(class_index, generator) if has_seeds else None
    check_truncation(psi, cutoff, generator)
    total = sum(1 if isinstance(key, int) else len(latents_of(key, generator).ws) for key in keys)

    def rendered(ws: Tensor, noise_keys: Sequence[int]) -> Iterator[Tensor]:
        return synthesize_each(
            generator, ws, noise_mode=noise_mode, noise_keys=noise_keys, seed=seed, batch=batch
        )

    def named() -> Iterator[tuple[str, Tensor]]:
        for chunk in _chunks(keys):
            if isinstance(chunk, list):
                ws = styles_of(generator, chunk, c=label, psi=psi, cutoff=cutoff, batch=batch)
                yield from zip(map(name_of, chunk), rendered(ws, chunk), strict=True)
                continue
            saved = latents_of(chunk, generator)
            num = len(saved.ws)
            names = [name_of(chunk) + (f"-{row:04d}" if num > 1 else "") for row in range(num)]
            with stored_noise(generator, saved.noise if noise_from is None else {}):
                yield from zip(names, rendered(saved.ws, range(num)), strict=True)

    pixels = generator.pixels
    if depth != "auto" and depth != pixels.depth:
        pixels = replace(pixels, depth=depth, range=UNIT)
    names: list[str] = []
    taken: set[str] = set()
    kept: list[Tensor] = []
    shown: list[Tensor] = []
    with stored_noise(generator, read_noise(noise_from, generator)):
        for name, image in track(named(), progress, "images", total):
            names.append(unique_name(name, taken))
            stored = pixels.to_stored(image).cpu()
            if folder is None:
                kept.append(stored)
            else:
                write_atomic(folder / f"{names[-1]}{pixels.suffix}", pixels.file_bytes(stored))
            if grid:
                shown.append(pixels.shown(image).cpu())
    grid_path = None
    if grid and folder is not None:
        grid_path = folder / "grid.png"
        write_grid(_tiled(shown, names if captions else None, scale), grid_path)
    return GeneratedImages(names=names, folder=folder, grid=grid_path, pixels=kept, format=pixels)


def mix(
    network: Network,
    rows: Keys,
    cols: Keys,
    *,
    out: Path | str | None = None,
    layers: str = "coarse",
    psi: float = 1.0,
    cutoff: int | None = None,
    class_index: str | int | None = None,
    noise_from: Path | None = None,
    captions: bool = True,
    scale: int | None = None,
    batch: int = 16,
    device: DeviceName | torch.device = "auto",
    progress: Progress | None = None,
) -> ImageGrid:
    """Draw a grid of style mixing: each image has some layers of its column, the others of its row.

    The first row and column show the sources and the destinations alone. At 1024x1024, coarse
    layers (4x4 to 8x8) control pose and shape, middle layers (16x16 and 32x32) features, and fine
    layers colors.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        rows: destinations, one for each row: seeds and files of latents, such as "85,cat.npz".
        cols: sources, one for each column, likewise.
        out: the PNG file to write.
        layers: style inputs taken from the source: coarse, middle, fine, all, none, or numbers
            such as "0-3,6".
        psi: truncation; 1 for full variation, 0 for the mean image. Saved latents are not
            truncated.
        cutoff: truncate only this many style inputs, coarsest first (default all).
        class_index: the class of a network with labels: its name, or its number from 0.
        noise_from: a file of latents whose noise maps are used for all images.
        captions: name the row and the column of each image, and above the corner the layers.
        scale: enlarge the images by this whole number (default: with captions to 64 pixels or
            more).
        batch: batch size on a GPU; the CPU computes one image at a time.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        progress: called while a URL is downloaded.

    Returns:
        The grid. Figure 3 of Karras et al. 2019 (StyleGAN).

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    destinations, sources = as_keys(rows), as_keys(cols)
    check_batch(batch)
    check_psi(psi)
    check_scale(scale)
    path = _png_path(out)
    generator = load_generator(network, device, progress=progress)
    label = label_of(class_index, generator)
    check_truncation(psi, cutoff, generator)
    _check_styles(generator)
    chosen = parse_layers(layers, generator.num_ws)
    row_ws, column_ws = (
        styles_of(generator, keys, c=label, psi=psi, cutoff=cutoff, batch=batch)
        for keys in (destinations, sources)
    )
    with stored_noise(generator, read_noise(noise_from, generator)):
        pixels = mixing_grid(
            generator,
            row_ws,
            sources=column_ws,
            layers=chosen,
            captions=mixing_captions(
                names_of(destinations, generator),
                sources=names_of(sources, generator),
                layers=layers,
            )
            if captions
            else None,
            scale=scale,
            batch=batch,
        )
    return ImageGrid.of(pixels, path, rows=len(row_ws), columns=len(column_ws))


def blend(
    network: Network,
    seeds: Keys,
    *,
    out: Path | str | None = None,
    latents: int = 2,
    num: int = 16,
    crossovers: str | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    class_index: str | int | None = None,
    noise_from: Path | None = None,
    captions: bool = False,
    scale: int | None = None,
    batch: int = 16,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> ImageGrid:
    """Draw a grid of images that each combine the styles of several latents.

    An image takes the first style inputs from one latent, the following ones from the next. The
    latents of an image and the crossovers between them are drawn from the seed.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        seeds: seeds and files of latents to choose from, such as "0-31,cat.npz".
        out: the PNG file to write.
        latents: latents of each image, 1 to 4.
        num: number of images.
        crossovers: the style inputs at which the next latent begins, in all images, such as "4,8"
            (default: drawn for each image).
        psi: truncation; 1 for full variation, 0 for the mean image. Saved latents are not
            truncated.
        cutoff: truncate only this many style inputs, coarsest first (default all).
        class_index: the class of a network with labels: its name, or its number from 0.
        noise_from: a file of latents whose noise maps are used for all images.
        captions: write the names of the latents of each image below it.
        scale: enlarge the images by this whole number (default: with captions to 64 pixels or
            more).
        batch: batch size on a GPU; the CPU computes one image at a time.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        seed: seed of the choice of latents and crossovers.
        progress: called while a URL is downloaded.

    Returns:
        The grid. Table 2 of Karras et al. 2019 (StyleGAN).

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    keys = as_keys(seeds)
    check_batch(batch)
    check_psi(psi)
    check_scale(scale)
    path = _png_path(out)
    if not 1 <= latents <= MAX_LATENTS:
        raise ConfigError(f"latents must be from 1 to {MAX_LATENTS}, got {latents}")
    if num < 1:
        raise ConfigError(f"num must be 1 or more, got {num}")
    generator = load_generator(network, device, progress=progress)
    label = label_of(class_index, generator)
    check_truncation(psi, cutoff, generator)
    _check_styles(generator)
    places = None if crossovers is None else parse_layers(crossovers, generator.num_ws)
    if places is not None and (len(places) != latents - 1 or 0 in places):
        raise ConfigError(
            f"crossovers must be {latents - 1} of the style inputs 1 to {generator.num_ws - 1} for "
            f"{latents} latents, got {crossovers}"
        )
    ws = styles_of(generator, keys, c=label, psi=psi, cutoff=cutoff, batch=batch)
    if len(ws) < latents:
        raise ConfigError(f"{len(ws)} seeds and latents were given, but each image needs {latents}")
    columns = _columns(num)
    with stored_noise(generator, read_noise(noise_from, generator)):
        pixels = blend_grid(
            generator,
            ws,
            num_latents=latents,
            num_images=num,
            columns=columns,
            crossovers=places,
            names=_short(names_of(keys, generator)) if captions else (),
            scale=scale,
            seed=seed,
            batch=batch,
        )
    return ImageGrid.of(pixels, path, rows=-(-num // columns), columns=columns)


def truncation(
    network: Network,
    seeds: Keys,
    *,
    out: Path | str | None = None,
    psis: Sequence[float] = TRUNCATION_PSIS,
    cutoff: int | None = None,
    class_index: str | int | None = None,
    noise_from: Path | None = None,
    captions: bool = True,
    scale: int | None = None,
    batch: int = 16,
    device: DeviceName | torch.device = "auto",
    progress: Progress | None = None,
) -> ImageGrid:
    """Draw a grid of truncation: a row for each seed, a column for each value of psi.

    1 shows the image itself, 0 the mean image, and negative values show opposites.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        seeds: seeds and files of latents, such as "91,cat.npz".
        out: the PNG file to write.
        psis: the values of psi.
        cutoff: truncate only this many style inputs, coarsest first (default all).
        class_index: the class of a network with labels: its name, or its number from 0.
        noise_from: a file of latents whose noise maps are used for all images.
        captions: name the seed of each row and the psi of each column.
        scale: enlarge the images by this whole number (default: with captions to 64 pixels or
            more).
        batch: batch size on a GPU; the CPU computes one image at a time.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        progress: called while a URL is downloaded.

    Returns:
        The grid. Figure 8 of Karras et al. 2019 (StyleGAN).

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    keys = as_keys(seeds)
    check_batch(batch)
    check_scale(scale)
    path = _png_path(out)
    if not psis:
        raise ConfigError("psis must have at least one value")
    for psi in psis:
        check_psi(psi)
    generator = load_generator(network, device, progress=progress)
    label = label_of(class_index, generator)
    check_truncation(0.0, cutoff, generator)
    ws = styles_of(generator, keys, c=label, batch=batch)
    with stored_noise(generator, read_noise(noise_from, generator)):
        names = names_of(keys, generator) if captions else ()
        pixels = truncation_grid(
            generator, ws, psis=psis, cutoff=cutoff, names=names, scale=scale, batch=batch
        )
    return ImageGrid.of(pixels, path, rows=len(ws), columns=len(psis))


def video(
    network: Network,
    out: Path | str,
    *,
    seeds: Keys | None = None,
    seconds: float = 2.0,
    fps: float = 25.0,
    space: Literal["z", "w"] = "w",
    interpolation: Interpolation = "spline",
    easing: Easing = "none",
    loop: bool = True,
    grid: str = "1x1",
    psi: float = 1.0,
    psi_to: float | None = None,
    cutoff: int | None = None,
    class_index: str | int | None = None,
    noise_mode: NoiseMode = "const",
    noise_from: Path | None = None,
    scale: int | None = None,
    batch: int = 16,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Video:
    """Write a video that interpolates between seeds and latents, or is a random walk without them.

    The suffix of OUT gives the format: .mp4 (H.264) and .webm (VP9) need the extra [video]; .gif
    and a folder of PNG files need nothing. The key frames are the images of their seeds. With
    `loop`, the frame after the last one would be the first.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        out: LOOP.mp4, LOOP.webm, LOOP.gif, or a folder.
        seeds: key frames: seeds and files of latents, such as "1-6,projected/cat.npz" (default: a
            random walk in z from `seed`).
        seconds: from one key frame to the next; of the whole video without key frames.
        fps: frames per second. A GIF has a resolution of hundredths of a second.
        space: where to interpolate.
        interpolation: a spline is smooth at the key frames; the others have corners there.
        easing: slow down before a key frame ("out"), after it ("in"), or both.
        loop: return to the first key frame, or end at the last.
        grid: columns and rows, such as 3x2, of paths side by side, among which the key frames are
            divided.
        psi: truncation; 1 for full variation, 0 for the mean image. Saved latents are not
            truncated.
        psi_to: change truncation from psi to this value; a loop returns to psi.
        cutoff: truncate only this many style inputs, coarsest first (default all).
        class_index: the class of a network with labels: its name, or its number from 0.
        noise_mode: "const" uses the stored noise, "random" draws new noise for each frame, "none"
            adds none.
        noise_from: a file of latents whose noise maps are used for all frames.
        scale: enlarge by this whole number (default: .mp4 and .webm to 256 pixels or more).
        batch: batch size on a GPU; the CPU computes one image at a time.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        seed: seed of the random walk and of random noise.
        progress: called after each frame.

    Returns:
        The path and length of the video.

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    path = Path(out)
    keys = None if seeds is None else as_keys(seeds)
    check_batch(batch)
    for value in (psi, psi_to):
        check_psi(1.0 if value is None else value)
    check_video(path, fps)
    num_frames = round(seconds * fps) if math.isfinite(seconds * fps) else 0
    if num_frames < 1:
        raise ConfigError(f"seconds {seconds:g} at fps {fps:g} is not at least one frame")
    check_scale(scale)
    columns, rows = _columns_and_rows(grid)
    if keys is None and not loop:
        raise ConfigError("a video without seeds is a loop: give seeds, or leave out --no-loop")
    if space == "z" and not all(isinstance(key, int) for key in keys or []):
        raise ConfigError("space z needs seeds: saved latents are in w")
    generator = load_generator(network, device, progress=progress)
    label = label_of(class_index, generator)
    for value in (psi, psi_to):
        check_truncation(1.0 if value is None else value, cutoff, generator)
    # a sweep truncates the path, otherwise the key frames are truncated and equal their stills
    key_psi = psi if psi_to is None else 1.0

    def to_ws(z: Tensor) -> Tensor:
        return map_latents(generator, z, c=label, psi=key_psi, cutoff=cutoff, batch=batch)

    def interpolated(points: Tensor) -> list[Tensor]:
        num_paths = columns * rows
        if len(points) % num_paths != 0:
            raise ConfigError(
                f"{len(points)} seeds cannot be divided evenly among the {num_paths} paths of grid "
                f"{grid}"
            )
        path = loop_through if loop else walk_through
        return [
            path(keys_of_path, num_frames, interpolation=interpolation, easing=easing)
            for keys_of_path in points.view(num_paths, -1, *points.shape[1:])
        ]

    if keys is None:
        paths = [
            to_ws(
                smooth_loop(
                    num_frames,
                    generator.z_dim,
                    sigma_frames=min(SMOOTHING_SECONDS * fps, MAX_SMOOTHING * num_frames),
                    generator=generator_for("video", seed=seed, nimg=index),
                )
            )
            for index in range(columns * rows)
        ]
    elif space == "z":
        z = latents_from_seeds([key for key in keys if isinstance(key, int)], generator.z_dim)
        paths = [to_ws(path_of_z) for path_of_z in interpolated(z)]
    else:
        paths = interpolated(
            styles_of(generator, keys, c=label, psi=key_psi, cutoff=cutoff, batch=batch)
        )
    if psi_to is not None:
        assert generator.w_avg is not None
        sweep = functools.partial(
            sweep_truncation, psi=psi, psi_to=psi_to, cutoff=cutoff, loop=loop, easing=easing
        )
        paths = [sweep(ws, generator.w_avg) for ws in paths]
    is_still = all(torch.allclose(ws, ws[:1], atol=1e-5) for ws in paths)
    if is_still and noise_mode != "random":
        is_mean = psi == 0 and psi_to in (None, 0)
        logger.warning(
            "all frames are the same: %s",
            "with psi 0 each one is the mean image; give another psi"
            if is_mean and all(isinstance(key, int) for key in keys or [])
            else "give several seeds, or more seconds",
        )
    frames = _frames(generator, paths, columns, noise_mode=noise_mode, seed=seed, batch=batch)
    total = len(paths[0])
    if scale is None:
        scale = auto_scale(path, columns * generator.current_size.width)
    with stored_noise(generator, read_noise(noise_from, generator)):
        write_video(track(frames, progress, "frames", total), path, fps=fps, scale=scale)
    return Video(path=path, num_frames=total, fps=fps)


def _frames(
    generator: AbstractGenerator,
    paths: Sequence[Tensor],
    columns: int,
    *,
    noise_mode: NoiseMode,
    seed: int,
    batch: int,
) -> Iterator[Tensor]:
    """Yield frames with an image of each path side by side; transparency is shown on white."""
    cells = [
        render(
            generator,
            ws,
            noise_mode=noise_mode,
            noise_keys=range(index * len(ws), (index + 1) * len(ws)),
            seed=seed,
            batch=batch,
        )
        for index, ws in enumerate(paths)
    ]
    for images_of_frame in zip(*cells, strict=True):
        frame = torch.stack(images_of_frame)
        yield tile(over_color(frame) if frame.shape[1] == 4 else frame, columns=columns)


def _chunks(keys: Sequence[Key]) -> Iterator[list[int] | Path | Tensor]:
    """Yield runs of seeds as lists of at most CHUNK_SEEDS, and saved latents one by one."""
    chunk: list[int] = []
    for key in keys:
        if chunk and (not isinstance(key, int) or len(chunk) == CHUNK_SEEDS):
            yield chunk
            chunk = []
        if isinstance(key, int):
            chunk.append(key)
        else:
            yield key
    if chunk:
        yield chunk


def _columns_and_rows(grid: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", grid, re.ASCII)
    if match is None:
        raise ConfigError(f"grid must be columns and rows such as 3x2, got {grid}")
    return int(match[1]), int(match[2])


def _short(names: Sequence[str]) -> list[str]:
    """Return names with the mere number of each seed, as several share the width of an image."""
    return [re.sub(r"^seed0*(?=\d)", "", name) for name in names]


def _columns(num: int) -> int:
    return math.ceil(math.sqrt(num))


def _tiled(pictures: Sequence[Tensor], names: Sequence[str] | None, scale: int | None) -> Tensor:
    """Return a square grid, with names if there are any."""
    return tile(
        torch.stack([*pictures]),
        columns=_columns(len(pictures)),
        padding=0 if names is None else PADDING,
        captions=None if names is None else Captions(tiles=names),
        scale=scale,
    )


def _png_path(out: Path | str | None) -> Path | None:
    path = None if out is None else Path(out)
    check_suffix(path, ".png")
    return path


def _check_styles(generator: AbstractGenerator) -> None:
    if generator.num_ws == 1:
        raise ConfigError("this network has no styles to mix: it has a single style input")
