"""Official PyTorch networks: StyleGAN2-ADA, and StyleGAN2 of StyleGAN3's repository.

Our StyleGAN2 uses the official names, so nothing is renamed. Resampling filters are buffers in the
official networks and constants in ours: they are checked and dropped on reading, and added on
writing.

Official pickles are read. Dictionaries of state dicts, for the official classes, are read and
written.
"""

import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.image_size import ImageSize
from stylegan.interop.official_pickle import OfficialModule, read_official_pickle
from stylegan.interop.restricted import quoted
from stylegan.interop.shapes import (
    architecture_of,
    channels_of,
    check_agreement,
    count_layers,
    lr_ratio,
    recorded_size,
    refusal,
    refusing_impossible_configs,
    resolutions_of,
    shapes_of,
    size_from_constant,
    size_from_dense,
    size_of,
)
from stylegan.interop.torch_file import TorchFile
from stylegan.models.base import Networks
from stylegan.models.io import fill
from stylegan.models.registry import family_of
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel

logger = logging.getLogger(__name__)

NETWORK_NAMES = {"G": "generator", "D": "discriminator", "G_ema": "generator_ema"}
"""Our names of the networks, by the official names."""
_CONST = "synthesis.b4.const"  # of every StyleGAN2 generator
_OUT = "b4.out.weight"  # of every StyleGAN2 discriminator
_FILTERED = ("fromrgb", "conv", "conv0", "conv1", "skip")


def load_official_pickle(
    path: str | os.PathLike[str], *, only: Collection[str] | None = None
) -> Networks:
    """Build our networks from an official PyTorch pickle.

    Args:
        path: the file.
        only: our names of the networks to build; None for all.

    Raises:
        WeightsError: as `read_official_pickle` and `networks_of`.
    """
    keys = [key for key, name in NETWORK_NAMES.items() if only is None or name in only]
    return networks_of(read_official_pickle(path, only=keys), str(path))


def networks_of(
    modules: dict[str, OfficialModule], origin: str, *, generated: ImageSize | None = None
) -> Networks:
    """Build our networks from official ones.

    Sizes and architecture are read off the tensors' shapes, and must agree with the arguments
    that the file records. Every tensor is used. Mapping layers with a learning-rate multiplier
    other than 0.01 are rescaled to 0.01: they compute the same, but train at another speed. Beside
    a generator, a discriminator of another class is left out, with a line in the log.

    Args:
        modules: by their official names. The dictionary is emptied, so that each module can be
            freed once its network is built.
        origin: the file, for errors.
        generated: size of the images of a generator in the same file; None to find it in `modules`.

    Raises:
        WeightsError: if a network is not StyleGAN2, contradicts itself, or has tensors missing
            or left over.
    """
    networks = Networks()
    has_generator = not modules.keys().isdisjoint(("G", "G_ema"))
    generated = generated or _generated_size(modules, origin)
    for key in list(modules):
        module, place = modules.pop(key), f"{origin} ({key})"
        if key == "D" and has_generator and _OUT not in module.state_dict:
            logger.info("%s: left out, as %s is not StyleGAN2's", place, quoted(module.class_name))
            continue
        tensors = _with_usual_multiplier(_without_filters(module.state_dict, place), module, place)
        build: Callable[[], Generator | Discriminator]
        with refusing_impossible_configs(place):
            if key == "D":
                build = partial(Discriminator, _discriminator_config(module, place, generated))
            else:
                build = partial(Generator, _generator_config(module, place))
        setattr(networks, NETWORK_NAMES[key], fill(build, tensors, origin=place))
    return networks


def _generated_size(modules: Mapping[str, OfficialModule], origin: str) -> ImageSize | None:
    """Return the size of the images of a generator, if there is one with a constant."""
    for key in ("G_ema", "G"):
        shapes = shapes_of(modules[key].state_dict) if key in modules else {}
        if _CONST in shapes:
            resolutions = resolutions_of(shapes, r"synthesis\.b(\d{1,6})\.", origin)
            return size_from_constant(shapes, _CONST, resolutions, f"{origin} ({key})")
    return None


def is_state_dicts(file: TorchFile) -> bool:
    """Return whether a file of torch.save holds official networks as state dicts.

    A file may also be the state dict of a generator alone, such as
    `torch.save(G_ema.state_dict(), path)` writes.
    """
    return any(file.has_tensors(key) for key in NETWORK_NAMES) or file.find(_CONST) is not None


