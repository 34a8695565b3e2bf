"""Files of latents in the layout of the official projector, and lists of seeds and files."""

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

from stylegan.errors import ConfigError, DataError, WeightsError
from stylegan.files import unique_name, write_atomic
from stylegan.interop.rosinality import projections_of
from stylegan.interop.torch_file import open_torch_file
from stylegan.latent.render import device_of, map_latents
from stylegan.latent.seeds import check_seed, latents_from_seeds, parse_seeds
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps

SUFFIX = ".npz"
SUFFIXES = (SUFFIX, ".npy", ".pt")
"""Files of latents: official projectors' and our own, a single array, and rosinality's."""
PROJECTION = "projected_w.npz"  # as the official projector calls it
MAX_BYTES = 2**30  # of the arrays in a file; a projection has a few megabytes
_NOISE = "noise."  # before a layer's name

Key = int | Path | Tensor
"""A seed; a file of saved latents; or w, as ws [N, num_ws, w_dim] or of a shape that `read_latents`
broadcasts."""

Keys = str | int | Path | Tensor | Sequence[str | Key]
"""One or several of them; text is read by `parse_keys`."""


@dataclass(frozen=True, kw_only=True)
class SavedLatents:
    """Latents of a file.

    Attributes:
        ws: [N, num_ws, w_dim], float32, on the CPU.
        noise: noise of each layer by name, [r, r]; empty if the file has none.
    """

    ws: Tensor
    noise: dict[str, Tensor] = field(default_factory=dict)


def write_latents(
    path: str | os.PathLike[str], ws: Tensor, *, noise: Mapping[str, Tensor] | None = None
) -> None:
    """Write ws [N, num_ws, w_dim] and noise maps [r, r] by layer as an `.npz` file, atomically.

    The official programs can read the file: they use the array `w` and ignore the noise.

    Source: the official StyleGAN2-ADA code, `projected_w.npz`.
    """
    arrays = {"w": ws.detach().to("cpu", torch.float32).numpy()}
    for layer, values in (noise or {}).items():
        arrays[_NOISE + layer] = values.detach().to("cpu", torch.float32).numpy()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
    write_atomic(path, buffer.getvalue())


def read_latents(
    path: str | os.PathLike[str], generator: AbstractGenerator | None = None
) -> SavedLatents:
    """Read latents of `write_latents`, of an official projector or of another program.

    Latents are [N, num_ws, w_dim] or [num_ws, w_dim]; with a generator also [N, w_dim] or [w_dim],
    which are used for all style inputs.

    Args:
        path: an `.npz` file with an array `w` or a single array; an `.npy` file; or a `.pt` file
            with a tensor, a dictionary with "latent", or one such dictionary for each image, as
            rosinality's projector writes them.
        generator: the network that the latents must fit; None checks nothing.

    Raises:
        DataError: if the file cannot be read, is larger than `MAX_BYTES`, holds NaN or infinity,
            or does not fit the generator.
    """
    path = Path(path)
    arrays = _arrays_of_pt(path, generator) if path.suffix.lower() == ".pt" else _arrays(path)
    noise = {
        name.removeprefix(_NOISE): torch.from_numpy(arrays.pop(name))
        for name in list(arrays)
        if name.startswith(_NOISE)
    }
    name = "w" if "w" in arrays else next(iter(arrays), None)
    if name is None or (name != "w" and (len(arrays) > 1 or name == "z")):
        raise _error(path, f"holds {', '.join(sorted(arrays))[:80] or 'nothing'}, and no w")
    w = torch.from_numpy(arrays[name])
    if generator is None:
        ws = w[None] if w.ndim == 2 else w
    else:
        ws = _fitted(path, w, noise, generator)
    if not all(values.isfinite().all() for values in (ws, *noise.values())):
        raise _error(path, "holds NaN or infinity")
    return SavedLatents(ws=ws, noise=noise)


def parse_keys(text: str) -> list[int | Path]:
    """Parse seeds and files of latents such as `"1-6,projected/cat.npz,9"`, in that order.

    Raises:
        ConfigError: if a part is neither.
    """
    keys: list[int | Path] = []
    for part in text.split(","):
        name = part.strip()
        if name.lower().endswith(SUFFIXES):
            keys.append(Path(name))
        elif re.fullmatch(r"[\d\s-]+", name, re.ASCII):
            keys.extend(parse_seeds(name))
        else:
            raise ConfigError(
                f"{name!r} in {text!r} is neither a seed, nor a range of seeds, nor a file of "
                f"latents that ends in {', '.join(SUFFIXES)}",
                fix='write them like "0-5,projected/cat.npz"',
            )
    return keys


def as_keys(keys: Keys) -> list[Key]:
    """Return a list of seeds, files and latents.

    Raises:
        ConfigError: if there is none, a text cannot be parsed, or a seed is out of range.
    """
    if isinstance(keys, Tensor):
        return [keys]
    if isinstance(keys, str | int | Path):
        keys = [keys]
    result: list[Key] = []
    for key in keys:
        result.extend(parse_keys(key) if isinstance(key, str) else [key])
    if not result:
        raise ConfigError("no seeds and no latents were given")
    for key in result:
        if isinstance(key, int):
            check_seed(key)
    return result


def latents_of(key: Path | Tensor, generator: AbstractGenerator) -> SavedLatents:
    """Return saved latents; arguments and errors as of `read_latents`.

    Raises:
        ConfigError: if a tensor does not fit the generator.
    """
    if isinstance(key, Path):
        return read_latents(key, generator)
    ws = _as_ws(key, generator)
    if ws is None:
        raise ConfigError(
            f"latents must be ws [N, {generator.num_ws}, {generator.w_dim}], got {list(key.shape)}"
        )
    return SavedLatents(ws=ws.detach().to("cpu", torch.float32))


