"""Perceptual path length: the rate of change of an image along a path in latent space."""

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
"""Pairs rendered together. They share a stream of noise, so the number is part of the protocol."""

LARGEST_SIDE = 256
"""Side in pixels to which larger images are reduced before they are compared."""


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
    """Return the path length at one position on each path of a chunk.

    A value is d(image(t), image(t + epsilon)) / epsilon^2 with a distance d of second order, such
    as LPIPS. Latents, positions and noise depend only on `seed`, `index` and `size`. Memory is that
    of a few images.

    Compared with the official code:

    - no truncation, float32 whatever the network's `compute_dtype`, images neither clamped nor
      quantized: equal;
    - z: the great circle between normalized latents, then mapped; w: a line between mapped
      latents: equal. Positions and interpolated latents are computed in float64 and then rounded
      to float32. The original rounds every step, which makes its means about 1e-4 larger (measured
      on lines and arcs in 512 dimensions). Rounding within the network added less than 1e-3 of the
      mean at this epsilon (measured on random StyleGAN2 networks, 128 pixels, against longer
      steps);
    - noise is drawn for each pair, and is equal for its two images; in the original it is equal
      for a minibatch of 4 (TensorFlow) or 2 (PyTorch) pairs, which is the same in expectation;
    - see `prepare_for_distance` for the crop and the reduction.

    Source: Karras et al. 2019 (StyleGAN), section 4.1.

    Args:
        generator: in eval mode.
        distance: on the same device.
        protocol: space, position on the path, and crop.
        seed: seed of the evaluation.
        index: index of the chunk, from 0.
        size: pairs in a complete chunk, equal for all chunks.
        num: only compute the first `num` pairs; None for all.
        labels: a label for each pair of the complete chunk, [size, c_dim]; None for an
            unconditional generator.

    Returns:
        float64 [num] on the CPU.

    Raises:
        WeightsError: if an image is not finite, as after diverged training.
    """
    num = size if num is None else num
    starts, ends = _latents(generator, protocol, seed=seed, index=index, size=size, labels=labels)
    values = torch.empty(num, dtype=torch.float64)
    with _full_precision(generator):
        for first in range(0, num, PAIRS_AT_ONCE):
            batch = slice(first, min(first + PAIRS_AT_ONCE, num))
            # Complete batches even if the last rows are not needed: noise is drawn per batch.
            pair = [
                prepare_for_distance(
                    distance.view(
                        _render(generator, latents, first, seed=seed, index=index, size=size),
                        generator.pixels,
                    ),
                    crop=protocol.crop,
                )[: batch.stop - first]
                for latents in (starts, ends)
            ]
            values[batch] = distance.distance(*pair).cpu().double()
    check_finite(values)
    return values / protocol.epsilon**2


@torch.no_grad()
def first_image(
    generator: AbstractGenerator,
    protocol: PathLengthProtocol,
    *,
    seed: int,
    index: int,
    size: int,
    row: int,
    labels: Tensor | None = None,
) -> Tensor:
    """Return the first image of a pair, uncropped, float32 [C, H, W].

    Images with short paths tend to look better than those with long ones, which sorting them by
    their values shows.

    Source: Karras et al. 2020 (StyleGAN2), section 3 and figure 4.

    Args:
        generator: as for `path_length_values`.
        protocol: as for `path_length_values`.
        seed: as for `path_length_values`.
        index: as for `path_length_values`.
        size: as for `path_length_values`.
        row: index of the pair in its chunk, from 0.
        labels: as for `path_length_values`.
    """
    starts, _ = _latents(generator, protocol, seed=seed, index=index, size=size, labels=labels)
    first = row // PAIRS_AT_ONCE * PAIRS_AT_ONCE
    with _full_precision(generator):
        images = _render(generator, starts, first, seed=seed, index=index, size=size)
    return images[row - first].cpu()


def prepare_for_distance(images: Tensor, *, crop: bool) -> Tensor:
    """Crop the center of aligned faces, and reduce images to at most 256 pixels by box averages.

    With c = H // 8 the crop is rows 3c to 7c and columns 2c to 6c (ends excluded), half of each
    side; of images that are not square, columns count in W // 8. The factor of the reduction
    depends on the size after the crop, as in the TensorFlow code: 1024 pixels are cropped to 512
    and halved to 256. StyleGAN2-ADA in PyTorch takes the factor from the size before the crop and
    ends at 128, so its cropped variants give other values for R above 256; the variants without a
    crop are equal.

    Args:
        images: [N, C, H, W].
        crop: whether to crop.

    Raises:
        ValueError: if a side is below 8 and `crop` is set.
    """
    if crop:
        y, x = images.shape[2] // 8, images.shape[3] // 8
        if min(y, x) == 0:
            raise ValueError(
                f"a crop takes images of at least 8 pixels, got {min(images.shape[2:])}"
            )
        images = images[:, :, 3 * y : 7 * y, 2 * x : 6 * x]
    return downsample_box(images, factor=max(min(images.shape[2:]) // LARGEST_SIDE, 1))


def prepared_side(side: int, *, crop: bool) -> int:
    """Return the shorter side of the result of `prepare_for_distance` in pixels; may be 0."""
    side = 4 * (side // 8) if crop else side
    return side // max(side // LARGEST_SIDE, 1)


def filtered_mean(values: Tensor, *, lowest: int = 1, highest: int = 99) -> float:
    """Return the mean of the values between two percentiles, both included.

    Percentiles are computed by numpy's methods "lower" and "higher", as in the official code.

    Args:
        values: float [N].
        lowest: lower percentile, an integer from 0.
        highest: upper percentile, an integer to 100.

    Raises:
        ValueError: if there is no value, or the percentiles are not in ascending order.
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
    """Draw the paths of a complete chunk; return ws at t and t + epsilon, [size, num_ws, w_dim]."""
    device = next(generator.parameters()).device
    c = None if labels is None else labels.to(device)
    stream = generator_for("path latents", seed=seed, nimg=index * size)
    z0, z1 = torch.randn([2, size, generator.z_dim], generator=stream)
    positions = torch.rand([size], generator=stream, dtype=torch.float64)
    if protocol.sampling == "end":
        positions = torch.zeros_like(positions)
    moved = (positions, positions + protocol.epsilon)
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
    """Render the batch of a chunk that begins at a row; equal arguments give equal noise."""
    noise = generator_for("path noise", seed=seed, nimg=index * size + first)
    images: Tensor = generator.synthesis(
        ws[first : first + PAIRS_AT_ONCE], noise_mode="random", generator=noise
    )
    return images


@contextmanager
def _full_precision(generator: AbstractGenerator) -> Iterator[None]:
    """Make a generator compute in float32 within a `with` block."""
    before = generator.compute_dtype
    generator.compute_dtype = torch.float32
    try:
        yield
    finally:
        generator.compute_dtype = before
