"""Perceptual path length: how fast an image changes as its latent moves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from stylegan.latents import lerp, slerp
from stylegan.metrics.protocols import PathLengthProtocol
from stylegan.metrics.sources import check_finite
from stylegan.models.base import AbstractGenerator
from stylegan.ops.box import downsample_box
from stylegan.perceptual.detector import AbstractDistance
from stylegan.rng import generator_for

PAIRS_AT_ONCE = 4
"""Pairs rendered together. Their noise comes from one stream, so it is part of the protocol."""

LARGEST_SIDE = 256
"""Side, in pixels, to which larger images are reduced before they are compared."""


@torch.no_grad()
def path_length_values(
    generator: AbstractGenerator,
    distance: AbstractDistance,
    protocol: PathLengthProtocol,
    *,
    seed: int,
    index: int,
    size: int,
    num: int | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Return the squared speed of the image at one place on each path of a chunk.

    A value is d(image(t), image(t + epsilon)) / epsilon^2, with a distance d that is of the
    second order, as LPIPS. Latents, places and noise depend on `seed`, `index` and `size` only.
    Memory is that of a few images, whatever `size`.

    Each step beside the official code:

    - no truncation, float32 whatever the network's `compute_dtype`, images neither clamped nor
      quantized: equal;
    - z: the great circle between normalized latents, then mapped; w: a line between mapped
      ones: equal. Places and latents between are computed in float64 and then rounded to
      float32, where the original rounds every step, which makes its means about 1e-4 larger
      (measured on lines and arcs in 512 dimensions). What rounding in the network adds at this
      epsilon stayed below 1e-3 of the mean (measured on random StyleGAN2 networks, 128 pixels,
      against longer steps);
    - noise is drawn for each pair, and is the same for its two images; the original's is the
      same for a minibatch of 4 (TensorFlow) or 2 (PyTorch) pairs: the same in expectation;
    - see `comparable` for the crop and the reduction.

    Source: Karras et al. 2019 (StyleGAN), section 4.1.

    Args:
        generator: in eval mode.
        distance: on the same device.
        protocol: which space, where on the path, the crop.
        seed: of the evaluation.
        index: of the chunk, from 0.
        size: pairs in a whole chunk, the same for all chunks.
        num: how many of them to measure, the first ones; None for all.
        labels: one for each pair of the whole chunk, [size, c_dim]; None where the generator
            takes none.

    Returns:
        float64 [num] on the CPU.

    Raises:
        WeightsError: if an image is not finite, as those of a run that diverged.
    """
    num = size if num is None else num
    starts, ends = _latents(generator, protocol, seed=seed, index=index, size=size, labels=labels)
    values = torch.empty(num, dtype=torch.float64)
    with _full_precision(generator):
        for first in range(0, num, PAIRS_AT_ONCE):
            part = slice(first, min(first + PAIRS_AT_ONCE, num))
            # Whole parts, even where the last rows are not asked for: noise is drawn by part.
            pair = [
                comparable(
                    _render(generator, latents, first, seed=seed, index=index, size=size),
                    crop=protocol.crop,
                )[: part.stop - first]
                for latents in (starts, ends)
            ]
            values[part] = distance.distance(*pair).cpu().double()
    check_finite(values)
    return values / protocol.epsilon**2


@torch.no_grad()
def path_image(
    generator: AbstractGenerator,
    protocol: PathLengthProtocol,
    *,
    seed: int,
    index: int,
    size: int,
    row: int,
    labels: Tensor | None = None,
) -> Tensor:
    """Return the first image of a pair, to be shown beside its value; whole, float32 [C, R, R].

    Images with short paths look better than those with long ones; sorted by their values they
    show what the metric measures.

    Source: Karras et al. 2020 (StyleGAN2), section 3 and figure 4.

    Args:
        generator: as of `path_length_values`, and the other arguments too.
        protocol: likewise.
        seed: likewise.
        index: likewise.
        size: likewise.
        row: of the pair in its chunk, from 0.
        labels: likewise.
    """
    starts, _ = _latents(generator, protocol, seed=seed, index=index, size=size, labels=labels)
    first = row // PAIRS_AT_ONCE * PAIRS_AT_ONCE
    with _full_precision(generator):
        images = _render(generator, starts, first, seed=seed, index=index, size=size)
    return images[row - first].cpu()


