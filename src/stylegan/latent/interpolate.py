"""Paths through z or w, of any trailing shape: z [z_dim] or ws [num_ws, w_dim].

The frame after the last one of a closed path would be the first, so a video of it can be repeated.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from stylegan.latents import lerp, slerp, truncate

Interpolation = Literal["spline", "linear", "spherical"]
Easing = Literal["none", "in-out", "in", "out"]


def ease(t: float, easing: Easing) -> float:
    """Map a fraction of the time, from 0 to 1, to a fraction of the path.

    Args:
        t: from 0 to 1.
        easing: "none" has constant speed; "in-out" starts and ends with speed 0, as half a cosine
            period; "in" starts and "out" ends with speed 0, as a quarter.
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
    """Interpolate through `keys` and back to the first, in `K * frames_per_key` frames.

    Frame `k * frames_per_key` equals `keys[k]` bit for bit.

    Args:
        keys: [K, ...].
        frames_per_key: steps from one key to the next.
        interpolation: "spline" is a Catmull-Rom spline, smooth at the keys; "linear" has corners
            there; "spherical" follows great circles and interpolates the lengths, for z.
        easing: between each key and the next.

    Returns:
        [K * frames_per_key, ...].

    Raises:
        ValueError: if there is no key, or less than one frame per key.
    """
    _check(keys, frames_per_key)
    neighbors = (keys.roll(1, 0), keys, keys.roll(-1, 0), keys.roll(-2, 0))
    return _between(neighbors, frames_per_key, interpolation, easing)


def walk_through(
    keys: Tensor,
    frames_per_key: int,
    *,
    interpolation: Interpolation = "spline",
    easing: Easing = "none",
) -> Tensor:
    """Interpolate from the first of `keys` to the last, in `(K - 1) * frames_per_key + 1` frames.

    As `loop_through`, but not closed: the last frame is the last key. A spline continues in a
    straight line beyond its ends.

    Raises:
        ValueError: if there is no key, or less than one frame per key.
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
    neighbors: tuple[Tensor, Tensor, Tensor, Tensor],
    frames_per_key: int,
    interpolation: Interpolation,
    easing: Easing,
) -> Tensor:
    """Interpolate from each second neighbor to the third, which is not included."""
    _, start, end, _ = neighbors
    frames = [start]
    for step in range(1, frames_per_key):
        t = ease(step / frames_per_key, easing)
        if interpolation == "spline":
            frames.append(_catmull_rom(*neighbors, t=t))
        elif interpolation == "linear":
            frames.append(lerp(start, end, t))
        else:
            length = lerp(start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True), t)
            frames.append(slerp(start, end, t) * length)
    return torch.stack(frames, dim=1).flatten(0, 1)


def smooth_loop(
    num_frames: int, dim: int, *, sigma_frames: float, generator: torch.Generator
) -> Tensor:
    """Return a closed random walk in z: noise, smoothed along time, of unit mean square.

    Source: Karras et al. 2018 (ProGAN), the official code's interpolation video: a Gaussian
    filter along time with wrapped ends, one second wide. Ours is not truncated at four sigma.

    Args:
        num_frames: length of the loop.
        dim: `z_dim`.
        sigma_frames: std of the filter, seconds of smoothing times frames per second.
        generator: a CPU generator, of `rng.generator_for`.

    Returns:
        float32 [num_frames, dim].
    """
    noise = torch.randn(num_frames, dim, generator=generator)
    # Circular convolution is a product of Fourier transforms, and the transform of a Gaussian is
    # a Gaussian.
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
    """Interpolate from `start` (t = 0) to `end` (t = 1) with slopes from the neighbors."""
    point: Tensor = (
        start
        + t * (end - before) / 2
        + t**2 * (before - 2.5 * start + 2 * end - 0.5 * after)
        + t**3 * (1.5 * (start - end) + 0.5 * (after - before))
    )
    return point