def networks_of_state_dicts(file: TorchFile, only: Collection[str] | None = None) -> Networks:
    """Build our networks from an open file of official state dicts, as from `state_dicts_of`.

    The arguments `G_kwargs` and so on may be missing. Options that no tensor shows then have the
    defaults of the official code (minibatch groups of 4) or are off (`conv_clamp`).

    Raises:
        WeightsError: as `networks_of`.
    """
    networks = Networks()
    bare = None if any(file.has_tensors(key) for key in NETWORK_NAMES) else file.find(_CONST)
    if bare is not None:
        if only is None or "generator_ema" in only:
            item, prefix = bare
            module = OfficialModule(
                class_name="Generator",
                init_args=(),
                init_kwargs={},
                attributes={},
                state_dict=file.tensors(item, prefix=prefix),
            )
            networks.generator_ema = networks_of({"G_ema": module}, file.place(item)).generator_ema
        return networks
    generated: ImageSize | None = None
    # the discriminator last, whose base a generator may decide
    for key, name in sorted(NETWORK_NAMES.items(), key=lambda item: item[0] == "D"):
        if file.root.get(key) is None or (only is not None and name not in only):
            continue
        arguments = file.root.get(f"{key}_kwargs")
        module = OfficialModule(
            class_name="Discriminator" if key == "D" else "Generator",
            init_args=(),
            init_kwargs=arguments if isinstance(arguments, dict) else {},
            attributes={},
            state_dict=file.tensors(key),
        )
        network = getattr(networks_of({key: module}, file.origin, generated=generated), name)
        setattr(networks, name, network)
        generated = network.img_size
    return networks


def state_dicts_of(networks: Networks) -> dict[str, object]:
    """Return the content of a file of official state dicts, for torch.save.

    Returns:
        Under "G", "D" and "G_ema", state dicts that the official classes load with `strict=True`,
        including filters; under "G_kwargs" and so on, the arguments for these classes. They have
        the names of StyleGAN3's repository, and select float32.

    Raises:
        WeightsError: if the official PyTorch code has no such network.
    """
    content: dict[str, object] = {}
    for key, name in NETWORK_NAMES.items():
        network = getattr(networks, name)
        if network is None:
            continue
        if not isinstance(network, Generator | Discriminator):
            raise _inexpressible(name, f"family {family_of(network)}", "stylegan2")
        is_generator = isinstance(network, Generator)
        content[key] = _with_filters(network.state_dict(), is_generator=is_generator)
        if isinstance(network, Generator):
            content[f"{key}_kwargs"] = _generator_arguments(network.config, name)
        else:
            content[f"{key}_kwargs"] = _discriminator_arguments(network.config, name)
    return content


def _generator_arguments(config: GeneratorConfig, name: str) -> dict[str, object]:
    """Return a generator's options as official arguments."""
    if config.c_dim > 0 and config.label_norm != "separate":
        raise _inexpressible(name, f"label_norm {config.label_norm}", "separate")
    if config.mapping_width not in (None, config.w_dim):
        raise _inexpressible(name, f"mapping_width {config.mapping_width}", f"{config.w_dim}")
    return {
        "z_dim": config.z_dim,
        "w_dim": config.w_dim,
        "mapping_kwargs": {"num_layers": config.mapping_layers},
        **_common_arguments(config, name),
    }


def _discriminator_arguments(config: DiscriminatorConfig, name: str) -> dict[str, object]:
    """Return a discriminator's options as official arguments."""
    if config.c_dim > 0 and config.label_head != "projection":
        raise _inexpressible(name, f"label_head {config.label_head}", "projection")
    epilogue = {
        "mbstd_group_size": config.mbstd_group_size,
        "mbstd_num_channels": config.mbstd_num_channels,
    }
    mapping = {"num_layers": config.mapping_layers} if config.c_dim > 0 else {}
    common = _common_arguments(config, name)
    return {**common, "epilogue_kwargs": epilogue, "mapping_kwargs": mapping}


def _common_arguments(
    config: GeneratorConfig | DiscriminatorConfig, name: str
) -> dict[str, object]:
    if config.architecture not in ("orig", "skip", "resnet"):
        raise _inexpressible(name, f"architecture {config.architecture}", "orig, skip or resnet")
    if not config.size.is_power_of_two:
        raise _inexpressible(name, f"images of {config.size}", "square ones, a power of two")
    return {
        "c_dim": config.c_dim,
        "img_resolution": config.resolution,
        "img_channels": config.img_channels,
        "architecture": config.architecture,
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
        "num_fp16_res": 0,
        "conv_clamp": config.conv_clamp,
    }


