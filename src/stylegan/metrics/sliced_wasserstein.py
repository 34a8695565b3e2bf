"""Sliced Wasserstein distance between the local structure of two sets of images.

It needs no pretrained network, and hence no download.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylegan.rng import generator_for

PATCH_SIZE = 7
LOWEST_LEVEL = 16
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
BLOCK_IMAGES = 64
BLOCK_PIXELS = 1 << 22  # blocks of images above 256x256 are smaller: four images at 1024x1024


@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein:
    """The distance at each level of the image pyramid, times 1e3; 0 for equal patches.

    Args:
        levels: distance at each resolution (R, R/2, ..., 16). High resolutions are sensitive to
            sharpness and noise, low resolutions to large shapes.
        average: mean over `levels`.
        num_images: images in each set. Distances are only comparable at equal counts, since two
            finite samples of one distribution are never at distance zero.
    """

    levels: Mapping[int, float]
    average: float
    num_images: int


def sliced_wasserstein_distance(
    real: Tensor,
    fake: Tensor,
    *,
    seed: int,
    num_repeats: int = 4,
    directions: int = 128,
    patches_per_image: int = 128,
) -> SlicedWasserstein:
    """Compare two sets of images by the 7x7 patches of their Laplacian pyramids.

    Patches of both sets are taken at the same positions, so equal sets are at distance zero. Images
    are filtered in small blocks. The patches of one level stay in memory:
    `N * patches_per_image * 49 * C * 4` bytes for each set.

    Source: Karras et al. 2018 (ProGAN), section 5.

    Args:
        real: uint8 [N, C, R, R], R a power of two of at least 16.
        fake: the same shape. The paper compares 16,384 images.
        seed: seed of the positions of patches and of the directions.
        num_repeats: number of times that `directions` are drawn.
        directions: number of unit vectors in each repeat.
        patches_per_image: patches of each image at each level.

    Raises:
        ValueError: if the sets are not uint8, differ in shape, or are not squares with a power of
            two of at least 16 as side.
    """
    for name, images in (("real", real), ("fake", fake)):
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"{name} must be uint8 [N, C, R, R], got {images.dtype} {list(images.shape)}"
            )
    if real.shape != fake.shape:
        raise ValueError(
            "real and fake must have the same count and size, "
            f"got {list(real.shape)} and {list(fake.shape)}"
        )
    num, _, height, width = real.shape
    if num == 0 or height != width or height < LOWEST_LEVEL or height & (height - 1):
        raise ValueError(
            f"images must be square, with a power of two from {LOWEST_LEVEL} as their side, "
            f"got {list(real.shape)}"
        )
    distances: dict[int, float] = {}
    level = height
    while level >= LOWEST_LEVEL:
        places = torch.randint(
            level - PATCH_SIZE + 1,
            (num, patches_per_image, 2),
            generator=generator_for(f"swd places {level}", seed=seed),
        )
        real_patches, fake_patches = (
            standardize_patches(level_patches(images, level, places=places))
            for images in (real, fake)
        )
        repeats = [
            mean_sorted_difference(
                real_patches,
                fake_patches,
                directions=unit_directions(
                    directions,
                    real_patches.shape[1],
                    generator=generator_for(f"swd directions {level} {repeat}", seed=seed),
                ),
            )
            for repeat in range(num_repeats)
        ]
        distances[level] = 1e3 * sum(repeats) / num_repeats
        level //= 2
    return SlicedWasserstein(
        levels=distances, average=sum(distances.values()) / len(distances), num_images=num
    )


def laplacian_level(images: Tensor, level: int) -> Tensor:
    """Return a level of the Laplacian pyramid of images [N, C, R, R]; at 16, the low-pass.

    Borders are reflected without repeating the edge, so constant images stay constant.

    Source: Burt and Adelson 1983, with the 5x5 binomial kernel.
    """
    while images.shape[-1] > level:
        images = _halve(images)
    return images if level == LOWEST_LEVEL else images - _double(_halve(images))


def level_patches(images: Tensor, level: int, *, places: Tensor) -> Tensor:
    """Cut patches of one pyramid level, as float32 [N * P, C, 49].

    Args:
        images: uint8 [N, C, R, R].
        level: the side of the pyramid level.
        places: top left corners (y, x), int64 [N, P, 2], from 0 to level - 7.
    """
    num, channels = images.shape[:2]
    per_image = places.shape[1]
    inside = torch.arange(PATCH_SIZE)
    offsets = (inside[:, None] * level + inside).flatten()  # [49]
    corners = places[..., 0] * level + places[..., 1]  # [N, P]
    patches = torch.empty(num, per_image, channels, PATCH_SIZE**2)
    step = min(max(BLOCK_PIXELS // images[0, 0].numel(), 1), BLOCK_IMAGES)
    for start in range(0, num, step):
        block = slice(start, start + step)
        pixels = laplacian_level(images[block].cpu().float(), level).flatten(2)  # [n, C, r * r]
        index = (corners[block, :, None] + offsets).flatten(1)  # [n, P * 49]
        taken = pixels.gather(2, index[:, None].expand(-1, channels, -1))
        patches[block] = taken.view(-1, channels, per_image, PATCH_SIZE**2).transpose(1, 2)
    return patches.flatten(0, 1)


def standardize_patches(patches: Tensor) -> Tensor:
    """Standardize each channel of patches [M, C, 49] to mean 0 and std 1; return [M, C * 49].

    The statistics are those of the whole set. A constant channel becomes zero. `patches` is
    overwritten, since a second copy would double the peak of memory.
    """
    for channel in range(patches.shape[1]):
        values = patches[:, channel]
        values -= values.mean(dtype=torch.float64).float()
        # The accumulation over millions of values needs float64.
        std = values.double().square().mean().sqrt().float()
        values /= std.clamp(min=torch.finfo(torch.float32).tiny)
    return patches.flatten(1)


def unit_directions(num: int, dim: int, *, generator: torch.Generator) -> Tensor:
    """Draw vectors uniformly on the unit sphere, float32 [num, dim]."""
    vectors = torch.randn(num, dim, generator=generator)
    return F.normalize(vectors, dim=1)


def mean_sorted_difference(a: Tensor, b: Tensor, *, directions: Tensor) -> float:
    """Return the mean Wasserstein-1 distance of projections of two point sets of equal size.

    In one dimension the optimal transport pairs the points in sorted order.

    Args:
        a: points, float32 [M, dim].
        b: points, float32 [M, dim].
        directions: unit vectors, float32 [D, dim].
    """
    # numpy sorts float32 several times faster than torch, which also computes the indices.
    total = 0.0
    for start in range(0, len(directions), 16):
        chunk = directions[start : start + 16]
        a_sorted, b_sorted = (_sorted_rows(chunk @ points.T) for points in (a, b))
        total += float(np.abs(a_sorted - b_sorted).mean(axis=1, dtype=np.float64).sum())
    return total / len(directions)


def _sorted_rows(values: Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = values.numpy()
    rows.sort(axis=1)
    return rows


def _halve(images: Tensor) -> Tensor:
    """Low-pass images [N, C, r, r] and keep every second pixel."""
    return _binomial(images, gain=1.0)[:, :, ::2, ::2]


def _double(images: Tensor) -> Tensor:
    """Double the side of images [N, C, r, r]: zeros between the pixels, then low-pass."""
    num, channels, height, width = images.shape
    spread = images.new_zeros(num, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = images
    return _binomial(spread, gain=2.0)


def _binomial(images: Tensor, *, gain: float) -> Tensor:
    """Filter images [N, C, r, r] by rows and columns with `gain` times the kernel each."""
    channels = images.shape[1]
    taps = images.new_tensor(BINOMIAL) * (gain / sum(BINOMIAL))
    row = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    by_rows = F.conv2d(padded, row, groups=channels)
    return F.conv2d(by_rows, row.transpose(2, 3), groups=channels)
