"""The native format: a folder with `model.safetensors` and `model.json`, without code."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stylegan.errors import ConfigError, WeightsError
from stylegan.files import replace_folder
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator, Networks
from stylegan.models.registry import FAMILIES, family_of
from stylegan.pixel_format import PixelFormat

FORMAT = "stylegan"
VERSION = 1
NAMES = ("generator_ema", "generator", "discriminator")
_WEIGHTS = "model.safetensors"
_DESCRIPTION = "model.json"
_MAX_DESCRIPTION = 16 << 20  # bytes; a description has some thousand

Network = TypeVar("Network", bound=nn.Module)


def is_native(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is a complete native folder, without reading the weights."""
    folder = Path(folder)
    if not (folder / _WEIGHTS).is_file():
        return False
    try:
        description = _description_at(folder / _DESCRIPTION)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(description, dict) and description.get("format") == FORMAT


def save(
    networks: Networks,
    folder: str | os.PathLike[str],
    *,
    metadata: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write networks as a native folder, atomically. An existing native folder is replaced.

    Args:
        networks: networks to write; None is left out.
        folder: where to write.
        metadata: JSON data, such as the training configuration.
        dtype: dtype of the stored floating-point tensors; None keeps theirs. `torch.float16` halves
            the file, with about three decimal digits.

    Raises:
        ValueError: if there is no network to write, or `dtype` is not floating-point.
        WeightsError: if `folder` exists and is neither a native folder nor empty.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"save stores floating-point tensors, got dtype {dtype}")
    present = {
        name: getattr(networks, name) for name in NAMES if getattr(networks, name) is not None
    }
    if not present:
        raise ValueError("save needs at least one network, got none")
    folder = Path(folder).absolute()
    if folder.exists() and not is_native(folder) and not _is_empty(folder):
        raise WeightsError(
            f"{folder} exists and is not a native folder",
            fix="choose another folder, or remove this one",
        )
    tensors: dict[str, Tensor] = {}
    for name, network in present.items():
        for key, tensor in network.state_dict().items():
            cast = dtype if tensor.is_floating_point() else None
            # Clone: safetensors refuses expanded tensors and those that share memory.
            tensors[f"{name}.{key}"] = (
                tensor.detach().to("cpu", cast).clone(memory_format=torch.contiguous_format)
            )
    description = {
        "format": FORMAT,
        "version": VERSION,
        "networks": {
            name: {
                "family": family_of(network),
                "config": asdict(network.config),
                **({"lod": network.lod} if network.is_growing else {}),
                **({"classes": classes} if (classes := _class_names(network)) else {}),
                **_pixels(network),
            }
            for name, network in present.items()
        },
        "metadata": dict(metadata or {}),
    }
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_file(tensors, temporary / _WEIGHTS, metadata={"format": "pt"})
        (temporary / _DESCRIPTION).write_text(text, encoding="utf-8")
        # safetensors lets only the owner read the file
        shutil.copymode(temporary / _DESCRIPTION, temporary / _WEIGHTS)
        replace_folder(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: str | os.PathLike[str], *, only: Collection[str] | None = None) -> Networks:
    """Read a native folder. Half-precision files give float32 networks.

    Args:
        folder: as written by `save`.
        only: networks to read, out of "generator_ema", "generator" and "discriminator"; None for
            all that the folder has.

    Returns:
        Networks on the CPU, in train mode, with gradients for their parameters.

    Raises:
        ValueError: if `only` has another name.
        WeightsError: if the folder is missing, damaged or of a newer version, or if its tensors
            do not fit its networks.
    """
    if unknown := set(only or ()) - set(NAMES):
        raise ValueError(f"only takes names out of {NAMES}, got {sorted(unknown)}")
    folder = Path(folder)
    descriptions = _read_description(folder)["networks"]
    selected = [name for name in descriptions if only is None or name in only]
    try:
        if (folder / _WEIGHTS).exists() and not (folder / _WEIGHTS).is_file():
            raise OSError("not a regular file")
        with safetensors.safe_open(folder / _WEIGHTS, framework="pt") as file:
            keys = list(file.keys())
            if unexpected := [key for key in keys if key.partition(".")[0] not in descriptions]:
                raise _damaged(f"{folder} has unexpected tensors, {_few(unexpected)}")
            tensors = {
                name: {
                    key.removeprefix(f"{name}."): file.get_tensor(key)
                    for key in keys
                    if key.startswith(f"{name}.")
                }
                for name in selected
            }
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(f"{folder / _WEIGHTS} cannot be read ({_line(error)})") from error
    networks = Networks()
    for name in selected:
        setattr(networks, name, _build(name, descriptions[name], tensors[name], str(folder)))
    return networks


def read_metadata(folder: str | os.PathLike[str]) -> dict[str, object]:
    """Return the metadata of a native folder.

    Raises:
        WeightsError: if the folder is not a native folder.
    """
    return _read_description(Path(folder))["metadata"]


