"""Grids of images as in the papers' figures, uint8 [C, H, W]."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan.captions import Captions
from stylegan.images import grid
from stylegan.latent.layers import blend, mix_layers
from stylegan.latent.render import map_latents, render
from stylegan.latents import truncate
from stylegan.models.base import AbstractGenerator
from stylegan.rng import generator_for

# Karras et al. 2019 (StyleGAN), figure 8.
TRUNCATION_PSIS = (1.0, 0.7, 0.5, 0.0, -0.5, -1.0)
PADDING = 2


def sample_grid(
    generator: AbstractGenerator,
    z: Tensor,
    *,
    columns: int,
    psi: float = 1.0,
    padding: int = 0,
    batch: int = 16,
) -> Tensor:
    """Draw one image for each z [N, z_dim], row by row, with the stored noise."""
    ws = map_latents(generator, z, psi=psi, batch=batch)
    return _grid(generator, ws, columns, batch, padding=padding)


def truncation_grid(
    generator: AbstractGenerator,
    ws: Tensor,
    *,
    psis: Sequence[float] = TRUNCATION_PSIS,
    cutoff: int | None = None,
    names: Sequence[str] = (),
    scale: int | None = None,
    batch: int = 16,
) -> Tensor:
    """Draw a row for each ws [N, num_ws, w_dim], and a column for each psi, with the stored noise.

    At 0 all rows show the mean image, at negative psi the opposite of positive psi.

    Source: Karras et al. 2019 (StyleGAN), figure 8.

    Args:
        generator: in eval mode, with a mapping network.
        ws: untruncated.
        psis: values of truncation.
        cutoff: truncate only this many style inputs, coarsest first; None for all.
        names: of the rows, for captions; empty for no captions.
        scale: as of `images.grid`.
        batch: batch size on a GPU.
    """
    assert generator.w_avg is not None
    by_psi = [truncate(ws, generator.w_avg, psi, cutoff) for psi in psis]
    captions = Captions(rows=names, columns=[f"psi {psi:g}" for psi in psis]) if names else None
    rows = torch.stack(by_psi, dim=1).flatten(0, 1)
    return _grid(generator, rows, len(psis), batch, captions=captions, scale=scale)


def mixing_grid(
    generator: AbstractGenerator,
    destinations: Tensor,
    *,
    sources: Tensor,
    layers: Sequence[int],
    captions: Captions | None = None,
    scale: int | None = None,
    batch: int = 16,
) -> Tensor:
    """Draw destinations with some styles replaced by those of sources, with the stored noise.

    The first column shows the destinations, the first row the sources. The image where they meet
    has the `layers` of the source, and the others of the destination.

    Source: Karras et al. 2019 (StyleGAN), figure 3.

    Args:
        generator: in eval mode.
        destinations: ws [N, num_ws, w_dim], a row each.
        sources: ws [M, num_ws, w_dim], a column each.
        layers: indices of the style inputs taken from the source.
        captions: as of `mixing_captions`; None for none.
        scale: as of `images.grid`.
        batch: batch size on a GPU.
    """
    num_rows, num_columns = len(destinations), len(sources)
    mixed = mix_layers(
        destinations.repeat_interleave(num_columns, 0), sources.repeat(num_rows, 1, 1), layers
    )
    ws = torch.cat([sources, destinations, mixed])
    images = torch.stack(list(render(generator, ws, batch=batch)))
    top, left, inner = images.split_with_sizes([num_columns, num_rows, num_rows * num_columns])
    corner = torch.full_like(top[:1], 255)
    rows = [corner, top]
    for row in range(num_rows):
        rows += [left[row : row + 1], inner[row * num_columns : (row + 1) * num_columns]]
    return grid(
        torch.cat(rows), columns=num_columns + 1, padding=PADDING, captions=captions, scale=scale
    )


def mixing_captions(
    destinations: Sequence[str], *, sources: Sequence[str], layers: str
) -> Captions:
    """Return captions of a mixing grid: names of both kinds, the layers above the corner."""
    return Captions(rows=["", *destinations], columns=[layers, *sources])


def blend_grid(
    generator: AbstractGenerator,
    ws: Tensor,
    *,
    num_latents: int,
    num_images: int,
    columns: int,
    crossovers: Sequence[int] | None = None,
    names: Sequence[str] = (),
    scale: int | None = None,
    seed: int = 0,
    batch: int = 16,
) -> Tensor:
    """Draw images that each combine the styles of several latents, with the stored noise.

    The latents, their order and the crossovers are drawn at random for each image.

    Source: Karras et al. 2019 (StyleGAN), table 2: up to four latents at test time.

    Args:
        generator: in eval mode.
        ws: [K, num_ws, w_dim], to choose from.
        num_latents: latents of each image, at most K and `num_ws`.
        num_images: number of images.
        columns: of the grid.
        crossovers: style inputs at which the next latent begins, for all images; None draws them.
        names: of the latents, for captions; empty for no captions.
        scale: as of `images.grid`.
        seed: of the random choices.
        batch: batch size on a GPU.
    """
    rows, texts = [], []
    for index in range(num_images):
        stream = generator_for("blend", seed=seed, nimg=index)
        chosen = torch.randperm(len(ws), generator=stream)[:num_latents]
        places = crossovers
        if places is None:
            drawn = torch.randperm(generator.num_ws - 1, generator=stream)[: num_latents - 1]
            places = sorted(1 + place for place in drawn.tolist())
        rows.append(blend(ws[chosen.to(ws.device)], places))
        texts += ["+".join(names[place] for place in chosen.tolist())] if names else []
    captions = Captions(tiles=texts) if names else None
    return _grid(generator, torch.stack(rows), columns, batch, captions=captions, scale=scale)


def _grid(
    generator: AbstractGenerator,
    ws: Tensor,
    columns: int,
    batch: int,
    *,
    padding: int = PADDING,
    captions: Captions | None = None,
    scale: int | None = None,
) -> Tensor:
    images = torch.stack(list(render(generator, ws, batch=batch)))
    return grid(images, columns=columns, padding=padding, captions=captions, scale=scale)
