"""Geometric transforms: matrices from parameters, and resampling without aliasing.

Source: Karras et al. 2020 (ADA), appendix B: reflection at the border, twofold supersampling with
an orthogonal wavelet filter, and bilinear interpolation.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.augmentation.wavelets import SYM6

_MARGIN = len(SYM6) // 4  # pixels that the filter reaches beyond the picture, on each side
_TILE = 32  # pixels of a block of the banded matrices


def inverse_geometry(values: Mapping[str, Tensor], *, height: int, width: int) -> Tensor:
    """Return the matrices from points of the result to points of the image, float64 [N, 3, 3].

    Coordinates are in pixels from the center of the image. The inverse of a product is the product
    of the inverses in the opposite order. Images that are not square are turned by 180 degrees, but
    not by 90, which would exchange their sides.

    Args:
        values: of `AugmentParameters`.
        height: of the images.
        width: of the images.
    """
    size = torch.tensor([width, height], dtype=torch.float64)
    num = len(next(iter(values.values())))
    matrix = torch.eye(3, dtype=torch.float64).expand(num, 3, 3)
    if "x_flip" in values:
        matrix = matrix @ _scaling(values["x_flip"], torch.ones_like(values["x_flip"]))
    if "quarter_turn" in values:
        turns = values["quarter_turn"]
        if height != width:
            turns = torch.where(turns % 2 == 0, turns, 0)
        matrix = matrix @ _rotation(turns * (math.pi / 2))
    if "integer_shift" in values:
        matrix = matrix @ _translation(-(values["integer_shift"] * size).round())
    if "scale" in values:
        matrix = matrix @ _scaling(1 / values["scale"], 1 / values["scale"])
    if "rotation" in values:
        matrix = matrix @ _rotation(values["rotation"])
    if "anisotropic_scale" in values:
        matrix = matrix @ _scaling(1 / values["anisotropic_scale"], values["anisotropic_scale"])
    if "second_rotation" in values:
        matrix = matrix @ _rotation(values["second_rotation"])
    if "fractional_shift" in values:
        matrix = matrix @ _translation(-values["fractional_shift"] * size)
    return matrix


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Transform images geometrically.

    Images whose matrix is the identity are returned as they are: there, the orthogonal filters
    undo each other. The result can be differentiated any number of times.

    Args:
        images: [N, C, H, W].
        matrices: of `inverse_geometry`, on the CPU.
    """
    is_moved = (matrices != torch.eye(3, dtype=matrices.dtype)).flatten(1).any(dim=1)
    if not is_moved.any():
        return images
    if is_moved.all():
        return _warp(images, matrices)
    rows = is_moved.nonzero()[:, 0]
    moved = _warp(images[rows.to(images.device)], matrices[rows])
    return images.index_copy(0, rows.to(images.device), moved)


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    height, width = images.shape[2:]
    left, top, right, bottom = _margins(matrices, height=height, width=width)
    padded = F.pad(images, [left, right, top, bottom], mode="reflect")
    shift = torch.tensor([[(left - right) / 2, (top - bottom) / 2]], dtype=matrices.dtype)
    matrices = _translation(shift) @ matrices

    upsampled = _upsample(_upsample(padded).transpose(2, 3)).transpose(2, 3)
    # Sample 2 i + r of the upsampled image is half a sample away from pixel i + r / 2.
    offset = torch.tensor([[-0.5, -0.5]], dtype=matrices.dtype)
    two = torch.tensor([[2.0]], dtype=matrices.dtype)
    matrices = _scaling(two, two) @ matrices @ _scaling(1 / two, 1 / two)
    matrices = _translation(offset) @ matrices @ _translation(-offset)

    out_height, out_width = 2 * (height + 2 * _MARGIN), 2 * (width + 2 * _MARGIN)
    in_height, in_width = upsampled.shape[2:]
    matrices = (
        _scaling(_number(2 / in_width), _number(2 / in_height))
        @ matrices
        @ _scaling(_number(out_width / 2), _number(out_height / 2))
    )
    theta = matrices[:, :2].to(device=images.device, dtype=images.dtype)
    size = [len(images), images.shape[1], out_height, out_width]
    sampled = grid_sample(upsampled, F.affine_grid(theta, size, align_corners=False))
    return _downsample(_downsample(sampled).transpose(2, 3)).transpose(2, 3)


