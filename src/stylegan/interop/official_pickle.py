"""The official PyTorch pickles (ADA, and StyleGAN2 networks of the StyleGAN3 era).

Only tensors, settings and names are taken. The source text inside is never looked at, no class
is imported, and a file that names anything outside the list in spec 14.3 is refused.

Source: the file layout of Karras et al. 2020 (ADA) and 2021 (StyleGAN3), as observed.
"""

import io
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.errors import ConfigError, WeightsError
from stylegan.interop.arrays import array_calls
from stylegan.interop.restricted import (
    BoundedFile,
    Budget,
    Machine,
    Name,
    Record,
    instance_of,
    shown,
)
from stylegan.models.base import Networks
from stylegan.models.io import fill
from stylegan.models.stylegan2 import (
    Architecture,
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

KEYS = ("G", "D", "G_ema")
_MAGIC = 0x1950A86A20F9469CFC6C  # torch.save, the form before zip archives
_PROTOCOL = 1001
_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ByteStorage": torch.uint8,
}
_MAX_DEPTH = 8  # of modules in modules; the official networks reach 4
_MAX_NAME = 64  # characters of one part of a dotted name
_MAX_DIMENSIONS = 8
_PARTS = ("_parameters", "_buffers", "_modules")
_OWN_STATE = {*_PARTS, "_init_args", "_init_kwargs"}


@dataclass(frozen=True, kw_only=True)
class OfficialModule:
    """One network of an official pickle, as data.

    Args:
        class_name: such as "Generator".
        init_args: positional arguments it was made with.
        init_kwargs: keyword arguments it was made with.
        attributes: plain values of it and its children, under dotted names such as
            "b4.mbstd.group_size".
        state_dict: parameters and buffers under their official names.
    """

    class_name: str
    init_args: tuple[object, ...]
    init_kwargs: Mapping[str, object]
    attributes: Mapping[str, object] = field(repr=False)
    state_dict: Mapping[str, Tensor] = field(repr=False)


def read_official_pickle(path: str | os.PathLike[str]) -> dict[str, OfficialModule]:
    """Read the networks of an official PyTorch pickle without running anything from it.

    Returns:
        Those of "G", "D" and "G_ema" that the file has.

    Raises:
        WeightsError: if the file is missing, damaged, of another kind, names anything but
            tensors and settings, or declares more data than it holds.
    """
    path = Path(path)
    try:
        with BoundedFile(path) as stream:
            magic = stream.peek(2)[:2]
            if len(magic) < 2 or magic[0] != 0x80 or magic[1] > 5:
                found = "a zip archive" if magic == b"PK" else "no pickle"
                raise _refusal(f"{path} is {found}", "an official PyTorch pickle")
            reader = _Reader(str(path), stream.num_bytes)
            root = Machine(str(path), reader.calls).run(stream)
            return reader.modules(root)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror})",
            expected="an official PyTorch pickle",
            fix="check the path",
        ) from error


def load_official_pickle(path: str | os.PathLike[str]) -> Networks:
    """Build our networks from an official PyTorch pickle.

    Sizes and architecture are read off the tensors' shapes, and must agree with the arguments
    that the file records. Every tensor is used. The clamp of float16 activations that some files
    record (`conv_clamp`) is left out: in float32 it is never reached.

    Raises:
        WeightsError: as `read_official_pickle`; or if a network is not StyleGAN2, contradicts
            itself, or has tensors missing or left over.
    """
    modules = read_official_pickle(path)
    networks = Networks()
    for key, module in modules.items():
        origin = f"{path} ({key})"
        tensors = _without_filters(module.state_dict, origin)
        try:
            if key == "D":
                build_d = partial(Discriminator, _discriminator_config(module, origin))
                networks.discriminator = fill(build_d, tensors, origin=origin)
                continue
            build_g = partial(Generator, _generator_config(module, origin))
        except ConfigError as error:
            raise _refusal(f"{origin} has {error.found}", error.expected) from error
        generator = fill(build_g, tensors, origin=origin)
        setattr(networks, "generator" if key == "G" else "generator_ema", generator)
    return networks


# ---- From the file to modules as data


