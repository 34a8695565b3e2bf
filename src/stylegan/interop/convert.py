"""Conversion of weights of any kind to our format or those of other programs."""

import dataclasses
import logging
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
from stylegan.models import io, stylegan2
from stylegan.models.base import (
    AbstractDiscriminator,
    AbstractGenerator,
    Networks,
    num_parameters,
)
from stylegan.models.registry import family_of
from stylegan.models.sizes import block_resolutions, channels_at
from stylegan.pixel_format import PixelFormat
from stylegan.progress import Counter

logger = logging.getLogger(__name__)

Format = Literal["native", "nvidia", "rosinality"]
_SUMMARIZED_FIELDS = (
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
    """Description of a network for a table.

    Args:
        name: our name, such as "generator_ema".
        becomes: its name in the file that is written.
        family: such as "stylegan2".
        architecture: where RGB leaves or enters; for "growing" with the level of detail.
        images: size and channels of the images.
        widths: channels of the blocks by resolution.
        latents: width of z and w, and depth of the mapping network; empty for a discriminator.
        labels: width of the labels, 0 for none.
        others: further options that differ from the family's defaults.
        parameters: number of trainable parameters.
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
    """Result of `convert`.

    Args:
        kind: kind of the source, with its article.
        path: path of the source, in the cache if it was a URL.
        to: format that was written.
        out: file or folder that was written.
        networks: description of each network.
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
    """Convert all networks of a source.

    Args:
        source: as for `load.load_networks`.
        out: a folder for "native", else a file. It is written atomically.
        to: "native"; "nvidia", a file of state dicts that the official PyTorch classes load; or
            "rosinality". The two latter are for `torch.load(..., weights_only=True)`.
        progress: progress of a download.

    Raises:
        ValueError: if `to` is another format.
        WeightsError: if the source cannot be read, the format cannot hold its networks, or `out`
            exists and is not a native folder, or has the suffix of another format.
    """
    if to not in get_args(Format):
        raise ValueError(f"to must be one of {get_args(Format)}, got {to!r}")
    out = Path(out)
    if to != "native" and (out.exists() or out.is_symlink()):
        raise WeightsError(f"{out} exists", fix="choose another name, or remove it")
    if to == "native" and (out.is_file() or out.suffix.lower() in _FILE_SUFFIXES):
        kind_of_name = "is a file" if out.is_file() else f"has the suffix {out.suffix} of a file"
        raise WeightsError(
            f"{out} {kind_of_name}, but --to native writes a folder",
            fix="name a folder; or a file that ends in .pt, with --to nvidia or --to rosinality",
        )
    if to != "native" and out.suffix.lower() in _OTHER_SUFFIXES:
        raise WeightsError(
            f"{out} has the suffix {out.suffix} of another format, but --to {to} writes a "
            "torch.save file",
            fix=f"name it {out.with_suffix('.pt').name}",
        )
    path = local_path(source, progress=progress)
    kind = kind_of(path)
    networks = kind.load(path, None)
    if not list(networks.items()):
        raise WeightsError(f"{path} has no network")
    if to == "native":
        io.save(networks, out, metadata=_metadata(kind, path))
    else:
        content = _CONTENTS[to](_with_noise(networks))
        _warn_of_pixels(networks, to)
        write_atomic_by(out, lambda file: torch.save(content, file))
    return Conversion(
        kind=kind.name, path=path, to=to, out=out, networks=summarize(networks, to=to)
    )


def summarize(networks: Networks, *, to: Format = "native") -> tuple[Summary, ...]:
    """Return the description of each network, with its name in a format."""
    return tuple(
        _summary(name, network, _NAMES[to].get(name, name)) for name, network in networks.items()
    )


_OTHER_SUFFIXES = (".pkl", ".npz", ".zip", ".safetensors", ".json")
"""Suffixes of files that `torch.load` of the other programs does not take."""
_FILE_SUFFIXES = (*_OTHER_SUFFIXES, ".pt", ".pth", ".ckpt")
_CONTENTS: dict[str, Callable[[Networks], dict[str, object]]] = {
    "nvidia": nvidia.state_dicts_of,
    "rosinality": rosinality.tensors_of,
}
_NAMES: dict[str, dict[str, str]] = {
    "native": {},
    "nvidia": {ours: theirs for theirs, ours in nvidia.NETWORK_NAMES.items()},
    "rosinality": {ours: theirs for theirs, ours in rosinality.NETWORK_NAMES.items()},
}


def _warn_of_pixels(networks: Networks, to: Format) -> None:
    """Warn if a format does not record what the channels are, and a reader would assume others."""
    generator = networks.generator_ema or networks.generator
    if generator is None:
        return
    assumed = PixelFormat.of_channels(generator.img_channels)
    if generator.pixels != assumed:
        logger.warning(
            "--to %s does not record that images are %s; who reads the file takes them for %s",
            to,
            generator.pixels,
            assumed,
        )


def _with_noise(networks: Networks) -> Networks:
    """Return the networks with noise of strength 0 in StyleGAN2 generators that have none.

    Other programs have noise in every layer.
    """
    converted = dataclasses.replace(networks)
    for name, network in networks.items():
        if isinstance(network, stylegan2.Generator) and not network.config.noise:
            with torch.random.fork_rng(devices=[]):
                copy = stylegan2.Generator(dataclasses.replace(network.config, noise=True))
            copy.load_state_dict(network.state_dict(), strict=False)  # the strength is 0 at first
            setattr(converted, name, copy)
    return converted


def _metadata(kind: Kind, path: Path) -> dict[str, object]:
    """Return a native folder's metadata, or the origin of weights of another kind."""
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
        f"{field.name} {_format(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        if field.name not in _SUMMARIZED_FIELDS and getattr(config, field.name) != field.default
    ]
    return Summary(
        name=name,
        becomes=becomes,
        family=family_of(network),
        architecture=f"{shape}, lod {network.lod:g}" if network.is_growing else shape,
        images=f"{network.img_size}, {network.img_channels} channels{_pixels(network)}",
        widths=_widths({r: channels_at(config, r) for r in block_resolutions(network.img_size)}),
        latents=latents,
        labels=network.c_dim,
        others=", ".join(others),
        parameters=num_parameters(network),
    )


def _pixels(network: AbstractGenerator | AbstractDiscriminator) -> str:
    if isinstance(network, AbstractDiscriminator) or network.pixels.is_plain:
        return ""
    return f" ({network.pixels})"


def _format(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _widths(widths: dict[int, int]) -> str:
    """Format channels by resolution, with one entry for equal neighbors."""
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
