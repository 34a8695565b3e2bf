"""Paths through z or w. Each works on any trailing shape: z [z_dim] or ws [num_ws, w_dim].

The frame after the last one of a closed path would be the first, so that a video of it plays for
ever without a jump.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from stylegan.latents import lerp, slerp, truncate

Interpolation = Literal["spline", "linear", "spherical"]
Easing = Literal["none", "in-out", "in", "out"]


def ease(t: float, easing: Easing) -> float:
    """Map a share of the time, from 0 to 1, to a share of the way.

    Args:
        t: from 0 to 1.
        easing: "none" goes evenly; "in-out" starts and ends at rest, as half a cosine; "in"
            starts at rest, "out" ends at rest, as a quarter.
    """
    if easing == "in-out":
        return 0.5 - 0.5 * math.cos(math.pi * t)
    if easing == "in":
        return 1 - math.cos(0.5 * math.pi * t)
    if easing == "out":
        return math.sin(0.5 * math.pi * t)
    return t


def loop_through(
    keys: Tensor,
    frames_per_key: int,
    *,
    interpolation: Interpolation = "spline",
    easing: Easing = "none",
) -> Tensor:
    """Walk through `keys` and back to the first, in `K * frames_per_key` frames.

    Frame `k * frames_per_key` is `keys[k]`, bit for bit.

    Args:
        keys: [K, ...].
        frames_per_key: steps from one key to the next.
        interpolation: "spline" has no corners at the keys (Catmull-Rom, a cubic through each
            key in the direction of its neighbours); "linear" has; "spherical" follows great
            circles while the length goes from that of one key to that of the next, which suits z.
        easing: of the way from each key to the next.

    Returns:
        [K * frames_per_key, ...].

    Raises:
        ValueError: if there is no key, or less than one frame for each.
    """
    _check(keys, frames_per_key)
    neighbours = (keys.roll(1, 0), keys, keys.roll(-1, 0), keys.roll(-2, 0))
    return _between(neighbours, frames_per_key, interpolation, easing)


def walk_through(
    keys: Tensor,
    frames_per_key: int,
    *,
    interpolation: Interpolation = "spline",
    easing: Easing = "none",
) -> Tensor:
    """Walk from the first of `keys` to the last, in `(K - 1) * frames_per_key + 1` frames.

    As `loop_through`, but the last frame is the last key, and nothing leads back. At its ends a
    spline is as straight as its neighbours allow.

    Raises:
        ValueError: if there is no key, or less than one frame for each.
    """
    _check(keys, frames_per_key)
    if len(keys) == 1:
        return keys.clone()
    before = torch.cat([2 * keys[:1] - keys[1:2], keys[:-2]])
    after = torch.cat([keys[2:], 2 * keys[-1:] - keys[-2:-1]])
    frames = _between((before, keys[:-1], keys[1:], after), frames_per_key, interpolation, easing)
    return torch.cat([frames, keys[-1:]])


def _check(keys: Tensor, frames_per_key: int) -> None:
    if len(keys) == 0 or frames_per_key < 1:
        raise ValueError(
            f"a path needs keys and frames, got {len(keys)} keys and {frames_per_key} frames each"
        )


def _between(
    neighbours: tuple[Tensor, Tensor, Tensor, Tensor],
    frames_per_key: int,
    interpolation: Interpolation,
    easing: Easing,
) -> Tensor:
    """Go from each second neighbour towards the third, without arriving there."""
    _, start, end, _ = neighbours
    frames = [start]
    for step in range(1, frames_per_key):
        t = ease(step / frames_per_key, easing)
        if interpolation == "spline":
            frames.append(_catmull_rom(*neighbours, t=t))
        elif interpolation == "linear":
            frames.append(lerp(start, end, t))
        else:
            length = lerp(start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True), t)
            frames.append(slerp(start, end, t) * length)
    return torch.stack(frames, dim=1).flatten(0, 1)


def smooth_loop(
    num_frames: int, dim: int, *, sigma_frames: float, generator: torch.Generator
) -> Tensor:
    """Wander through z without keys: noise, smoothed along time, of unit mean square.

    Source: Karras et al. 2018 (ProGAN), the official code's interpolation video: a Gaussian
    filter along time with wrapped ends, one second wide. Ours is not cut off at four sigma.

    Args:
        num_frames: length of the loop.
        dim: `z_dim`.
        sigma_frames: deviation of the filter: seconds of smoothing times frames per second.
        generator: a CPU generator, of `rng.generator_for`.

    Returns:
        float32 [num_frames, dim].
    """
    noise = torch.randn(num_frames, dim, generator=generator)
    # Filtering with wrapped ends is a product of Fourier transforms, and a Gaussian's
    # transform is a Gaussian.
    frequency = torch.fft.rfftfreq(num_frames, dtype=torch.float64)
    response = torch.exp(-2 * (torch.pi * frequency * sigma_frames).square())
    spectrum = torch.fft.rfft(noise.double(), dim=0) * response[:, None]
    smooth: Tensor = torch.fft.irfft(spectrum, n=num_frames, dim=0)
    return (smooth / smooth.square().mean().sqrt()).float()


def sweep_truncation(
    ws: Tensor,
    w_avg: Tensor,
    *,
    psi: float,
    psi_to: float,
    cutoff: int | None = None,
    loop: bool = True,
    easing: Easing = "none",
) -> Tensor:
    """Truncate each frame of a path differently, from `psi` to `psi_to`.

    Args:
        ws: the path, untruncated, [frames, num_ws, w_dim].
        w_avg: the mean of w, [w_dim].
        psi: of the first frame.
        psi_to: of the last frame; in a loop of the middle one, after which psi returns.
        cutoff: truncate only this many style inputs, coarsest first; None for all.
        loop: whether the path is closed. The change is then slow at its turning points.
        easing: of a path that is not closed.
    """
    num = len(ws)
    frames = []
    for index in range(num):
        t = ease(2 * index / num, "in-out") if loop else ease(index / max(1, num - 1), easing)
        frames.append(truncate(ws[index : index + 1], w_avg, psi + (psi_to - psi) * t, cutoff))
    return torch.cat(frames)


def _catmull_rom(before: Tensor, start: Tensor, end: Tensor, after: Tensor, *, t: float) -> Tensor:
    """Interpolate from `start` (t = 0) to `end` (t = 1) with slopes from the neighbours."""
    point: Tensor = (
        start
        + t * (end - before) / 2
        + t**2 * (before - 2.5 * start + 2 * end - 0.5 * after)
        + t**3 * (1.5 * (start - end) + 0.5 * (after - before))
    )
    return point
