"""Closed paths through z or w. Each works on any trailing shape: z [z_dim] or ws [num_ws, w_dim].

The frame after the last one would be the first, so that a video of the path plays for ever
without a jump.
"""

from typing import Literal

import torch
from torch import Tensor

from stylegan.latents import lerp, slerp

Interpolation = Literal["spline", "linear", "spherical"]


def loop_through(
    keys: Tensor, frames_per_key: int, *, interpolation: Interpolation = "spline"
) -> Tensor:
    """Walk through `keys` and back to the first, in `K * frames_per_key` frames.

    Frame `k * frames_per_key` is `keys[k]`, bit for bit.

    Args:
        keys: [K, ...].
        frames_per_key: steps from one key to the next.
        interpolation: "spline" has no corners at the keys (Catmull-Rom, a cubic through each
            key in the direction of its neighbours); "linear" has; "spherical" follows great
            circles while the length goes from that of one key to that of the next, which suits z.

    Returns:
        [K * frames_per_key, ...].

    Raises:
        ValueError: if there is no key, or less than one frame for each.
    """
    if len(keys) == 0 or frames_per_key < 1:
        raise ValueError(
            f"a loop needs keys and frames, got {len(keys)} keys and {frames_per_key} frames each"
        )
    ahead = keys.roll(-1, 0)
    steps = (keys.roll(1, 0), keys, ahead, keys.roll(-2, 0))
    frames = [keys]
    for step in range(1, frames_per_key):
        t = step / frames_per_key
        if interpolation == "spline":
            frames.append(_catmull_rom(*steps, t=t))
        elif interpolation == "linear":
            frames.append(lerp(keys, ahead, t))
        else:
            length = lerp(keys.norm(dim=-1, keepdim=True), ahead.norm(dim=-1, keepdim=True), t)
            frames.append(slerp(keys, ahead, t) * length)
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


def _catmull_rom(before: Tensor, start: Tensor, end: Tensor, after: Tensor, *, t: float) -> Tensor:
    """Interpolate from `start` (t = 0) to `end` (t = 1) with slopes from the neighbours."""
    point: Tensor = (
        start
        + t * (end - before) / 2
        + t**2 * (before - 2.5 * start + 2 * end - 0.5 * after)
        + t**3 * (1.5 * (start - end) + 0.5 * (after - before))
    )
    return point