@dataclass(frozen=True, eq=False)
class _Node:
    """A module as it stands in the file."""

    class_name: str
    state: dict[object, object]

    def part(self, name: str) -> dict[str, object]:
        """Return a dictionary of its state, such as `_parameters`, with keys checked."""
        part = instance_of(self.state.get(name, {}), dict)
        if any(not isinstance(key, str) or len(key) > _MAX_NAME for key in part):
            raise TypeError("a name that is too long, or none")
        return dict(part)


@dataclass(frozen=True)
class _Storage:
    """What the header of a storage declares."""

    dtype: torch.dtype
    key: str
    numel: int


class _Reader:
    """What stands in for each allowed name, within one file's budget."""

    def __init__(self, origin: str, num_bytes: int) -> None:
        self.origin = origin
        self.num_bytes = num_bytes
        self.budget = Budget(num_bytes, origin)
        self.calls: dict[str, Callable[..., object]] = {
            "torch_utils.persistence._reconstruct_persistent_obj": self._node,
            "dnnlib.util.EasyDict": self._dictionary,
            "collections.OrderedDict": self._dictionary,
            "builtins.set": self._set,
            "torch.Size": lambda size: instance_of(size, tuple),
            "torch.device": lambda kind, index=0: instance_of(kind, str),
            "torch.storage._load_from_bytes": self._storage,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: instance_of(data, Tensor),
            **array_calls(self.budget),
        }
        self.storage_calls = dict.fromkeys(_STORAGES, self._no_call)

    def modules(self, root: object) -> dict[str, OfficialModule]:
        """Turn the file's top-level dictionary into modules."""
        if not isinstance(root, dict) or not any(isinstance(root.get(k), _Node) for k in KEYS):
            raise _refusal(
                f"{self.origin} holds no network under G, D or G_ema",
                "a dictionary with official networks",
            )
        result = {}
        for key in KEYS:
            node = root.get(key)
            if node is None:
                continue
            try:
                result[key] = self._module(instance_of(node, _Node))
            except TypeError as error:
                raise _refusal(f"{self.origin} ({key}) holds {error}", "a network") from error
        return result

    def _module(self, root: _Node) -> OfficialModule:
        budget = Budget(self.num_bytes, self.origin)  # for each: G may be G_ema, stored once
        attributes: dict[str, object] = {}
        tensors: dict[str, Tensor] = {}
        seen: set[int] = set()

        def visit(node: _Node, prefix: str, depth: int) -> None:
            # What stands in two places could stand in 2**depth.
            parts = [
                id(node),
                id(node.state),
                *(id(node.state[p]) for p in _PARTS if p in node.state),
            ]
            if depth > _MAX_DEPTH or not seen.isdisjoint(parts):
                raise _refusal(
                    f"{self.origin} has module {shown(prefix)} twice or too deep", "a tree"
                )
            seen.update(parts)
            for name, value in (node.part("_parameters") | node.part("_buffers")).items():
                if value is not None:
                    tensor = instance_of(value, Tensor)
                    budget.charge(tensor.nbytes)
                    tensors[prefix + name] = tensor
            for key, value in node.state.items():
                is_own = key in _OWN_STATE or not isinstance(key, str)
                if not is_own and isinstance(value, str | int | float | None):
                    attributes[f"{prefix}{str(key)[:_MAX_NAME]}"] = value
            for name, child in node.part("_modules").items():
                if child is not None:
                    visit(instance_of(child, _Node), f"{prefix}{name}.", depth + 1)

        visit(root, "", 0)
        return OfficialModule(
            class_name=root.class_name,
            init_args=instance_of(root.state.get("_init_args", ()), tuple),
            init_kwargs=root.part("_init_kwargs"),
            attributes=attributes,
            state_dict=tensors,
        )

    def _node(self, meta: object) -> _Node:
        meta = instance_of(meta, dict)
        if meta.get("type") != "class":
            raise ValueError(f"a persistent object of type {shown(meta.get('type'))}")
        class_name = instance_of(meta.get("class_name"), str)
        return _Node(class_name, instance_of(meta.get("state"), dict))

    def _dictionary(self, items: object = ()) -> Record:
        # Protocol 2 and later fill dictionaries by operations; arguments would be copied.
        if not isinstance(items, tuple) or items:
            raise ValueError("a dictionary made from arguments")
        return Record()

    def _set(self, items: object) -> set[object]:
        names = instance_of(items, list)
        self.budget.charge(8 * len(names))
        return {instance_of(name, str) for name in names}

    def _no_call(self, *_: object) -> object:
        raise ValueError("a storage class that is called")

    def _storage(self, data: object) -> Tensor:
        """Read what `torch.save` wrote of one storage, as a flat tensor.

        `torch.load(weights_only=True)` would do, but it allocates what the header declares
        before it looks at what is there.
        """
        data = instance_of(data, bytes)
        self.budget.charge(len(data))
        if data.startswith(b"PK"):
            raise ValueError("a storage in a zip archive")
        stream = io.BytesIO(data)

        def run(persistent: Callable[[object], object] | None = None) -> object:
            machine = Machine(self.origin, self.storage_calls, persistent=persistent)
            return machine.run(stream)

        if run() != _MAGIC or run() != _PROTOCOL:
            raise ValueError("a storage without its signature")
        if instance_of(run(), dict).get("little_endian") is not (sys.byteorder == "little"):
            raise ValueError("a storage of the other byte order")
        header = instance_of(run(self._header), _Storage)
        if run() != [header.key]:
            raise ValueError("a storage with another's key")
        start = stream.tell() + 8
        numel = int.from_bytes(data[start - 8 : start], "little")
        if numel != header.numel or numel * header.dtype.itemsize != len(data) - start:
            raise _refusal(
                f"{self.origin} declares a storage of {shown(header.numel)} elements over "
                f"{max(len(data) - start, 0)} bytes",
                "a storage as large as its data",
            )
        if numel == 0:
            return torch.empty(0, dtype=header.dtype)
        return torch.frombuffer(bytearray(memoryview(data)[start:]), dtype=header.dtype)

    def _header(self, key: object) -> _Storage:
        kind, storage, name, _, numel, view = instance_of(key, tuple)
        dtype = _STORAGES[instance_of(storage, Name).name]
        if kind != "storage" or view is not None:
            raise ValueError("a persistent id of another kind")
        return _Storage(dtype, instance_of(name, str), instance_of(numel, int))

    def _tensor(
        self, storage: object, offset: object, size: object, stride: object, *_: object
    ) -> Tensor:
        """View a storage as a tensor; the view must lie within it, and repeat nothing."""
        flat = instance_of(storage, Tensor)
        start = instance_of(offset, int)
        sizes = [instance_of(n, int) for n in instance_of(size, tuple)]
        strides = [instance_of(n, int) for n in instance_of(stride, tuple)]
        if len(sizes) != len(strides) or len(sizes) > _MAX_DIMENSIONS:
            raise ValueError("a tensor whose size and stride disagree")
        if start < 0 or any(not 0 <= n < 1 << 48 for n in (*sizes, *strides)):
            raise ValueError("a tensor with an impossible size")
        if math.prod(max(n, 1) for n in sizes) > self.num_bytes:
            self.budget.charge(self.num_bytes + 1)
        numel = math.prod(sizes)
        extent = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1
        if numel > flat.numel() or (numel and extent > flat.numel()):
            raise _refusal(
                f"{self.origin} declares a tensor of {shown(numel)} elements, the last at "
                f"{shown(extent - 1)}, over a storage of {flat.numel()}",
                "tensors that lie within their storage",
            )
        return flat.as_strided(sizes, strides, start) if numel else flat.new_empty(sizes)


