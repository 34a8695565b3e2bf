"""Which style inputs: by name, by number, and what it means to exchange them."""

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
    """Read style inputs: coarse, middle, fine, all, none, or numbers such as `"0-3,6"`.

    Several parts are joined by commas. The result is sorted, each index once.

    Args:
        text: what the user wrote.
        num_ws: the generator's number of style inputs.

    Raises:
        ConfigError: if a part is none of these, or has no style input in this generator.
    """
    layers: set[int] = set()
    for part in text.lower().split(","):
        name = part.strip()
        if name == "none":
            continue
        if name == "all":
            found = range(num_ws)
        elif name in RANGES:
            first, end = RANGES[name]
            found = range(first, num_ws if end is None else min(end, num_ws))
        elif match := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", name, re.ASCII):
            first = int(match[1])
            last = int(match[2] or first)
            found = range(first, last + 1) if last < num_ws else range(0)
        else:
            raise _error(text, num_ws, f"has a part that reads {name!r}")
        if len(found) == 0:
            raise _error(text, num_ws, f"asks for {name!r}, which this generator does not have")
        layers.update(found)
    return sorted(layers)


def mix_layers(destination: Tensor, source: Tensor, layers: Sequence[int]) -> Tensor:
    """Overwrite `layers` of `destination` with those of `source`, in a copy.

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
    """Make one latent of several: the first up to `crossovers[0]`, then the second, and so on.

    Source: Karras et al. 2019 (StyleGAN), table 2.

    Args:
        ws: [K, num_ws, w_dim].
        crossovers: K - 1 style inputs from which on the next latent gives the style, rising.

    Returns:
        [num_ws, w_dim].

    Raises:
        ValueError: if there are more or fewer, or they do not rise.
    """
    borders = [0, *crossovers, ws.shape[1]]
    if len(crossovers) != len(ws) - 1 or borders != sorted(borders):
        raise ValueError(
            f"{len(ws)} latents need {len(ws) - 1} rising crossovers, got {crossovers}"
        )
    parts = [ws[k, start:end] for k, (start, end) in enumerate(itertools.pairwise(borders))]
    return torch.cat(parts)


def _error(text: str, num_ws: int, problem: str) -> ConfigError:
    return ConfigError(
        f"layers {text!r} {problem}",
        expected=f"style inputs out of 0-{num_ws - 1}, or coarse, middle, fine, all, none",
        fix='write them like "coarse" or "0-3,6"',
    )