def comparable(images: Tensor, *, crop: bool) -> Tensor:
    """Cut out the centre of aligned faces, and reduce to at most 256 pixels by box averages.

    With c = H // 8 the crop is rows 3c to 7c and columns 2c to 6c, without their ends: half of
    each side. The reduction follows the size after the crop, as in TensorFlow: 1024 pixels are
    cropped to 512 and halved to 256. StyleGAN2-ADA in PyTorch takes its factor from the size
    before and ends at 128, so its cropped variants are other numbers where R is above 256; those
    without a crop are equal.

    Args:
        images: [N, C, R, R].
        crop: whether to cut.

    Raises:
        ValueError: if a crop would leave nothing, with R below 8.
    """
    if crop:
        cell = images.shape[2] // 8
        if cell == 0:
            raise ValueError(f"a crop takes images of at least 8 pixels, got {images.shape[2]}")
        images = images[:, :, 3 * cell : 7 * cell, 2 * cell : 6 * cell]
    return downsample_box(images, factor=max(images.shape[2] // LARGEST_SIDE, 1))


def compared_side(side: int, *, crop: bool) -> int:
    """Return the side of what `comparable` leaves of images, in pixels; 0 for nothing."""
    side = 4 * (side // 8) if crop else side
    return side // max(side // LARGEST_SIDE, 1)


def filtered_mean(values: Tensor, *, lowest: int = 1, highest: int = 99) -> float:
    """Return the mean of values from one percentile to another, both included.

    The lower percentile is the value at or below its place in sorted order, the upper one that
    at or above: numpy's methods "lower" and "higher", as in the official code.

    Args:
        values: float [N].
        lowest: percentile, whole, from 0.
        highest: percentile, whole, to 100.

    Raises:
        ValueError: if there is no value, or the percentiles are not in order.
    """
    if len(values) == 0 or not 0 <= lowest <= highest <= 100:
        raise ValueError(
            "a filtered mean takes values and percentiles in order, "
            f"got {len(values)} values, {lowest} and {highest}"
        )
    ordered = values.double().sort().values
    last = len(ordered) - 1
    low, high = ordered[last * lowest // 100], ordered[-(-last * highest // 100)]
    return float(ordered[(ordered >= low) & (ordered <= high)].mean())


def _latents(
    generator: AbstractGenerator,
    protocol: PathLengthProtocol,
    *,
    seed: int,
    index: int,
    size: int,
    labels: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Draw the paths of a whole chunk; return ws at t and at t + epsilon, [size, num_ws, w_dim]."""
    device = next(generator.parameters()).device
    c = None if labels is None else labels.to(device)
    stream = generator_for("path latents", seed=seed, nimg=index * size)
    z0, z1 = torch.randn([2, size, generator.z_dim], generator=stream)
    places = torch.rand([size], generator=stream, dtype=torch.float64)
    if protocol.sampling == "end":
        places = torch.zeros_like(places)
    moved = (places, places + protocol.epsilon)
    if protocol.space == "z":
        on_sphere = (slerp(z0.double(), z1.double(), t[:, None]) for t in moved)
        at, after = (generator.mapping(z.float().to(device), c) for z in on_sphere)
        return at, after
    ws0, ws1 = (generator.mapping(z.to(device), c).cpu().double() for z in (z0, z1))
    at, after = (lerp(ws0, ws1, t[:, None, None]).float().to(device) for t in moved)
    return at, after


def _render(
    generator: AbstractGenerator, ws: Tensor, first: int, *, seed: int, index: int, size: int
) -> Tensor:
    """Render the part of a chunk that begins at a row; the same noise for equal arguments."""
    noise = generator_for("path noise", seed=seed, nimg=index * size + first)
    images: Tensor = generator.synthesis(
        ws[first : first + PAIRS_AT_ONCE], noise_mode="random", generator=noise
    )
    return images


@contextmanager
def _full_precision(generator: AbstractGenerator) -> Iterator[None]:
    """Let a generator compute in float32 for a while."""
    before = generator.compute_dtype
    generator.compute_dtype = torch.float32
    try:
        yield
    finally:
        generator.compute_dtype = before