# ---- From modules as data to our configurations

_NAMES = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_DISCRIMINATOR_NAMES = ("c_dim", "img_resolution", "img_channels")


def _generator_config(module: OfficialModule, origin: str) -> GeneratorConfig:
    """Read a generator's sizes off its tensors, and compare them with what the file says."""
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict.items()}
    if any(name.startswith("synthesis.input.") for name in shapes):
        raise _refusal(f"{origin} is an alias-free StyleGAN3 generator", "a StyleGAN2 network")
    if "synthesis.b4.const" not in shapes:
        raise _refusal(
            f"{origin} is a {shown(module.class_name)} that is not StyleGAN2",
            "a StyleGAN2 generator",
        )
    resolutions = _resolutions(shapes, "synthesis.b", origin)
    top = f"synthesis.b{resolutions[-1]}"
    num_layers = _count(shapes, "mapping.fc")
    is_conditional = "mapping.embed.weight" in shapes
    z_dim = _size(shapes, "mapping.fc0.weight", 1, origin)
    if is_conditional:
        z_dim -= _size(shapes, "mapping.embed.weight", 0, origin)
    w_dim = _size(shapes, f"mapping.fc{num_layers - 1}.weight", 0, origin)
    c_dim = _size(shapes, "mapping.embed.weight", 1, origin) if is_conditional else 0
    img_channels = _size(shapes, f"{top}.torgb.weight", 0, origin)
    architecture = _architecture(shapes, "synthesis.b4.torgb.weight", f"{top}.skip.weight")
    said = _said(module, _NAMES, ("mapping_kwargs", "synthesis_kwargs", "block_kwargs"))
    found = {
        "z_dim": z_dim,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "img_resolution": resolutions[-1],
        "img_channels": img_channels,
        "num_layers": num_layers,
        "architecture": architecture,
    }
    _agree(found, said, origin)
    _usual_layers(module, origin)
    widths = {r: _size(shapes, f"synthesis.b{r}.conv1.weight", 0, origin) for r in resolutions}
    channel_base, channel_max = _channels(widths, said, origin)
    return GeneratorConfig(
        resolution=resolutions[-1],
        img_channels=img_channels,
        z_dim=z_dim,
        w_dim=w_dim,
        c_dim=c_dim,
        mapping_layers=num_layers,
        architecture=architecture,
        channel_base=channel_base,
        channel_max=channel_max,
    )


