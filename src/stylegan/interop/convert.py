"""From a source of any kind to a folder or file that other programs read."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from stylegan.errors import WeightsError
from stylegan.files import write_atomic_by
from stylegan.interop import nvidia, rosinality
from stylegan.interop.load import Kind, kind_of, local_path
from stylegan.models import io
from stylegan.models.base import (
    AbstractDiscriminator,
    AbstractGenerator,
    Networks,
    num_parameters,
)
from stylegan.models.registry import family_of
from stylegan.models.sizes import channels_at, resolutions_up_to
from stylegan.progress import Counter

Format = Literal["native", "nvidia", "rosinality"]
_SHOWN_FIELDS = (
    "resolution",
    "img_channels",
    "z_dim",
    "w_dim",
    "c_dim",
    "mapping_layers",
    "architecture",
    "channel_base",
    "channel_max",
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a network is, in words for a table.

    Args:
        name: ours, such as "generator_ema".
        becomes: its name in the file that is written.
        family: such as "stylegan2".
        architecture: where RGB leaves or enters; "growing" with the level of detail.
        images: their size and channels.
        widths: channels of the blocks, by resolution.
        latents: width of z and w, and depth of the mapping network; empty for a discriminator.
        labels: their number, 0 for none.
        others: options that are not as in the family's default.
        parameters: how many numbers are trained.
    """

    name: str
    becomes: str
    family: str
    architecture: str
    images: str
    widths: str
    latents: str
    labels: int
    others: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What `convert` found and wrote.

    Args:
        kind: of the source, with its article.
        path: of the source here, in the cache if it was a URL.
        to: the format that was written.
        out: what was written.
        networks: what each network is.
    """

    kind: str
    path: Path
    to: Format
    out: Path
    networks: tuple[Summary, ...]


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: Format = "native",
    progress: Counter | None = None,
) -> Conversion:
    """Convert weights, all networks that the source has.

    Args:
        source: as for `load.load_networks`.
        out: a folder for "native", else a file; whole or not at all.
        to: "native"; "nvidia", a file of state dicts that the official PyTorch classes load; or
            "rosinality". The two latter are for `torch.load(..., weights_only=True)`.
        progress: told of each piece of a download.

    Raises:
        ValueError: if `to` is another format.
        WeightsError: if the source cannot be read, its networks cannot be said in the format, or
            `out` is there: a file, or a folder that is not a native one.
    """
    if to not in get_args(Format):
        raise ValueError(f"to must be one of {get_args(Format)}, got {to!r}")
    out = Path(out)
    if to != "native" and (out.exists() or out.is_symlink()):
        raise WeightsError(
            f"{out} exists", expected="a new file", fix="choose another name, or remove it"
        )
    if to == "native" and out.is_file():
        raise WeightsError(
            f"{out} is a file", expected="a new or native folder", fix="choose another name"
        )
    path = local_path(source, progress=progress)
    kind = kind_of(path)
    networks = kind.load(path, None)
    if not list(networks.items()):
        raise WeightsError(
            f"{path} has no network", expected="one at least", fix="pass another source"
        )
    if to == "native":
        io.save(networks, out, metadata=_metadata(kind, path))
    else:
        content = _CONTENTS[to](networks)
        write_atomic_by(out, lambda file: torch.save(content, file))
    return Conversion(
        kind=kind.name, path=path, to=to, out=out, networks=summarize(networks, to=to)
    )


def summarize(networks: Networks, *, to: Format = "native") -> tuple[Summary, ...]:
    """Say of each network what it is, and what it is called in a format."""
    return tuple(
        _summary(name, network, _NAMES[to].get(name, name)) for name, network in networks.items()
    )


_CONTENTS: dict[str, Callable[[Networks], dict[str, object]]] = {
    "nvidia": nvidia.state_dicts_of,
    "rosinality": rosinality.tensors_of,
}
_NAMES: dict[str, dict[str, str]] = {
    "native": {},
    "nvidia": {ours: theirs for theirs, ours in nvidia.OURS.items()},
    "rosinality": {ours: theirs for theirs, ours in rosinality.OURS.items()},
}


def _metadata(kind: Kind, path: Path) -> dict[str, object]:
    """Keep a native folder's own metadata; else say where the weights came from."""
    if io.is_native(path):
        return io.read_metadata(path)
    return {"converted_from": {"name": path.name, "kind": kind.name}}


def _summary(
    name: str, network: AbstractGenerator | AbstractDiscriminator, becomes: str
) -> Summary:
    config = network.config
    latents = ""
    if isinstance(network, AbstractGenerator):
        depth = getattr(config, "mapping_layers", 0)
        latents = f"z {network.z_dim}, w {network.w_dim}, {depth} mapping layers"
    shape = getattr(config, "architecture", "growing" if network.is_growing else "")
    others = [
        f"{field.name} {_shown(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        if field.name not in _SHOWN_FIELDS and getattr(config, field.name) != field.default
    ]
    side = network.img_resolution
    return Summary(
        name=name,
        becomes=becomes,
        family=family_of(network),
        architecture=f"{shape}, lod {network.lod:g}" if network.is_growing else shape,
        images=f"{side}x{side}, {network.img_channels} channels",
        widths=_widths({r: channels_at(config, r) for r in resolutions_up_to(side)}),
        latents=latents,
        labels=network.c_dim,
        others=", ".join(others),
        parameters=num_parameters(network),
    )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _widths(widths: dict[int, int]) -> str:
    """Say how many channels each resolution has, equal ones together."""
    spans: list[tuple[int, int, int]] = []
    for resolution, width in widths.items():
        if spans and spans[-1][2] == width:
            spans[-1] = (spans[-1][0], resolution, width)
        else:
            spans.append((resolution, resolution, width))
    return ", ".join(
        f"{width} at {first}" if first == last else f"{width} at {first} to {last}"
        for first, last, width in spans
    )
