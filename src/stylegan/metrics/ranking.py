"""Images sorted by path length; those with short paths tend to look better."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan import images
from stylegan.captions import Captions
from stylegan.files import write_atomic
from stylegan.metrics.path_length import first_image
from stylegan.metrics.protocols import PathLengthProtocol
from stylegan.metrics.sources import CHUNK
from stylegan.metrics.suite import Result
from stylegan.metrics.targets import NetworkTarget

SHOWN = 24
COLUMNS = 8


def save_ranking(
    folder: Path,
    result: Result,
    protocol: PathLengthProtocol,
    target: NetworkTarget,
    *,
    captions: bool = True,
) -> list[Path]:
    """Write the values of all pairs, and grids of the images with the least and the greatest.

    METRIC.npz has `values` in the order in which pairs were drawn, and `order`, which sorts them.
    The grids METRIC-shortest.png and METRIC-longest.png begin with the extreme values.

    Returns:
        The files.
    """
    values = result.per_image
    assert values is not None
    name = result.record["metric"].replace(":", "-")
    buffer = io.BytesIO()
    np.savez(buffer, values=values.numpy(), order=values.argsort(stable=True).numpy())
    paths = [folder / f"{name}.npz"]
    write_atomic(paths[0], buffer.getvalue())
    for which, grid in ranking_grids(result, protocol, target, captions=captions).items():
        paths.append(folder / f"{name}-{which}.png")
        images.write_grid(grid, paths[-1])
    return paths


def ranking_grids(
    result: Result, protocol: PathLengthProtocol, target: NetworkTarget, *, captions: bool = True
) -> dict[str, Tensor]:
    """Draw the images with the shortest and with the longest paths.

    They are uint8 [C, H, W].

    Source: Karras et al. 2020 (StyleGAN2), section 3 and figure 4.
    """
    values = result.per_image
    assert values is not None
    order = values.argsort(stable=True)
    source = target.source(protocol.num_fake)
    grids = {}
    for which, places in (("shortest", order[:SHOWN]), ("longest", order.flip(0)[:SHOWN])):
        shown = []
        for place in places.tolist():
            index, row = divmod(place, CHUNK)
            image = first_image(
                source.generator,
                protocol,
                seed=target.seed,
                index=index,
                size=CHUNK,
                row=row,
                labels=source.draw(index).c,
            )
            shown.append(source.generator.pixels.shown(image))
        texts = Captions(tiles=[f"{value:.4g}" for value in values[places].tolist()])
        grids[which] = images.grid(
            torch.stack(shown), columns=COLUMNS, padding=2, captions=texts if captions else None
        )
    return grids