def _discriminator_config(module: OfficialModule, origin: str) -> DiscriminatorConfig:
    """Read a discriminator's sizes off its tensors, and compare them with what the file says."""
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict.items()}
    if "b4.out.weight" not in shapes:
        raise _refusal(
            f"{origin} is a {shown(module.class_name)} that is not StyleGAN2",
            "a StyleGAN2 discriminator",
        )
    resolutions = _resolutions(shapes, "b", origin)
    top = f"b{resolutions[-1]}"
    is_conditional = "mapping.embed.weight" in shapes
    c_dim = _size(shapes, "mapping.embed.weight", 1, origin) if is_conditional else 0
    img_channels = _size(shapes, f"{top}.fromrgb.weight", 1, origin)
    architecture = _architecture(shapes, "b4.fromrgb.weight", f"{top}.skip.weight")
    said = _said(module, _DISCRIMINATOR_NAMES, ("epilogue_kwargs", "block_kwargs"))
    found = {
        "c_dim": c_dim,
        "img_resolution": resolutions[-1],
        "img_channels": img_channels,
        "architecture": architecture,
    }
    _agree(found, said, origin)
    _usual_layers(module, origin)
    widths = {r: _size(shapes, f"b{r}.conv0.weight", 0, origin) for r in resolutions[1:]}
    widths[4] = _size(shapes, "b4.conv.weight", 0, origin)
    channel_base, channel_max = _channels(widths, said, origin)
    group_size = module.attributes.get("b4.mbstd.group_size", said.get("mbstd_group_size", 4))
    if not isinstance(group_size, int):  # None is the whole batch there
        raise _refusal(f"{origin} has minibatch groups of {shown(group_size)}", "a whole number")
    return DiscriminatorConfig(
        resolution=resolutions[-1],
        img_channels=img_channels,
        c_dim=c_dim,
        architecture=architecture,
        channel_base=channel_base,
        channel_max=channel_max,
        mapping_layers=_count(shapes, "mapping.fc") or DiscriminatorConfig.mapping_layers,
        mbstd_group_size=group_size,
        mbstd_num_channels=_size(shapes, "b4.conv.weight", 1, origin) - widths[4],
    )


def _refusal(found: str, expected: str) -> WeightsError:
    """Say what is wrong with a file that cannot be repaired."""
    return WeightsError(
        found, expected=expected, fix="use an official StyleGAN2 pickle, or convert it first"
    )


