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

from stylegan.image_size import ImageSize
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
        levels: distance at each level of the pyramid, by its shorter side (R, R/2, ..., 16). High
            resolutions are sensitive to sharpness and noise, low resolutions to large shapes.
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
        real: uint8 [N, C, H, W], of a size that `has_pyramid`. The paper has squares with a power
            of two as side. Levels end above a shorter side of 16, or where a side is odd.
        fake: the same shape. The paper compares 16,384 images.
        seed: seed of the positions of patches and of the directions.
        num_repeats: number of times that `directions` are drawn.
        directions: number of unit vectors in each repeat.
        patches_per_image: patches of each image at each level.

    Raises:
        ValueError: if the sets are not uint8, differ in shape, or have no image pyramid.
    """
    for name, images in (("real", real), ("fake", fake)):
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"{name} must be uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}"
            )
    if real.shape != fake.shape:
        raise ValueError(
            "real and fake must have the same count and size, "
            f"got {list(real.shape)} and {list(fake.shape)}"
        )
    num, _, height, width = real.shape
    if num == 0 or not has_pyramid(ImageSize(height, width)):
        raise ValueError(
            f"images must have sides of {LOWEST_LEVEL} pixels or more, got {list(real.shape)}"
        )
    distances: dict[int, float] = {}
    num_levels = _num_levels(ImageSize(height, width))
    for index in range(num_levels):
        size = ImageSize(height, width).reduced(1 << index)
        level = min(size.height, size.width)
        places = _draw_places(
            size, (num, patches_per_image), generator_for(f"swd places {level}", seed=seed)
        )
        real_patches, fake_patches = (
            standardize_patches(
                level_patches(images, index, is_last=index == num_levels - 1, places=places)
            )
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
    return SlicedWasserstein(
        levels=distances, average=sum(distances.values()) / len(distances), num_images=num
    )


def has_pyramid(size: ImageSize) -> bool:
    """Return whether images are large enough for the distance."""
    return min(size.height, size.width) >= LOWEST_LEVEL


def _num_levels(size: ImageSize) -> int:
    num = 1
    while size.height % 2 == size.width % 2 == 0 and has_pyramid(size.reduced(2)):
        size, num = size.reduced(2), num + 1
    return num


def _draw_places(size: ImageSize, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw top left corners (y, x) of patches, int64 [*shape, 2]."""
    if size.is_square:
        return torch.randint(size.height - PATCH_SIZE + 1, (*shape, 2), generator=generator)
    sides = (size.height, size.width)
    axes = [torch.randint(side - PATCH_SIZE + 1, shape, generator=generator) for side in sides]
    return torch.stack(axes, dim=-1)


def laplacian_level(images: Tensor, index: int, *, is_last: bool) -> Tensor:
    """Return a level of the Laplacian pyramid of images [N, C, H, W]; of the last, the low-pass.

    Level 0 has the size of the images, each further one half of it.

    Borders are reflected without repeating the edge, so constant images stay constant.

    Source: Burt and Adelson 1983, with the 5x5 binomial kernel.
    """
    for _ in range(index):
        images = _halve(images)
    return images if is_last else images - _double(_halve(images))


def level_patches(images: Tensor, index: int, *, is_last: bool, places: Tensor) -> Tensor:
    """Cut patches of one pyramid level, as float32 [N * P, C, 49].

    Args:
        images: uint8 [N, C, H, W].
        index: of the level, from 0.
        is_last: whether it is the last level.
        places: top left corners (y, x), int64 [N, P, 2], from 0 to the sides of the level - 7.
    """
    num, channels = images.shape[:2]
    per_image = places.shape[1]
    inside = torch.arange(PATCH_SIZE)
    width = images.shape[3] >> index
    offsets = (inside[:, None] * width + inside).flatten()  # [49]
    corners = places[..., 0] * width + places[..., 1]  # [N, P]
    patches = torch.empty(num, per_image, channels, PATCH_SIZE**2)
    step = min(max(BLOCK_PIXELS // images[0, 0].numel(), 1), BLOCK_IMAGES)
    for start in range(0, num, step):
        block = slice(start, start + step)
        pixels = laplacian_level(images[block].cpu().float(), index, is_last=is_last)
        pixels = pixels.flatten(2)  # [n, C, h * w]
        places_of_block = (corners[block, :, None] + offsets).flatten(1)  # [n, P * 49]
        taken = pixels.gather(2, places_of_block[:, None].expand(-1, channels, -1))
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
    """Low-pass images [N, C, h, w] and keep every second pixel."""
    return _binomial(images, gain=1.0)[:, :, ::2, ::2]


def _double(images: Tensor) -> Tensor:
    """Double the side of images [N, C, h, w]: zeros between the pixels, then low-pass."""
    num, channels, height, width = images.shape
    spread = images.new_zeros(num, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = images
    return _binomial(spread, gain=2.0)


def _binomial(images: Tensor, *, gain: float) -> Tensor:
    """Filter images [N, C, h, w] by rows and columns with `gain` times the kernel each."""
    channels = images.shape[1]
    taps = images.new_tensor(BINOMIAL) * (gain / sum(BINOMIAL))
    row = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    by_rows = F.conv2d(padded, row, groups=channels)
    return F.conv2d(by_rows, row.transpose(2, 3), groups=channels)