def fill(build: Callable[[], Network], tensors: Mapping[str, Tensor], *, origin: str) -> Network:
    """Build a network and load `tensors` as its state dict.

    Names and shapes are compared before memory is allocated, so that a file cannot declare a
    network larger than itself.

    Args:
        build: makes the network. The state of torch's global generator is preserved.
        tensors: cast to the network's dtype.
        origin: where the tensors come from, for errors.

    Raises:
        WeightsError: if the configuration is impossible, or a tensor is missing, unexpected, of
            another shape, or not floating-point.
    """
    try:
        with torch.device("meta"):  # shapes without memory
            expected = build().state_dict()
    except (ArithmeticError, ConfigError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(f"{origin} describes an impossible network ({_line(error)})") from error
    if missing := sorted(expected.keys() - tensors.keys()):
        raise _damaged(f"{origin} lacks {_few(missing)}")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise _damaged(f"{origin} has unexpected tensors, {_few(extra)}")
    wrong = [
        f"{name} {list(tensors[name].shape)} for {list(tensor.shape)}"
        for name, tensor in expected.items()
        if tensors[name].shape != tensor.shape
    ]
    if wrong:
        raise _damaged(f"{origin} has other shapes, {_few(wrong)}")
    if integers := [name for name in expected if not tensors[name].is_floating_point()]:
        raise _damaged(f"{origin} has integers in {_few(integers)}")
    with torch.random.fork_rng(devices=[]):
        network = build()
    network.load_state_dict(dict(tensors))
    return network


def _build(name: str, description: object, tensors: Mapping[str, Tensor], origin: str) -> nn.Module:
    """Build one network from its description in model.json."""
    match description:
        case {"family": str(key), "config": dict(config), **rest}:
            layers, lod = config.get("mapping_layers", 0), rest.get("lod", 0)
        case _:
            raise _damaged(f"{origin} does not describe {name}")
    if key not in FAMILIES:
        raise WeightsError(
            f"{origin} ({name}) is of family {ascii(key)[:100]}, which this version does not have",
            fix="upgrade stylegan",
        )
    # `fill` limits sizes, but would first build any number of layers.
    if not isinstance(layers, int) or layers > len(tensors):
        raise _damaged(f"{origin} ({name}) lacks tensors for its mapping layers")
    family = FAMILIES[key]

    def build() -> AbstractGenerator | AbstractDiscriminator:
        if name == "discriminator":
            return family.discriminator(family.discriminator_config(**config))
        return family.generator(family.generator_config(**config))

    network = fill(build, tensors, origin=f"{origin} ({name})")
    if not isinstance(lod, int | float):
        raise _damaged(f"{origin} ({name}) has a lod that is not a number")
    try:
        network.lod = lod
    except ValueError as error:
        raise _damaged(f"{origin} ({name}): {_line(error)}") from error
    if isinstance(network, AbstractGenerator):
        classes = rest.get("classes", [])
        if isinstance(classes, list):
            network.class_names = tuple(map(str, classes))
        if "pixels" in rest:
            network.pixels = _pixels_of(network, rest["pixels"], f"{origin} ({name})")
    return network


def _pixels(network: nn.Module) -> dict[str, object]:
    """Return the entry on the pixels of a generator; nothing for those that need none."""
    if not isinstance(network, AbstractGenerator):
        return {}
    is_default = network.pixels == PixelFormat.of_channels(network.img_channels)
    return {} if is_default else {"pixels": network.pixels.to_json()}


def _pixels_of(network: AbstractGenerator, content: object, origin: str) -> PixelFormat:
    try:
        pixels = PixelFormat.from_json(content)
    except ValueError as error:
        raise _damaged(f"{origin}: {_line(error)}") from error
    if pixels.num_channels != network.img_channels:
        raise _damaged(f"{origin} has pixels of {pixels.num_channels} channels")
    return pixels


def _class_names(network: nn.Module) -> list[str]:
    return list(network.class_names) if isinstance(network, AbstractGenerator) else []


def _description_at(path: Path) -> object:
    """Read a JSON file of limited size; OSError, ValueError or RecursionError if it is invalid."""
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        content = file.read(_MAX_DESCRIPTION + 1)
    if len(content) > _MAX_DESCRIPTION:
        raise ValueError(f"more than {_MAX_DESCRIPTION >> 20} MiB")
    return json.loads(content)


def _read_description(folder: Path) -> dict[str, dict[str, object]]:
    """Read and check model.json."""
    path = folder / _DESCRIPTION
    try:
        description = _description_at(path)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(f"{path} cannot be read ({_line(error)})") from error
    match description:
        case {"format": "stylegan", "version": int(version)} if version > VERSION:
            raise WeightsError(
                f"{path} has version {version}, this version reads at most {VERSION}",
                fix="upgrade stylegan",
            )
        case {
            "format": "stylegan",
            "version": int(version),
            "networks": dict(networks),
            "metadata": dict(metadata),
        } if version >= 1 and networks and networks.keys() <= set(NAMES):
            return {"networks": networks, "metadata": metadata}
    raise _damaged(f"{path} does not describe networks of this library")


def _is_empty(folder: Path) -> bool:
    """Return whether a path is an empty folder."""
    return folder.is_dir() and not any(folder.iterdir())


def _damaged(message: str) -> WeightsError:
    """Return the error for a damaged set of weights."""
    return WeightsError(message, fix="write or download it again")


def _few(items: list[str], num: int = 3) -> str:
    """Join the first few names."""
    rest = f" and {len(items) - num} more" if len(items) > num else ""
    first = (item if item.isprintable() else ascii(item) for item in items[:num])
    return ", ".join(item[:100] for item in first) + rest


def _line(error: Exception) -> str:
    """Return another library's error as one short line."""
    return " ".join(str(error).split())[:160]