def _margins(matrices: Tensor, *, height: int, width: int) -> tuple[int, int, int, int]:
    """Return how many pixels beyond each border of the images the results reach.

    At most a reflection, which is one pixel less than the image.

    Returns:
        left, top, right, bottom.
    """
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = [[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]]
    points = matrices @ torch.tensor(corners, dtype=matrices.dtype).T  # [N, 3, 4]
    low, high = points[:, :2].amin(dim=(0, 2)), points[:, :2].amax(dim=(0, 2))
    sides = torch.stack([-low[0] - x, -low[1] - y, high[0] - x, high[1] - y]) + 2 * _MARGIN
    limits = torch.tensor([width - 1, height - 1] * 2, dtype=matrices.dtype)
    left, top, right, bottom = sides.clamp(min=0).minimum(limits).ceil().int().tolist()
    return left, top, right, bottom


def _upsample(x: Tensor) -> Tensor:
    """Double the last axis: insert zeros and filter, with a gain of 2 and zeros outside."""
    length = x.shape[-1]
    num = min(length, _TILE)
    x = F.pad(x, [_MARGIN, _MARGIN])
    return _multiply_windows(x, _upsampling_matrix(num), num)[..., : 2 * length]


def _downsample(x: Tensor) -> Tensor:
    """Filter with the mirrored kernel, crop the margin, and keep every second sample."""
    length = x.shape[-1] // 2 - 2 * _MARGIN
    num = min(length, _TILE)
    return _multiply_windows(x[..., 1:-1], _downsampling_matrix(num), 2 * num)[..., :length]


@functools.cache
def _upsampling_matrix(num: int) -> Tensor:
    """Return the matrix from `num` samples, with `_MARGIN` more at each end, to `2 * num`."""
    i, t = torch.meshgrid(torch.arange(num), torch.arange(2 * _MARGIN), indexing="ij")
    taps = 2 * torch.tensor(SYM6).flip(0)
    matrix = torch.zeros(num + 2 * _MARGIN, 2 * num)
    matrix[i + t, 2 * i] = taps[2 * t]
    matrix[i + t + 1, 2 * i + 1] = taps[2 * t + 1]
    return matrix


@functools.cache
def _downsampling_matrix(num: int) -> Tensor:
    """Return the matrix from `2 * num` samples and those that the filter reaches to `num`."""
    i, k = torch.meshgrid(torch.arange(num), torch.arange(len(SYM6)), indexing="ij")
    matrix = torch.zeros(2 * num + len(SYM6) - 2, num)
    matrix[2 * i + k, i] = torch.tensor(SYM6)[k]
    return matrix


def _multiply_windows(x: Tensor, matrix: Tensor, step: int) -> Tensor:
    """Multiply overlapping windows of the last axis by a matrix, and concatenate the results.

    It is a product with a banded matrix, at the speed of dense products of its blocks.

    Args:
        x: [N, C, H, W]; zeros are added on the right to fill the last window.
        matrix: [window, num], a block of the banded matrix.
        step: samples from one window to the next.
    """
    window = len(matrix)
    num = max(math.ceil((x.shape[-1] - window) / step), 0) + 1
    x = F.pad(x, [0, (num - 1) * step + window - x.shape[-1]])
    starts = range(0, num * step, step)
    return torch.cat([x[..., start : start + window] @ matrix.to(x) for start in starts], dim=-1)


def grid_sample(images: Tensor, grid: Tensor) -> Tensor:
    """Sample images bilinearly, with zeros outside; differentiable any number of times.

    torch's own function cannot be differentiated twice. There is no gradient of the grid.

    Args:
        images: [N, C, H, W].
        grid: [N, H', W', 2] in [-1, 1], as of `torch.nn.functional.grid_sample`.
    """
    apply: Callable[..., Tensor] = _GridSample.apply
    return apply(images, grid)


class _GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = images.shape[2:]
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        apply: Callable[..., Tensor] = _GridSampleGradient.apply
        return apply(grad, grid, ctx.size), None


class _GridSampleGradient(torch.autograd.Function):
    """The gradient of sampling, which is linear, so that its own gradient is sampling again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        images = grad.new_empty([1]).expand(*grad.shape[:2], *size)  # only its size is read
        gradient: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            grad, images, grid, 0, 0, False, [True, False]
        )[0]
        return gradient

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return grid_sample(grad, grid), None, None


def _number(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    """Return matrices [N, 3, 3] from factors [N, 1]."""
    return torch.diag_embed(torch.cat([x, y, torch.ones_like(x)], dim=1))


def _translation(offset: Tensor) -> Tensor:
    """Return matrices [N, 3, 3] from offsets [N, 2]."""
    matrix = torch.eye(3, dtype=offset.dtype).repeat(len(offset), 1, 1)
    matrix[:, :2, 2] = offset
    return matrix


def _rotation(angle: Tensor) -> Tensor:
    """Return matrices [N, 3, 3] from angles [N, 1] in radians."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, torch.ones_like(angle)]
    return torch.cat(rows, dim=1).view(-1, 3, 3)
