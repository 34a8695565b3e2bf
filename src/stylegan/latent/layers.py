"""Style inputs by name or number, and mixing of latents by style input."""

import itertools
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan.errors import ConfigError

# Two style inputs for each resolution: 4x4 to 8x8, 16x16 to 32x32, 64x64 and above.
# Source: Karras et al. 2019 (StyleGAN), section 3.1.
RANGES = {"coarse": (0, 4), "middle": (4, 8), "fine": (8, None)}


def parse_layers(text: str, num_ws: int) -> list[int]:
    """Parse style inputs: coarse, middle, fine, all, none, or numbers such as `"0-3,6"`.

    Several of them are separated by commas. The result is sorted and without duplicates.

    Args:
        text: the layers.
        num_ws: the generator's number of style inputs.

    Raises:
        ConfigError: if a part is none of these, or this generator has no such style input.
    """
    layers: set[int] = set()
    for part in text.lower().split(","):
        name = part.strip()
        if name == "none":
            continue
        if name == "all":
            indices = range(num_ws)
        elif name in RANGES:
            first, end = RANGES[name]
            indices = range(first, num_ws if end is None else min(end, num_ws))
        elif match := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", name, re.ASCII):
            first = int(match[1])
            last = int(match[2] or first)
            indices = range(first, last + 1) if last < num_ws else range(0)
        else:
            raise _error(text, num_ws, f"contain {name!r}, which is neither a name nor a number")
        if len(indices) == 0:
            raise _error(text, num_ws, f"contain {name!r}, which this generator does not have")
        layers.update(indices)
    return sorted(layers)


def mix_layers(destination: Tensor, source: Tensor, layers: Sequence[int]) -> Tensor:
    """Return `destination` with `layers` replaced by those of `source`.

    Source: Karras et al. 2019 (StyleGAN), figure 3.

    Args:
        destination: ws [N, num_ws, w_dim].
        source: ws [N, num_ws, w_dim].
        layers: indices of style inputs. All of them give `source`, none `destination`.
    """
    mixed = destination.clone()
    indices = list(layers)
    mixed[:, indices] = source[:, indices]
    return mixed


def blend(ws: Tensor, crossovers: Sequence[int]) -> Tensor:
    """Combine latents: the first one up to `crossovers[0]`, then the second, and so on.

    Source: Karras et al. 2019 (StyleGAN), table 2.

    Args:
        ws: [K, num_ws, w_dim].
        crossovers: K - 1 ascending style inputs at which the next latent begins.

    Returns:
        [num_ws, w_dim].

    Raises:
        ValueError: if their number differs, or they are not ascending.
    """
    borders = [0, *crossovers, ws.shape[1]]
    if len(crossovers) != len(ws) - 1 or borders != sorted(borders):
        raise ValueError(
            f"{len(ws)} latents need {len(ws) - 1} ascending crossovers, got {crossovers}"
        )
    parts = [ws[k, start:end] for k, (start, end) in enumerate(itertools.pairwise(borders))]
    return torch.cat(parts)


def _error(text: str, num_ws: int, problem: str) -> ConfigError:
    return ConfigError(
        f"layers {text!r} {problem}",
        fix=f"choose from 0-{num_ws - 1}, coarse, middle, fine, all and none",
    )
