"""From latents to pixels, such that a picture does not depend on those made beside it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stylegan.images import to_uint8
from stylegan.models.base import AbstractGenerator
from stylegan.nn.noise import NoiseMode
from stylegan.rng import generator_for


def map_latents(
    generator: AbstractGenerator,
    z: Tensor,
    *,
    c: Tensor | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    batch: int = 16,
) -> Tensor:
    """Map z [N, z_dim] to ws [N, num_ws, w_dim], on the generator's device.

    On the CPU one at a time: matrix products of several rows round otherwise than those of one.

    Args:
        generator: in eval mode.
        z: on any device.
        c: one label for all, [c_dim]; None where the generator takes none.
        psi: truncation; 1 for none.
        cutoff: truncate only so many style inputs, coarsest first; None means all.
        batch: how many at once on another device than the CPU.
    """
    device = _device_of(generator)
    step = 1 if device.type == "cpu" else batch
    with torch.no_grad():
        blocks = [
            generator.mapping(
                part.to(device),
                None if c is None else c.to(device).expand(len(part), -1),
                truncation_psi=psi,
                truncation_cutoff=cutoff,
            )
            for part in torch.split(z, step)
            if len(part) > 0
        ]
    if not blocks:
        return torch.zeros(0, generator.num_ws, generator.w_dim, device=device)
    return torch.cat(blocks)


def render(
    generator: AbstractGenerator,
    ws: Tensor,
    *,
    noise_mode: NoiseMode = "const",
    noise_keys: Sequence[int] | None = None,
    seed: int = 0,
    batch: int = 16,
) -> Iterator[Tensor]:
    """Make images one after the other, each uint8 [C, R, R] on the CPU.

    On the CPU images are rendered one at a time, so each has the same pixels in any company.
    So are they with random noise, which is drawn on the CPU from (`seed`, the image's key).

    Args:
        generator: in eval mode.
        ws: [N, num_ws, w_dim].
        noise_mode: "const" takes the stored noise, "random" draws it, "none" adds none.
        noise_keys: one number for each image, such as its seed; None counts them from 0.
        seed: decides random noise, together with the key.
        batch: how many at once on another device than the CPU.
    """
    device = _device_of(generator)
    keys = range(len(ws)) if noise_keys is None else noise_keys
    one_by_one = device.type == "cpu" or noise_mode == "random"
    step = 1 if one_by_one else batch
    for start in range(0, len(ws), step):
        noise = generator_for("noise", seed=seed, nimg=keys[start])
        # Not around the loop: what is set there would reach the caller at each yield.
        with torch.no_grad():
            images = generator.synthesis(
                ws[start : start + step].to(device), noise_mode=noise_mode, generator=noise
            )
        yield from to_uint8(images).cpu()


def _device_of(generator: AbstractGenerator) -> torch.device:
    return next(generator.parameters()).device
