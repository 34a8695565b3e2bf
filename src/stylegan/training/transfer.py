"""Transfer learning: a new run starts from the weights of other networks."""

import dataclasses
import json
import logging
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan.errors import ConfigError
from stylegan.files import write_atomic
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator, Networks
from stylegan.models.growth import resolution_at
from stylegan.nn.modulated import ToRGB
from stylegan.pixel_format import channel_means
from stylegan.training.state import TrainState

logger = logging.getLogger(__name__)

Network = AbstractGenerator | AbstractDiscriminator
_FILE = "initial.json"
_MAX_NAMES = 4


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the tensors of a network.

    Attributes:
        num_tensors: parameters and buffers, such as noise maps.
        num_parameters: numbers in the parameters.
        names: the tensors; `synthesis.b32.*` stands for all of a module.
    """

    num_tensors: int
    num_parameters: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NetworkTransfer:
    """What a network has from the initial weights.

    Attributes:
        kept: tensors of the run's network that come from the source.
        new: tensors of the run's network that do not.
        dropped: tensors of the source that the run's network does not use.
    """

    kept: Part
    new: Part
    dropped: Part

    def __str__(self) -> str:
        """Return one line."""
        kept, num = self.kept, self.kept.num_parameters + self.new.num_parameters
        fraction = f"{kept.num_parameters:,} of {num:,} parameters"
        others = [
            f"{part.num_tensors} {kind}" + (f" ({_few(part.names)})" if part.names else "")
            for kind, part in (("new", self.new), ("dropped", self.dropped))
        ]
        return ", ".join([f"{kept.num_tensors} tensors kept ({fraction})", *others])


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What the networks of a run have from the initial weights.

    Attributes:
        networks: by name; those that have no counterpart in the source are missing.
        notes: sentences on what the first images are, and on tensors that were converted.
    """

    networks: Mapping[str, NetworkTransfer]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return a line for each network and note."""
        return "\n".join(
            [*(f"{name}: {each}" for name, each in self.networks.items()), *self.notes]
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, from which `from_json` makes an equal object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Transfer":
        """Make an object from what `to_json` returned."""
        networks = {
            name: NetworkTransfer(
                **{
                    kind: Part(**{**part, "names": tuple(part["names"])})
                    for kind, part in parts.items()
                }
            )
            for name, parts in data["networks"].items()
        }
        return cls(networks=networks, notes=tuple(data["notes"]))


def write_transfer(run_dir: Path, transfer: Transfer) -> None:
    """Write what a run has from its initial weights to its folder."""
    write_atomic(run_dir / _FILE, json.dumps(transfer.to_json(), indent=2) + "\n")


def read_transfer(run_dir: Path) -> Transfer | None:
    """Return what a run has from its initial weights; None if it has none, or before it starts."""
    path = run_dir / _FILE
    return Transfer.from_json(json.loads(path.read_text())) if path.exists() else None


def transfer_weights(state: TrainState, initial: Networks) -> Transfer:
    """Copy the tensors whose names and shapes agree into a new run, and log how many did.

    Layers that see the images or labels are converted if only the number of image channels or the
    width of the labels differs; see `_other_channels`. For skip generators of a larger resolution,
    the RGB layers of the new blocks start at zero.

    Args:
        state: of a run that has not started. Its networks are changed.
        initial: the networks to start from.

    Raises:
        ConfigError: if the source is of another family, none of its parameters fits one of the
            run's networks, or layers are frozen that it does not have.
    """
    average = initial.generator_ema or initial.generator
    sources: dict[str, Network | None] = {
        "generator": initial.generator or average,
        "generator_ema": average,
        "discriminator": initial.discriminator,
    }
    transfers: dict[str, NetworkTransfer] = {}
    before = state.pixels if average is None else average.pixels
    after = state.pixels
    gains_alpha = after.has_alpha and before.num_channels == 3
    keeps_colors = gains_alpha or (before.has_alpha and after.num_channels == 3)
    for name, network in state.networks.items():
        source = sources[name]
        if source is None:
            logger.warning("%s: not in the source, starts with random weights", name)
            continue
        if type(source) is not type(network):
            raise ConfigError(f"--init-from has a {name} of another family than this run")
        transfers[name] = _copy(name, network, source, keeps_colors=keeps_colors)
        logger.info("%s: %s", name, transfers[name])
    notes: list[_Note] = []
    if average is not None:
        notes += _conversions(state.generator_ema, average)
        notes += _start_at_old_images(state, average, transfers["generator_ema"].new)
        if gains_alpha:
            for generator in (state.generator, state.generator_ema):
                _start_opaque(generator)
    _check_frozen(state, transfers)
    for note in notes:
        logger.log(note.level, "%s", note.text)
    return Transfer(networks=transfers, notes=tuple(note.text for note in notes))


def _check_frozen(state: TrainState, transfers: Mapping[str, NetworkTransfer]) -> None:
    """Raise ConfigError if a parameter is frozen that has no initial weights."""
    networks: dict[str, Network] = {
        "generator": state.generator,
        "discriminator": state.discriminator,
    }
    for name, network in networks.items():
        new = transfers[name].new.names if name in transfers else ("*",)
        random = [
            key
            for key, parameter in network.named_parameters()
            if not parameter.requires_grad and any(fnmatchcase(key, pattern) for pattern in new)
        ]
        if random:
            raise ConfigError(
                f"frozen layers of the {name} would stay random: --init-from has no {_few(random)}",
                fix="leave out --freeze-d and --freeze-mapping, or choose other initial weights",
            )


@dataclass(frozen=True)
class _Note:
    """A sentence for the log, at a level of `logging`."""

    level: int
    text: str


def _copy(name: str, network: Network, source: Network, *, keeps_colors: bool) -> NetworkTransfer:
    """Copy a source's tensors into a network, as far as they fit.

    Args:
        name: of the network.
        network: is changed.
        source: where the tensors come from.
        keeps_colors: as of `_other_channels`.

    Raises:
        ConfigError: if no weight fits. Noise maps and scalars fit any network.
    """
    old, new = source.state_dict(), network.state_dict()
    kept = {}
    for key, value in old.items():
        if key not in new:
            continue
        converted = _converted(key, value, new[key], network, source, keeps_colors=keeps_colors)
        if new[key].shape == converted.shape:
            kept[key] = converted
    weights = {key for key, parameter in network.named_parameters() if parameter.ndim > 1}
    if weights.isdisjoint(kept):
        raise ConfigError(
            f"--init-from has no weight that fits the {name}",
            fix="choose weights of the same family, and leave out options that change the "
            "architecture",
        )
    network.load_state_dict(new | kept)
    return NetworkTransfer(
        kept=_part(network, kept),
        new=_part(network, new.keys() - kept.keys()),
        dropped=_part(source, old.keys() - kept.keys()),
    )


def _converted(
    key: str,
    value: Tensor,
    target: Tensor,
    network: Network,
    source: Network,
    *,
    keeps_colors: bool,
) -> Tensor:
    """Return a tensor of the source for the image channels and labels of a network.

    It is returned as it is if there is no such conversion.
    """
    layer = key.rpartition(".")[0].rpartition(".")[2]
    if layer in ("torgb", "fromrgb") and network.img_channels != source.img_channels:
        axis, num = 0 if layer == "torgb" else 1, network.img_channels
        return _other_channels(value, axis=axis, num=num, keeps_colors=keeps_colors)
    if (
        key == "mapping.fc0.weight"
        and isinstance(network, AbstractGenerator)
        and isinstance(source, AbstractGenerator)
        and network.z_dim == source.z_dim
        and 0 in (network.c_dim, source.c_dim)
        and target.shape[1] != value.shape[1]
    ):
        converted = value.new_zeros(len(value), target.shape[1])
        # The layer divides by the root of its width.
        scale = math.sqrt(target.shape[1] / value.shape[1])
        converted[:, : network.z_dim] = value[:, : network.z_dim] * scale
        return converted
    return value


def _conversions(generator: AbstractGenerator, source: AbstractGenerator) -> list[_Note]:
    """Return a note for each kind of conversion that `_converted` makes."""
    notes = []
    channels = source.img_channels, generator.img_channels
    if channels[0] != channels[1]:
        how = {(3, 1): "grey is the mean of RGB", (1, 3): "RGB repeats grey"}.get(
            channels, f"each of {channels[1]} channels is a mean of neighbors of {channels[0]}"
        )
        if generator.pixels.has_alpha and source.img_channels == 3:
            how = "colors are kept, and images are opaque"
        elif source.pixels.has_alpha and generator.img_channels == 3:
            how = "alpha is left out, so images are those on black"
        notes.append(_Note(logging.INFO, f"the RGB layers were converted: {how}"))
    if generator.c_dim != source.c_dim:
        text = (
            f"the initial weights have labels of {source.c_dim} numbers (c_dim), this run of "
            f"{generator.c_dim}: layers of labels are new or dropped"
        )
        notes.append(_Note(logging.WARNING, text))
    return notes


def _other_channels(value: Tensor, *, axis: int, num: int, keeps_colors: bool) -> Tensor:
    """Convert the weight or bias of an RGB layer to another number of channels.

    Each channel is the mean of neighbors, as of `channel_means`: grey is the mean of RGB, and RGB
    repeats grey. RGB and RGBA share their colors: a new alpha channel has the weight 0 (see
    `_start_opaque` for its bias), and that of a source is left out.

    Args:
        value: of a layer to RGB (axis 0) or from RGB (axis 1), or its bias.
        axis: of the image channels.
        num: of image channels.
        keeps_colors: whether RGB becomes RGBA, or RGBA becomes RGB.
    """
    if value.ndim <= axis:
        return value
    before = value.shape[axis]
    shape = list(value.shape)
    shape[axis] = num
    # A layer from RGB sums over the channels, and divides by the root of their number.
    if keeps_colors:
        scale = 1.0 if axis == 0 else math.sqrt(num / before)
        converted = value.new_zeros(shape)
        converted.narrow(axis, 0, 3).copy_(value.narrow(axis, 0, 3) * scale)
        return converted
    scale = 1.0 if axis == 0 else math.sqrt(before / num)
    if 1 in (before, num):
        return (value.mean(dim=axis, keepdim=True) * scale).expand(shape)
    weights = channel_means(before, num).to(value)
    means: Tensor = torch.tensordot(weights, value, dims=([1], [axis])).movedim(0, axis)
    return means * scale


def _start_opaque(generator: AbstractGenerator) -> None:
    """Set the biases of alpha, in place, so that images are opaque.

    RGB of a skip generator is a sum over its blocks, so only the last one gets the bias. In others
    each block makes whole images.
    """
    layers = [
        layer for name, layer in generator.named_modules() if name.rpartition(".")[2] == "torgb"
    ]
    is_sum = getattr(generator.config, "architecture", "growing") == "skip"
    for layer in layers[-1:] if is_sum else layers:
        bias = layer.get_parameter("bias")
        with torch.no_grad():
            bias[3] = 1.0


def _start_at_old_images(state: TrainState, source: AbstractGenerator, new: Part) -> list[_Note]:
    """Let the first images be those of the source, as far as the architecture allows it.

    Returns a note; none if the size is the same.

    Args:
        state: its generators are changed.
        source: the averaged generator to start from.
        new: what the run's averaged generator does not have from the source.
    """
    generator = state.generator_ema
    before = resolution_at(source.img_resolution, math.ceil(source.lod))
    after = generator.synthesis.current_resolution
    images = f"{source.img_size.at(before)} images of the initial weights"
    architecture = getattr(generator.config, "architecture", "growing")
    reason = "the RGB layer of this size is new"
    if after < before:
        reason = _REASONS.get(architecture, reason)
    elif source.img_size.at(before) == generator.img_size:
        return []
    elif not _keeps_images(generator, source, new):
        reason = "layers that both networks have are new, or their options differ"
    elif generator.is_growing and before == after:
        text = f"the first images are the {images}, pixels repeated up to {generator.img_size}"
        return [_Note(logging.INFO, text)]
    elif architecture == "skip":
        for network in (state.generator, state.generator_ema):
            _silence_new_blocks(network, above=before)
        text = f"the first images are the {images}, upsampled with the filter [1, 3, 3, 1]"
        return [_Note(logging.INFO, text)]
    return [_Note(logging.WARNING, f"the first images differ from the {images}: {reason}")]


_REASONS = {
    "skip": "RGB of the larger blocks is missing",
    "growing": "RGB of this size was last trained when the network had grown to it",
    "mipmap": "they are those of its image pyramid at this size",
}
"""Why images of a smaller size are not the old ones reduced, by architecture."""


_OF_IMAGES = ("resolution", "img_channels", "c_dim", "channel_base", "channel_max")
"""Options whose effect on a generator shows in the names and shapes of its tensors."""


def _keeps_images(generator: AbstractGenerator, source: AbstractGenerator, new: Part) -> bool:
    """Return whether only blocks above the source's resolution are new.

    Labels that are new have no effect at first if they are normalized separately.
    """
    options = [
        {k: v for k, v in dataclasses.asdict(each.config).items() if k not in _OF_IMAGES}
        for each in (generator, source)
    ]
    if options[0] != options[1]:
        return False
    allowed = [
        f"synthesis.b{resolution}."
        for resolution in generator.synthesis.resolutions
        if resolution > source.img_resolution
    ]
    if source.c_dim != generator.c_dim:
        is_separate = getattr(generator.config, "label_norm", "joint") == "separate"
        if source.c_dim > 0 or not is_separate:
            return False
        allowed.append("mapping.embed.")
    return all(name.startswith(tuple(allowed)) for name in new.names)


def _silence_new_blocks(generator: AbstractGenerator, *, above: int) -> None:
    """Set the RGB layers of the blocks above a resolution to zero, in place."""
    for resolution in generator.synthesis.resolutions:
        if resolution > above:
            layer = generator.get_submodule(f"synthesis.b{resolution}.torgb")
            assert isinstance(layer, ToRGB)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def _part(network: Network, keys: Collection[str]) -> Part:
    """Describe some of a network's tensors."""
    every = list(network.state_dict())
    parameters = dict(network.named_parameters())
    return Part(
        num_tensors=len(keys),
        num_parameters=sum(parameters[key].numel() for key in keys if key in parameters),
        names=tuple(_short_names([key for key in every if key in keys], every)),
    )


def _short_names(keys: Iterable[str], every: Collection[str]) -> list[str]:
    """Replace all tensors of a module by the module's name, at the highest level possible."""
    keys = list(keys)
    chosen = set(keys)
    short = []
    for key in keys:
        parts = key.split(".")
        for depth in range(1, len(parts)):
            prefix = ".".join(parts[:depth]) + "."
            if all(other in chosen for other in every if other.startswith(prefix)):
                short.append(f"{prefix}*")
                break
        else:
            short.append(key)
    return list(dict.fromkeys(short))


def _few(names: Collection[str]) -> str:
    rest = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(list(names)[:_MAX_NAMES]) + rest
