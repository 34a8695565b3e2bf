"""Details that stick to pixel positions while the content moves.

Source: Karras et al. 2020 (StyleGAN2), section 4.1 and figure 6, for the effect; the score is our
own.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOTION_SIDE = 64  # pixels; motion is estimated at this size
SIGMA = 1.5  # std in pixels of this size of the Gaussian that separates content from detail
LEAST_MOTION = 0.75  # pixels between compared frames
MOST_MOTION = 4.0  # pixels of the reduced size; the estimate is limited to this
LEAST_FRACTION = 0.01  # minimum fraction of pixels that move
STEPS = (1, 2, 4, 8)  # distances of compared frames


@dataclass(frozen=True, kw_only=True)
class Sticking:
    """Whether details stick, over several paths.

    Attributes:
        score: mean over paths: 1 if details stay at their pixels, 0 if they move with the content;
            None if no path has enough motion.
        error: standard error of the mean; None for fewer than two paths.
        paths: score of each path; None for a path with too little motion.
    """

    score: float | None
    error: float | None
    paths: list[float | None]


def sticking(paths: Iterable[Tensor]) -> Sticking:
    """Score paths, each as for `stick_score`."""
    return mean_sticking([stick_score(frames) for frames in paths])


def mean_sticking(scores: list[float | None]) -> Sticking:
    """Average the scores of paths, except those with too little motion."""
    known = torch.tensor([score for score in scores if score is not None], dtype=torch.float64)
    error = (known.std() / math.sqrt(len(known))).item() if len(known) > 1 else None
    mean = known.mean().item() if len(known) > 0 else None
    return Sticking(score=mean, error=error, paths=scores)


def stick_score(frames: Tensor) -> float | None:
    """Compare the details of frames with earlier ones, at the same pixels and moved along.

    Content is the image after a Gaussian filter with a std of 1/42 of the shorter side (1.5 pixels
    at 64x64 and below); its motion is estimated by the Lucas-Kanade method. Detail is the rest.
    Where the content moves by 0.75 pixels or more between two frames, the score is `E_moved /
    (E_moved + E_stayed)`, of the squared differences to the earlier detail, moved with the content
    or at the same pixels.

    Args:
        frames: [T, C, H, W], float in any range, along a path through latent space, without
            noise, since stored noise maps are fixed to pixels.

    Returns:
        From 0 to 1; None if there is too little motion.
    """
    gray = frames.to("cpu", torch.float64).mean(dim=1, keepdim=True)
    # a power of two, which divides both sides of every network's images
    factor = 1 << max(min(gray.shape[2:]) // MOTION_SIDE, 1).bit_length() - 1
    sigma = SIGMA * factor
    content = _blurred(gray, sigma)
    detail = gray - content
    # motion is as smooth as the content, so a small image suffices
    small = F.avg_pool2d(content, factor)
    best: tuple[float, Tensor, Tensor, int] | None = None
    for step in STEPS:
        if step >= len(frames):
            break
        flow, trusted = _flow(small[:-step], small[step:], window=3 * SIGMA)
        length = flow.square().sum(dim=1, keepdim=True).sqrt()
        moves = trusted & (length * factor > LEAST_MOTION) & (length < MOST_MOTION)
        fraction = moves.double().mean().item()
        if best is None or fraction > best[0]:
            best = fraction, flow, moves.double(), step
        if fraction > 10 * LEAST_FRACTION:
            break
    if best is None or best[0] < LEAST_FRACTION:
        return None
    _, flow, weight, step = best
    if factor > 1:
        size = detail.shape[2:]
        flow = factor * F.interpolate(flow, size=size, mode="bilinear", align_corners=False)
        weight = F.interpolate(weight, size=size, mode="nearest")
    before, after = detail[:-step], detail[step:]
    stayed = (weight * (after - before).square()).sum().item()
    moved = (weight * (after - _warped(before, flow)).square()).sum().item()
    return moved / (moved + stayed) if moved + stayed > 0 else None


def row_over_time(frames: Tensor, *, row: int | None = None) -> tuple[Tensor, int]:
    """Stack one row of pixels of all frames; details that stick form vertical lines.

    Args:
        frames: uint8 [T, C, H, W].
        row: index of the row; None for the one in which frames differ most.

    Returns:
        uint8 [C, T, W], the first frame on top, and the row.
    """
    if row is None:
        change = (frames[1:].double() - frames[:-1].double()).abs().mean(dim=(0, 1, 3))
        row = int(change.argmax())
    return frames[:, :, row].permute(1, 0, 2).contiguous(), row


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Filter [N, C, H, W] with a Gaussian, with replicated borders."""
    radius = math.ceil(3 * sigma)
    axis = torch.arange(-radius, radius + 1, dtype=images.dtype)
    taps = torch.exp(-axis.square() / (2 * sigma**2))
    taps /= taps.sum()
    shape = images.shape
    x = images.reshape(-1, 1, *shape[2:])
    for dim in (2, 3):
        kernel = taps.view(1, 1, -1, 1) if dim == 2 else taps.view(1, 1, 1, -1)
        padding = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        x = F.conv2d(F.pad(x, padding, mode="replicate"), kernel)
    return x.reshape(shape)


def _flow(before: Tensor, after: Tensor, *, window: float) -> tuple[Tensor, Tensor]:
    """Estimate the motion of the content from one image to another.

    Source: Lucas and Kanade 1981, with three rounds of warping.

    Args:
        before: [N, 1, H, W].
        after: the same.
        window: std in pixels of the Gaussian window in which motion is assumed constant.

    Returns:
        Motion along x and y in pixels [N, 2, H, W], and where it explains the change [N, 1, H, W].
    """
    flow = torch.zeros(len(before), 2, *before.shape[2:], dtype=before.dtype)
    for _ in range(3):
        moved = _warped(before, flow)
        along_x, along_y = _gradient(moved)
        change = after - moved
        xx, xy, yy, xt, yt = (
            _blurred(each, window)
            for each in (
                along_x**2,
                along_x * along_y,
                along_y**2,
                along_x * change,
                along_y * change,
            )
        )
        # a small fraction of the mean gradient regularizes flat regions
        floor = 1e-3 * (xx + yy).mean(dim=(1, 2, 3), keepdim=True) + 1e-12
        xx, yy = xx + floor, yy + floor
        determinant = xx * yy - xy**2
        # after(p) = before(p - flow): the gradient points against the motion
        step_x = -(yy * xt - xy * yt) / determinant
        step_y = -(xx * yt - xy * xt) / determinant
        flow = (flow + torch.cat([step_x, step_y], dim=1)).clamp(-2 * MOST_MOTION, 2 * MOST_MOTION)
    left = _blurred((after - _warped(before, flow)).square(), window)
    at_first = _blurred((after - before).square(), window)
    trusted = (left < 0.25 * at_first) & (at_first > 1e-3 * at_first.mean())
    return flow, trusted


def _gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    along_y = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return along_x, along_y


def _warped(images: Tensor, flow: Tensor) -> Tensor:
    """Warp [N, 1, H, W] by a flow in pixels: the result at p is the image at p - flow(p)."""
    height, width = images.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=images.dtype),
        torch.arange(width, dtype=images.dtype),
        indexing="ij",
    )
    places = torch.stack(
        [
            (2 * (x - flow[:, 0]) + 1) / width - 1,
            (2 * (y - flow[:, 1]) + 1) / height - 1,
        ],
        dim=3,
    )
    return F.grid_sample(images, places, mode="bicubic", padding_mode="border", align_corners=False)