def _with_filters(tensors: Mapping[str, Tensor], *, is_generator: bool) -> dict[str, Tensor]:
    """Add the filters of the official modules: convolutions, and blocks but the last one of D."""
    kernel = fir_kernel(RESAMPLE_TAPS)
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        # A copy, as a view would save its whole storage.
        written[name] = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        block, _, layer = name.removesuffix(".weight").rpartition(".")
        if name.endswith(".weight") and layer in _FILTERED:
            written[f"{block}.{layer}.resample_filter"] = kernel.clone()
        if re.fullmatch(r"(synthesis\.)?b\d+", block) and (is_generator or block != "b4"):
            written[f"{block}.resample_filter"] = kernel.clone()
    return written


def _inexpressible(name: str, option: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{name} has {option}, which the official PyTorch code does not support",
        expected=expected,
        fix="convert to native",
    )


_NAMES = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_DISCRIMINATOR_NAMES = ("c_dim", "img_resolution", "img_channels")


def _generator_config(module: OfficialModule, origin: str) -> GeneratorConfig:
    """Read a generator's options from its tensors, and compare them with its arguments."""
    shapes = shapes_of(module.state_dict)
    if any(name.startswith("synthesis.input.") for name in shapes):
        raise refusal(f"{origin} is an alias-free StyleGAN3 generator", "a StyleGAN2 network")
    if _CONST not in shapes:
        raise refusal(
            f"{origin} is a {quoted(module.class_name)} that is not StyleGAN2",
            "a StyleGAN2 generator",
        )
    resolutions = resolutions_of(shapes, r"synthesis\.b(\d{1,6})\.", origin)
    size = size_from_constant(shapes, _CONST, resolutions, origin)
    top = f"synthesis.b{resolutions[-1]}"
    num_layers = count_layers(shapes, "mapping.fc", ".weight")
    is_conditional = "mapping.embed.weight" in shapes
    z_dim = size_of(shapes, "mapping.fc0.weight", 1, origin)
    if is_conditional:
        z_dim -= size_of(shapes, "mapping.embed.weight", 0, origin)
    w_dim = size_of(shapes, f"mapping.fc{num_layers - 1}.weight", 0, origin)
    c_dim = size_of(shapes, "mapping.embed.weight", 1, origin) if is_conditional else 0
    img_channels = size_of(shapes, f"{top}.torgb.weight", 0, origin)
    architecture = architecture_of(shapes, "synthesis.b4.torgb.weight", f"{top}.skip.weight")
    recorded = _recorded(module, _NAMES, ("mapping_kwargs", "synthesis_kwargs", "block_kwargs"))
    values = {
        "z_dim": z_dim,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "img_resolution": recorded_size(size),
        "img_channels": img_channels,
        "num_layers": num_layers,
        "architecture": architecture,
    }
    check_agreement(values, recorded, origin)
    _check_layers(module, origin)
    widths = {r: size_of(shapes, f"synthesis.b{r}.conv1.weight", 0, origin) for r in resolutions}
    channel_base, channel_max = channels_of(widths, recorded, origin)
    return GeneratorConfig(
        resolution=size.stored,
        img_channels=img_channels,
        z_dim=z_dim,
        w_dim=w_dim,
        c_dim=c_dim,
        mapping_layers=num_layers,
        architecture=architecture,
        channel_base=channel_base,
        channel_max=channel_max,
        noise="synthesis.b4.conv1.noise_strength" in shapes,
        conv_clamp=_conv_clamp(module, recorded, origin),
    )


