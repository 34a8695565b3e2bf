"""The papers' figures: many pictures of one generator on one sheet, uint8 [C, H, W]."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan.images import grid
from stylegan.latent.layers import mix_layers
from stylegan.latent.render import map_latents, render
from stylegan.models.base import AbstractGenerator

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
    """Show one image for each z [N, z_dim], row by row, with constant noise."""
    ws = map_latents(generator, z, psi=psi, batch=batch)
    pictures = torch.stack(list(render(generator, ws, batch=batch)))
    return grid(pictures, columns=columns, padding=padding)


def truncation_sheet(
    generator: AbstractGenerator,
    z: Tensor,
    *,
    psis: Sequence[float] = TRUNCATION_PSIS,
    batch: int = 16,
) -> Tensor:
    """Show each z [N, z_dim] as a row, at the strengths of truncation `psis` as columns.

    All style inputs are truncated; noise is constant. At 0 all rows show the mean image, at
    negative strengths the opposite of what stands at positive ones.

    Source: Karras et al. 2019 (StyleGAN), figure 8.
    """
    by_psi = [map_latents(generator, z, psi=psi, batch=batch) for psi in psis]
    ws = torch.stack(by_psi, dim=1).flatten(0, 1)
    pictures = torch.stack(list(render(generator, ws, batch=batch)))
    return grid(pictures, columns=len(psis), padding=PADDING)


def mixing_sheet(
    generator: AbstractGenerator,
    destinations: Tensor,
    *,
    sources: Tensor,
    layers: Sequence[int],
    c: Tensor | None = None,
    psi: float = 1.0,
    batch: int = 16,
) -> Tensor:
    """Show destinations with some styles replaced by those of sources, with constant noise.

    The first column shows the destinations alone, the first row the sources alone; the picture
    where they meet has the `layers` of the source and all else of the destination.

    Source: Karras et al. 2019 (StyleGAN), figure 3.

    Args:
        generator: in eval mode.
        destinations: z [N, z_dim], a row each.
        sources: z [M, z_dim], a column each.
        layers: indices of the style inputs taken from the source.
        c: one label for all, [c_dim]; None where the generator takes none.
        psi: truncation of both.
        batch: how many at once on another device than the CPU.
    """
    row_ws = map_latents(generator, destinations, c=c, psi=psi, batch=batch)
    column_ws = map_latents(generator, sources, c=c, psi=psi, batch=batch)
    num_rows, num_columns = len(row_ws), len(column_ws)
    mixed = mix_layers(
        row_ws.repeat_interleave(num_columns, 0), column_ws.repeat(num_rows, 1, 1), layers
    )
    ws = torch.cat([column_ws, row_ws, mixed])
    pictures = torch.stack(list(render(generator, ws, batch=batch)))
    top, left, inner = pictures.split_with_sizes([num_columns, num_rows, num_rows * num_columns])
    corner = torch.full_like(top[:1], 255)
    rows = [corner, top]
    for row in range(num_rows):
        rows += [left[row : row + 1], inner[row * num_columns : (row + 1) * num_columns]]
    return grid(torch.cat(rows), columns=num_columns + 1, padding=PADDING)
