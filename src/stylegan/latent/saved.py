"""Latents in files, in the layout of the official projector, and lists of seeds and files."""

import io
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan.errors import ConfigError, DataError
from stylegan.files import write_atomic
from stylegan.latent.render import map_latents
from stylegan.latent.seeds import latents_from_seeds, parse_seeds
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps

SUFFIX = ".npz"
PROJECTION = "projected_w.npz"  # as the official projector calls it
MAX_BYTES = 2**30  # of the numbers in a file; those of a projection have a few megabytes
_NOISE = "noise."  # before a layer's name

Key = int | Path
"""A seed, or a file of saved latents."""


@dataclass(frozen=True, kw_only=True)
class SavedLatents:
    """What a file of latents holds.

    Attributes:
        ws: [N, num_ws, w_dim], float32, on the CPU.
        noise: noise of each layer by name, [r, r]; empty where the file has none.
    """

    ws: Tensor
    noise: dict[str, Tensor] = field(default_factory=dict)


def write_latents(
    path: str | os.PathLike[str], ws: Tensor, *, noise: Mapping[str, Tensor] | None = None
) -> None:
    """Write ws [N, num_ws, w_dim], and noise [r, r] of layers, whole or not at all.

    The official programs read the file, too: they take the array `w`, and no noise.

    Source: the official StyleGAN2-ADA code, `projected_w.npz`.
    """
    arrays = {"w": ws.detach().to("cpu", torch.float32).numpy()}
    for layer, values in (noise or {}).items():
        arrays[_NOISE + layer] = values.detach().to("cpu", torch.float32).numpy()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # of numpy's stub: names are no options
    write_atomic(path, buffer.getvalue())


def read_latents(path: str | os.PathLike[str], generator: AbstractGenerator) -> SavedLatents:
    """Read latents that fit a generator, of `write_latents` or of the official projector.

    Args:
        path: an `.npz` file with an array `w`, [N, num_ws, w_dim] or [num_ws, w_dim].
        generator: whose they should be.

    Raises:
        DataError: if the file is none, is too large, holds numbers that are not finite, or is of
            another generator.
    """
    arrays = _arrays(Path(path))
    if "w" not in arrays:
        raise _error(path, f"holds {', '.join(sorted(arrays))[:80] or 'nothing'}, and no w")
    w = arrays.pop("w")
    w = w[None] if w.ndim == 2 else w
    expected = (generator.num_ws, generator.w_dim)
    if w.ndim != 3 or len(w) == 0 or w.shape[1:] != expected:
        raise DataError(
            f"latents {path}: w is {list(w.shape)}",
            expected=f"[N, {expected[0]}, {expected[1]}], the styles of this network",
            fix="use the network that the latents were made with",
        )
    stored = noise_maps(generator)
    noise = {
        name.removeprefix(_NOISE): torch.from_numpy(values)
        for name, values in arrays.items()
        if name.startswith(_NOISE)
    }
    for layer, values in noise.items():
        if layer not in stored or stored[layer].shape != values.shape:
            raise DataError(
                f"latents {path}: noise {list(values.shape)} of layer {layer}",
                expected="the noise inputs of this network",
                fix="use the network that the latents were made with",
            )
    if not all(values.isfinite().all() for values in (torch.from_numpy(w), *noise.values())):
        raise _error(path, "holds NaN or infinity")
    return SavedLatents(ws=torch.from_numpy(w), noise=noise)


def parse_keys(text: str) -> list[Key]:
    """Read seeds and files of latents such as `"1-6,projected/cat.npz,9"`, in that order.

    Raises:
        ConfigError: if a part is neither.
    """
    keys: list[Key] = []
    for part in text.split(","):
        name = part.strip()
        if name.lower().endswith(SUFFIX):
            keys.append(Path(name))
        elif re.fullmatch(r"[\d\s-]+", name, re.ASCII):
            keys.extend(parse_seeds(name))
        else:
            raise ConfigError(
                f"{text!r} has a part that reads {name!r}",
                expected=f"seeds, ranges of them, and files of latents that end in {SUFFIX}",
                fix='write them like "0-5,projected/cat.npz"',
            )
    return keys


def name_of(path: Path) -> str:
    """Return what to call what is made of a file: its name, or its folder's for a projection."""
    is_projection = path.name == PROJECTION and path.parent.name not in ("", "..")
    return path.parent.name if is_projection else path.stem


def styles_of(
    generator: AbstractGenerator,
    keys: Sequence[Key],
    *,
    c: Tensor | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    batch: int = 16,
) -> Tensor:
    """Return ws [N, num_ws, w_dim] of seeds and files; a file gives as many as it holds.

    Args:
        generator: in eval mode.
        keys: seeds and files, as `parse_keys` reads them.
        c: one label for all seeds, [c_dim]; None where the generator takes none.
        psi: truncation of the seeds. Files are taken as they are.
        cutoff: truncate only so many style inputs, coarsest first; None means all.
        batch: how many at once on another device than the CPU.

    Raises:
        DataError: if a file cannot be read.
    """
    device = next(generator.parameters()).device
    saved = {key: read_latents(key, generator).ws for key in keys if isinstance(key, Path)}
    seeds = [key for key in keys if not isinstance(key, Path)]
    z = latents_from_seeds(seeds, generator.z_dim)
    mapped = iter(map_latents(generator, z, c=c, psi=psi, cutoff=cutoff, batch=batch))
    blocks = [
        saved[key].to(device) if isinstance(key, Path) else next(mapped)[None] for key in keys
    ]
    if not blocks:
        return torch.zeros(0, generator.num_ws, generator.w_dim, device=device)
    return torch.cat(blocks)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of numbers in an `.npz` file, as float32."""
    try:
        with zipfile.ZipFile(path) as archive:
            num_bytes = sum(member.file_size for member in archive.infolist())
        if num_bytes > MAX_BYTES:
            raise _error(path, f"holds {num_bytes / 2**30:.1f} GiB")
        with np.load(path) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise _error(path, "does not exist") from None
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise _error(path, f"cannot be read ({' '.join(str(error).split())[:80]})") from None
    for name, values in arrays.items():
        if values.dtype.kind not in "fiu":
            raise _error(path, f"holds {values.dtype} under {name}")
    with np.errstate(over="ignore"):  # to infinity, which is refused
        return {name: values.astype(np.float32) for name, values in arrays.items()}


def _error(path: str | os.PathLike[str], problem: str) -> DataError:
    return DataError(
        f"latents {path}: the file {problem}",
        expected=f"an {SUFFIX} file whose array w is [N, num_ws, w_dim]",
        fix="write one with `stylegan project`",
    )