def _without_filters(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Drop the resampling filters, which our networks hold fixed, after a look at them."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kept = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] != "resample_filter":
            kept[name] = tensor
        elif tensor.shape != (4, 4) or not torch.allclose(tensor.float(), taps.outer(taps)):
            raise _refusal(
                f"{origin} has another filter at {shown(name)}", "the filter [1, 3, 3, 1] / 8"
            )
    return kept


def _resolutions(shapes: Mapping[str, object], prefix: str, origin: str) -> list[int]:
    """List the resolutions of the blocks, from 4 up."""
    pattern = re.compile(re.escape(prefix) + r"(\d{1,6})\.")
    found = sorted({int(match[1]) for match in map(pattern.match, shapes) if match})
    if len(found) < 2 or found != [4 << level for level in range(len(found))]:
        raise _refusal(f"{origin} has blocks at {found[:20]}", "blocks at 4, 8, 16 and so on")
    return found


def _size(shapes: Mapping[str, list[int]], name: str, axis: int, origin: str) -> int:
    """Return one size of a tensor that must be there."""
    shape = shapes.get(name, [])
    if axis >= len(shape):
        raise _refusal(
            f"{origin} has no tensor {name} of {axis + 1} or more axes", "a StyleGAN2 network"
        )
    return shape[axis]


def _count(shapes: Mapping[str, object], prefix: str) -> int:
    """Count the layers `prefix0`, `prefix1` and so on."""
    num = 0
    while f"{prefix}{num}.weight" in shapes:
        num += 1
    return num


def _architecture(shapes: Mapping[str, object], rgb_at_4: str, skip_at_top: str) -> Architecture:
    """Tell the three architectures apart by what only one of them has."""
    if rgb_at_4 in shapes:
        return "skip"
    return "resnet" if skip_at_top in shapes else "orig"


def _said(
    module: OfficialModule, positional: tuple[str, ...], groups: tuple[str, ...]
) -> dict[str, object]:
    """Flatten the arguments that a network was made with; ADA nests what StyleGAN3 does not."""
    said = dict(zip(positional, module.init_args, strict=False)) | dict(module.init_kwargs)
    for group in groups:
        nested = said.pop(group, None)
        if isinstance(nested, dict):
            said |= {str(key): value for key, value in nested.items()}
    return said


def _agree(found: Mapping[str, object], said: Mapping[str, object], origin: str) -> None:
    """Refuse a file whose arguments contradict its tensors."""
    for name, value in found.items():
        told = said.get(name)
        # What is told may be anything, a tensor too, whose == is no yes or no.
        if told is not None and not (isinstance(told, str | int | float) and told == value):
            raise _refusal(
                f"{origin} says {name} = {shown(told)}, its tensors say {shown(value)}",
                "arguments that agree with the tensors",
            )


def _usual_layers(module: OfficialModule, origin: str) -> None:
    """Refuse layers that have the usual shapes but compute something else."""
    for name, value in module.attributes.items():
        layer, _, attribute = name.rpartition(".")
        is_mapping = re.fullmatch(r"mapping\.fc\d+", layer) is not None
        if attribute == "activation" and value not in ("lrelu", "linear"):
            raise _refusal(f"{origin} has {shown(value)} at {shown(name)}", "leaky ReLU")
        is_rate = is_mapping and attribute == "bias_gain"
        if is_rate and not (isinstance(value, float) and math.isclose(value, 0.01)):
            raise _refusal(
                f"{origin} has learning-rate multiplier {shown(value)} at {shown(layer)}", "0.01"
            )


def _channels(
    widths: Mapping[int, int], said: Mapping[str, object], origin: str
) -> tuple[int, int]:
    """Find channel_base and channel_max so that min(channel_base // r, channel_max) is the width.

    Where the file does not say and the official defaults do not fit, the smallest channel_base
    that does is taken.
    """
    smallest = max(r * width for r, width in widths.items()), max(widths.values())
    bases = [said.get("channel_base")] if "channel_base" in said else [32768, smallest[0]]
    maxima = [said.get("channel_max")] if "channel_max" in said else [512, smallest[1]]
    for base, top in itertools.product(bases, maxima):
        if not isinstance(base, int) or not isinstance(top, int):
            continue
        if all(min(base // r, top) == width for r, width in widths.items()):
            return base, top
    raise _refusal(
        f"{origin} has channels {dict(sorted(widths.items()))} by resolution, for channel_base "
        f"{shown(bases[0])} and channel_max {shown(maxima[0])}",
        "min(channel_base // r, channel_max) channels at resolution r",
    )