def _discriminator_config(
    module: OfficialModule, origin: str, generated: ImageSize | None
) -> DiscriminatorConfig:
    """Read a discriminator's options from its tensors, and compare them with its arguments.

    `generated` is the size of the images of a generator in the same file, if there is one.
    """
    shapes = shapes_of(module.state_dict)
    if _OUT not in shapes:
        raise refusal(
            f"{origin} is a {quoted(module.class_name)} that is not StyleGAN2",
            "a StyleGAN2 discriminator",
        )
    resolutions = resolutions_of(shapes, r"b(\d{1,6})\.", origin)
    size = size_from_dense(
        size_of(shapes, "b4.fc.weight", 1, origin),
        size_of(shapes, "b4.conv.weight", 0, origin),
        resolutions,
        origin,
        generated=generated,
    )
    top = f"b{resolutions[-1]}"
    is_conditional = "mapping.embed.weight" in shapes
    c_dim = size_of(shapes, "mapping.embed.weight", 1, origin) if is_conditional else 0
    img_channels = size_of(shapes, f"{top}.fromrgb.weight", 1, origin)
    architecture = architecture_of(shapes, "b4.fromrgb.weight", f"{top}.skip.weight")
    recorded = _recorded(module, _DISCRIMINATOR_NAMES, ("epilogue_kwargs", "block_kwargs"))
    values = {
        "c_dim": c_dim,
        "img_resolution": recorded_size(size),
        "img_channels": img_channels,
        "architecture": architecture,
    }
    check_agreement(values, recorded, origin)
    _check_layers(module, origin)
    widths = {r: size_of(shapes, f"b{r}.conv0.weight", 0, origin) for r in resolutions[1:]}
    widths[4] = size_of(shapes, "b4.conv.weight", 0, origin)
    channel_base, channel_max = channels_of(widths, recorded, origin)
    group_size = module.attributes.get("b4.mbstd.group_size", recorded.get("mbstd_group_size", 4))
    if group_size is not None and not isinstance(group_size, int):
        raise refusal(f"{origin} has minibatch groups of {quoted(group_size)}", "a whole number")
    depth = DiscriminatorConfig.mapping_layers  # has no effect without labels
    if is_conditional:
        depth = count_layers(shapes, "mapping.fc", ".weight")
    return DiscriminatorConfig(
        resolution=size.stored,
        img_channels=img_channels,
        c_dim=c_dim,
        architecture=architecture,
        channel_base=channel_base,
        channel_max=channel_max,
        mapping_layers=depth,
        mbstd_group_size=group_size,
        mbstd_num_channels=size_of(shapes, "b4.conv.weight", 1, origin) - widths[4],
        conv_clamp=_conv_clamp(module, recorded, origin),
    )


def _recorded(
    module: OfficialModule, positional: tuple[str, ...], groups: tuple[str, ...]
) -> dict[str, object]:
    """Return the recorded arguments of a network without the nesting that ADA has."""
    recorded = dict(zip(positional, module.init_args, strict=False)) | dict(module.init_kwargs)
    for group in groups:
        nested = recorded.pop(group, None)
        if isinstance(nested, dict):
            recorded |= {str(key): value for key, value in nested.items()}
    return recorded


def _check_layers(module: OfficialModule, origin: str) -> None:
    """Raise WeightsError for layers with the usual shapes and another activation."""
    for name, value in module.attributes.items():
        if name.endswith(".activation") and value not in ("lrelu", "linear"):
            raise refusal(f"{origin} has {quoted(value)} at {quoted(name)}", "leaky ReLU")


def _conv_clamp(
    module: OfficialModule, recorded: Mapping[str, object], origin: str
) -> float | None:
    """Return the clamp of a network's convolutions.

    Every layer records its own. Residual branches and D's RGB layer at 4x4 never have one.
    """
    suffix = ".conv_clamp"
    clamps = {
        value
        for name, value in module.attributes.items()
        if name.endswith(suffix)
        and not name.endswith(f".skip{suffix}")
        and name != f"b4.fromrgb{suffix}"
    }
    if len(clamps) > 1:
        raise refusal(f"{origin} has layers with different conv_clamp", "the same in every layer")
    clamp = clamps.pop() if clamps else recorded.get("conv_clamp")
    if clamp is None:
        return None
    if isinstance(clamp, bool) or not isinstance(clamp, int | float):
        raise refusal(f"{origin} has conv_clamp {quoted(clamp)}", "a number above 0, or None")
    return float(clamp)


def _with_usual_multiplier(
    tensors: Mapping[str, Tensor], module: OfficialModule, origin: str
) -> dict[str, Tensor]:
    """Scale the mapping layers to our learning-rate multiplier.

    A layer computes with its stored numbers times the multiplier, which it records as the gain
    of its bias.
    """
    scaled = dict(tensors)
    for name, value in module.attributes.items():
        layer, _, attribute = name.rpartition(".")
        if attribute != "bias_gain" or not re.fullmatch(r"mapping\.fc\d+", layer):
            continue
        by = lr_ratio(value, f"{origin} at {quoted(layer)}")
        for tensor in (f"{layer}.weight", f"{layer}.bias"):
            if by != 1 and tensor in scaled:
                scaled[tensor] = scaled[tensor] * by
    return scaled


def _without_filters(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Drop the resampling filters, which are constants in our networks, after checking them."""
    kernel = fir_kernel(RESAMPLE_TAPS)
    kept = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] != "resample_filter":
            kept[name] = tensor
        elif tensor.shape != (4, 4) or not torch.allclose(tensor.float(), kernel):
            raise refusal(
                f"{origin} has another filter at {quoted(name)}", "the filter [1, 3, 3, 1] / 8"
            )
    return kept
