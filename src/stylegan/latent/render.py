"""From latents to pixels. On the CPU an image does not depend on the others of its batch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

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
    """Map z [N, z_dim] to ws [N, num_ws, w_dim] on the generator's device, without gradients.

    On the CPU one latent is mapped at a time, because a matrix product of several rows rounds
    differently from that of one.

    Args:
        generator: in eval mode.
        z: on any device.
        c: one label for all, [c_dim]; None for a generator without labels.
        psi: truncation; 1 for none.
        cutoff: truncate only this many style inputs, coarsest first; None for all.
        batch: batch size on a GPU.
    """
    batch = 1 if device_of(generator).type == "cpu" else batch
    return torch.cat(list(map_batches(generator, z, c=c, psi=psi, cutoff=cutoff, batch=batch)))


def map_batches(
    generator: AbstractGenerator,
    z: Tensor,
    *,
    c: Tensor | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    batch: int,
) -> Iterator[Tensor]:
    """Yield ws of `batch` latents at a time, on every device; arguments as of `map_latents`.

    Without latents one empty batch is yielded.
    """
    device = device_of(generator)
    if len(z) == 0:
        yield torch.zeros(0, generator.num_ws, generator.w_dim, device=device)
        return
    for rows in torch.split(z, batch):
        # Not around the loop: the setting would reach the caller at each yield.
        with torch.no_grad():
            label = None if c is None else c.to(device).expand(len(rows), -1)
            ws: Tensor = generator.mapping(
                rows.to(device), label, truncation_psi=psi, truncation_cutoff=cutoff
            )
        yield ws


def render(
    generator: AbstractGenerator,
    ws: Tensor,
    *,
    noise_mode: NoiseMode = "const",
    noise_keys: Sequence[int] | None = None,
    seed: int = 0,
    batch: int = 16,
) -> Iterator[Tensor]:
    """Yield the images of ws as pictures: uint8 [C, R, R] on the CPU, C 1, 3 or 4 (RGBA).

    Images of other channels are shown as RGB, as of `PixelFormat.shown`. Arguments as of
    `synthesize_each`.
    """
    each = synthesize_each(
        generator, ws, noise_mode=noise_mode, noise_keys=noise_keys, seed=seed, batch=batch
    )
    for image in each:
        yield generator.pixels.shown(image).cpu()


def synthesize_each(
    generator: AbstractGenerator,
    ws: Tensor,
    *,
    noise_mode: NoiseMode = "const",
    noise_keys: Sequence[int] | None = None,
    seed: int = 0,
    batch: int = 16,
) -> Iterator[Tensor]:
    """Yield the images of ws one after the other, each float [C, R, R], nominally in [-1, 1].

    On the CPU, and with random noise on every device, images are computed one at a time.
    Random noise is drawn on the CPU and depends only on `seed` and the image's key.

    Args:
        generator: in eval mode.
        ws: [N, num_ws, w_dim].
        noise_mode: "const" uses the stored noise, "random" draws it, "none" adds none.
        noise_keys: one number for each image, such as its seed; None counts from 0.
        seed: seed of random noise, together with the key.
        batch: batch size on a GPU.
    """
    device = device_of(generator)
    keys = range(len(ws)) if noise_keys is None else noise_keys
    is_single = device.type == "cpu" or noise_mode == "random"
    step = 1 if is_single else batch
    for start in range(0, len(ws), step):
        noise = generator_for("noise", seed=seed, nimg=keys[start])
        # Not around the loop: the setting would reach the caller at each yield.
        with torch.no_grad():
            images = generator.synthesis(
                ws[start : start + step].to(device), noise_mode=noise_mode, generator=noise
            )
        yield from images


def device_of(generator: AbstractGenerator) -> torch.device:
    """Return the device of a generator's parameters."""
    return next(generator.parameters()).device