def name_of(key: Key) -> str:
    """Return a name for what is made of a key.

    A seed gives "seed0001"; a file its name, or its folder's name if it is a projection.
    """
    if isinstance(key, int):
        return f"seed{key:04d}"
    if isinstance(key, Tensor):
        return "latent"
    is_projection = key.name == PROJECTION and key.parent.name not in ("", "..")
    return key.parent.name if is_projection else key.stem


def names_of(keys: Sequence[Key], generator: AbstractGenerator) -> list[str]:
    """Return a unique name for each row of `styles_of`.

    Raises:
        DataError: if a file cannot be read.
        ConfigError: if a tensor does not fit the generator.
    """
    taken: set[str] = set()
    return [
        unique_name(name_of(key), taken)
        for key in keys
        for _ in range(1 if isinstance(key, int) else len(latents_of(key, generator).ws))
    ]


def styles_of(
    generator: AbstractGenerator,
    keys: Sequence[Key],
    *,
    c: Tensor | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    batch: int = 16,
) -> Tensor:
    """Return ws [N, num_ws, w_dim] of all keys; a file or tensor gives as many as it holds.

    Args:
        generator: in eval mode.
        keys: seeds, files and tensors.
        c: one label for all seeds, [c_dim]; None for a generator without labels.
        psi: truncation of the seeds; saved latents are not truncated.
        cutoff: truncate only this many style inputs, coarsest first; None for all.
        batch: batch size on a GPU.

    Raises:
        DataError: if a file cannot be read.
        ConfigError: if a tensor does not fit the generator.
    """
    device = device_of(generator)
    seeds = [key for key in keys if isinstance(key, int)]
    saved = [latents_of(key, generator).ws.to(device) for key in keys if not isinstance(key, int)]
    z = latents_from_seeds(seeds, generator.z_dim)
    ws = map_latents(generator, z, c=c, psi=psi, cutoff=cutoff, batch=batch)
    mapped = iter(torch.split(ws, 1))
    others = iter(saved)
    blocks = [next(mapped if isinstance(key, int) else others) for key in keys]
    return torch.cat([ws[:0], *blocks])


def _fitted(
    path: str | os.PathLike[str],
    w: Tensor,
    noise: Mapping[str, Tensor],
    generator: AbstractGenerator,
) -> Tensor:
    """Return the latents of a file as ws [N, num_ws, w_dim]; DataError if anything does not fit."""
    ws = _as_ws(w, generator)
    if ws is None:
        raise DataError(
            f"latents {path}: w is {list(w.shape)}, but this network takes "
            f"[N, {generator.num_ws}, {generator.w_dim}]"
        )
    stored = noise_maps(generator)
    for layer, values in noise.items():
        if layer not in stored or stored[layer].shape != values.shape:
            raise DataError(
                f"latents {path}: this network has no noise {list(values.shape)} of layer {layer}"
            )
    return ws


def _as_ws(w: Tensor, generator: AbstractGenerator) -> Tensor | None:
    """Broadcast w to ws [N, num_ws, w_dim]; return None if its shape does not fit the generator.

    Of two axes, the first is the style inputs if it has their number, else the images.
    """
    num_ws, w_dim = generator.num_ws, generator.w_dim
    if w.numel() == 0 or w.ndim not in (1, 2, 3) or w.shape[-1] != w_dim:
        return None
    if w.ndim == 1 or (w.ndim == 2 and w.shape[0] != num_ws):  # one w for all style inputs
        w = w.reshape(-1, 1, w_dim)
    elif w.ndim == 2:
        w = w[None]
    if w.shape[1] not in (1, num_ws):
        return None
    return w.expand(-1, num_ws, -1).contiguous()


def _arrays_of_pt(path: Path, generator: AbstractGenerator | None) -> dict[str, np.ndarray]:
    """Return the latents of a `.pt` file as "w", and the noise maps if it is of one image."""
    try:
        with open_torch_file(path) as file:
            projections = projections_of(file)
    except WeightsError as error:
        raise _error(path, f"cannot be read ({error.message})") from None
    shapes = {latent.shape for latent, _ in projections}
    if len(shapes) != 1:
        raise _error(path, "holds latents of several shapes, or none")
    latents = [latent.float() for latent, _ in projections]
    arrays = {"w": (latents[0] if len(latents) == 1 else torch.stack(latents)).numpy()}
    if generator is not None and len(projections) == 1:
        for layer, values in zip(noise_maps(generator), projections[0][1], strict=False):
            arrays[_NOISE + layer] = values.float().reshape(values.shape[-2:]).numpy()
    return arrays


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the numeric arrays of an `.npz` or `.npy` file as float32."""
    try:
        if not zipfile.is_zipfile(path):
            if path.stat().st_size > MAX_BYTES:
                raise _error(path, f"holds {path.stat().st_size / 2**30:.1f} GiB")
            return _as_float32(path, {"w": np.lib.format.open_memmap(path, mode="r")})
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
    return _as_float32(path, arrays)


def _as_float32(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, values in arrays.items():
        if values.dtype.kind not in "fiu":
            raise _error(path, f"holds {values.dtype} under {name}")
    with np.errstate(over="ignore"):  # to infinity, which the caller refuses
        return {name: values.astype(np.float32) for name, values in arrays.items()}


def _error(path: str | os.PathLike[str], problem: str) -> DataError:
    return DataError(
        f"latents {path}: the file {problem}",
        expected=f"an {SUFFIX} file with an array w, [N, num_ws, w_dim]; an .npy or a .pt file",
        fix="write one with `stylegan project`",
    )
