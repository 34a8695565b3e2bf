"""StyleGAN2 of Kim Seonghyeon ("rosinality"), read and written.

Its networks compute the same as ours, with weights of the same scales and orientation under other
names. Its filters for upsampling contain the gain of 4.

Source: the names of the public files, spec section 14.4.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.image_size import ImageSize
from stylegan.interop.naming import NameMap, Row, pair, with_unit_axes
from stylegan.interop.shapes import (
    channels_of,
    count_layers,
    refusal,
    refusing_impossible_configs,
    shapes_of,
    size_from_constant,
    size_from_dense,
    size_of,
)
from stylegan.interop.storages import StoredTensor, load_all
from stylegan.interop.torch_file import SINGLE, TorchFile
from stylegan.models.base import Networks
from stylegan.models.io import fill
from stylegan.models.registry import family_of
from stylegan.models.sizes import block_resolutions, channels_at
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel
from stylegan.rng import generator_for

logger = logging.getLogger(__name__)

NETWORK_NAMES = {"g": "generator", "d": "discriminator", "g_ema": "generator_ema"}
"""Our names of the networks, by the names in the file."""
_INPUT, _FINAL = "input.input", "final_conv.0.weight"  # of every generator and discriminator
_NUM_LATENTS = 10_000  # as in the official code's estimate of the mean of w
_WIDTH = 512  # channels of all blocks up to 32x32
_CONV = with_unit_axes(5, leading=1)
_BIAS = with_unit_axes(4, leading=1, trailing=2)


def is_rosinality(file: TorchFile) -> bool:
    """Return whether a file of torch.save is of this kind."""
    return any(file.has_tensors(key) for key in ("g_ema", "g")) or file.find(_INPUT) is not None


def networks_of(file: TorchFile, only: Collection[str] | None = None) -> Networks:
    """Build our networks from an open file: converted weights, or a training checkpoint.

    A training checkpoint has no mean of w. It is computed from 10,000 fixed latents, with a line
    in the log.

    Args:
        file: open.
        only: our names of the networks to build; None for all.

    Raises:
        WeightsError: if a network is not the StyleGAN2 of that program, or has tensors missing or
            left over.
    """
    networks = Networks()
    average = file.find(_INPUT)
    generated: ImageSize | None = None
    # the discriminator last, whose base a generator may decide
    for key, name in sorted(NETWORK_NAMES.items(), key=lambda item: item[0] == "d"):
        if only is not None and name not in only:
            continue
        item: str | None = key
        if key == "g_ema" and average is not None:
            item, prefix = average
        elif file.root.get(key) is None:
            continue
        else:
            prefix = file.prefix(key, _FINAL if key == "d" else _INPUT) or ""
        place = file.place(item)
        tensors = file.tensors(item, prefix=prefix)
        tensors.pop("latent_avg", None)  # beside the tensors of a bare generator
        with refusing_impossible_configs(place):
            if key == "d":
                networks.discriminator = _discriminator(tensors, place, generated)
            else:
                generator = generator_of(tensors, file, place)
                setattr(networks, name, generator)
                generated = generator.img_size
    return networks


def projections_of(file: TorchFile) -> list[tuple[Tensor, list[Tensor]]]:
    """Return the latents and the noise maps, coarsest first, of each image in a file.

    Args:
        file: of the program's projector, with a dictionary for each image; one such dictionary; or
            a single tensor of latents.

    Raises:
        WeightsError: if an entry has no latents, or tensors are larger than the file.
    """
    entries = [file.root] if {"latent", SINGLE} & file.root.keys() else list(file.root.values())
    projections = []
    for entry in entries:
        values = entry if isinstance(entry, Mapping) else {"latent": entry}
        latent, noise = values.get("latent", values.get(SINGLE)), values.get("noise")
        maps = noise if isinstance(noise, list) else []
        stored = {str(index): value for index, value in enumerate([latent, *maps])}
        tensors = {k: value for k, value in stored.items() if isinstance(value, StoredTensor)}
        if "0" not in tensors or len(tensors) < len(stored):
            raise refusal(f"{file.origin} has no latents in an entry", "a tensor named latent")
        first, *others = load_all(tensors, num_bytes=file.num_bytes, origin=file.origin).values()
        projections.append((first, others))
    return projections


def tensors_of(networks: Networks) -> dict[str, object]:
    """Return the content of a file of this kind, for torch.save.

    Raises:
        WeightsError: if the program has no such network.
    """
    content: dict[str, object] = {}
    theirs = {name: key for key, name in NETWORK_NAMES.items()}
    for name, network in networks.items():
        if not isinstance(network, Generator | Discriminator):
            raise _inexpressible(name, f"family {family_of(network)}", "stylegan2")
        _check_expressible(network.config, name)
        if network.config.conv_clamp is not None:
            logger.warning(
                "%s is written without its conv_clamp of %g, which these files cannot hold",
                name,
                network.config.conv_clamp,
            )
        tensors = network.state_dict()
        if isinstance(network, Generator):
            mean = tensors.pop("mapping.w_avg")
            content[theirs[name]] = _generator_names(network.config).write(tensors)
            if name == "generator_ema" or networks.generator_ema is None:
                content["latent_avg"] = mean.detach().to("cpu").clone()
        else:
            content[theirs[name]] = _discriminator_names(network.config).write(tensors)
    return content


def generator_of(tensors: Mapping[str, Tensor], file: TorchFile, origin: str) -> Generator:
    """Build a generator from tensors under the names of this program.

    Args:
        tensors: all but the mean of w.
        file: may hold the mean of w, as `latent_avg`. Otherwise it is computed.
        origin: the file and item, for errors.

    Raises:
        WeightsError: if tensors are missing, left over or of other shapes.
    """
    config = _generator_config(tensors, origin)
    noise = {} if any(name.startswith("noises.") for name in tensors) else _fixed_noise(config)
    ours = _generator_names(config).read({**tensors, **noise}, origin=origin)
    has_mean = file.root.get("latent_avg") is not None
    mean = file.tensor("latent_avg") if has_mean else torch.zeros(config.w_dim)
    # encoders store it once for each style input
    ours["mapping.w_avg"] = mean[0] if mean.ndim == 2 and len(mean) > 0 else mean
    generator = fill(partial(Generator, config), ours, origin=origin)
    missing = ["noise maps (those of a fixed seed are used)"] if noise else []
    if not has_mean:
        _estimate_w_avg(generator)
        missing.append(f"the mean of w (computed from {_NUM_LATENTS:,} latents)")
    if missing:
        logger.info("%s lacks %s", origin, " and ".join(missing))
    return generator


def _fixed_noise(config: GeneratorConfig) -> dict[str, Tensor]:
    """Return noise maps under the file's names, for files without them."""
    first, *others = map(config.size.at, block_resolutions(config.size))
    sizes = [first, *(size for size in others for _ in range(2))]
    return {
        f"noises.noise_{index}": torch.randn(
            [1, 1, size.height, size.width],
            generator=generator_for("noise maps", seed=0, nimg=index),
        )
        for index, size in enumerate(sizes)
    }


def _discriminator(
    tensors: Mapping[str, Tensor], origin: str, generated: ImageSize | None
) -> Discriminator:
    config = _discriminator_config(tensors, origin, generated)
    ours = _discriminator_names(config).read(tensors, origin=origin)
    return fill(partial(Discriminator, config), ours, origin=origin)


@torch.no_grad()
def _estimate_w_avg(generator: Generator) -> None:
    """Set the mean of w to that of a fixed sample."""
    random = generator_for("w_avg", seed=0, nimg=0)
    z = torch.randn(_NUM_LATENTS, generator.z_dim, generator=random)
    ws = torch.cat([generator.mapping(batch)[:, 0] for batch in torch.split(z, 1000)])
    generator.mapping.w_avg.copy_(ws.mean(dim=0))


def _generator_config(tensors: Mapping[str, Tensor], origin: str) -> GeneratorConfig:
    """Read a generator's options from its tensors."""
    shapes = shapes_of(tensors)
    if _INPUT not in shapes:
        raise refusal(f"{origin} is not a generator of that program", f"{_INPUT}, conv1, convs")
    num = count_layers(shapes, "to_rgbs.", ".conv.weight")
    widths = {4: size_of(shapes, "conv1.conv.weight", 1, origin)}
    for k in range(num):
        widths[8 << k] = size_of(shapes, f"convs.{2 * k + 1}.conv.weight", 1, origin)
    channel_base, channel_max = channels_of(widths, {}, origin)
    resolutions = [4 << level for level in range(num + 1)]
    return GeneratorConfig(
        resolution=size_from_constant(shapes, _INPUT, resolutions, origin).stored,
        img_channels=size_of(shapes, "to_rgb1.conv.weight", 1, origin),
        z_dim=size_of(shapes, "style.1.weight", 1, origin),
        w_dim=size_of(shapes, "style.1.weight", 0, origin),
        mapping_layers=count_layers(shapes, "style.", ".weight", start=1),
        architecture="skip",
        channel_base=channel_base,
        channel_max=channel_max,
    )


def _discriminator_config(
    tensors: Mapping[str, Tensor], origin: str, generated: ImageSize | None
) -> DiscriminatorConfig:
    """Read a discriminator's options from its tensors."""
    shapes = shapes_of(tensors)
    num = count_layers(shapes, "convs.", ".skip.1.weight", start=1)
    if _FINAL not in shapes or num == 0:
        raise refusal(f"{origin} is not a discriminator of that program", "convs, final_conv")
    widths = {4: size_of(shapes, _FINAL, 0, origin)}
    for m in range(1, num + 1):
        widths[(4 << num) >> (m - 1)] = size_of(shapes, f"convs.{m}.conv1.0.weight", 0, origin)
    channel_base, channel_max = channels_of(widths, {}, origin)
    size = size_from_dense(
        size_of(shapes, "final_linear.0.weight", 1, origin),
        widths[4],
        [4 << level for level in range(num + 1)],
        origin,
        generated=generated,
    )
    return DiscriminatorConfig(
        resolution=size.stored,
        img_channels=size_of(shapes, "convs.0.0.weight", 1, origin),
        architecture="resnet",
        channel_base=channel_base,
        channel_max=channel_max,
        mbstd_num_channels=size_of(shapes, _FINAL, 1, origin) - widths[4],
    )


def _generator_names(config: GeneratorConfig) -> NameMap:
    """Return the names of all tensors of a generator but the mean of w, a separate item."""
    num = config.size.doublings
    up_kernel = fir_kernel(RESAMPLE_TAPS) * 4
    constants = {f"to_rgbs.{k}.upsample.kernel": up_kernel for k in range(num)}
    constants |= {f"convs.{2 * k}.conv.blur.kernel": up_kernel for k in range(num)}

    def modulated(theirs: str, ours: str) -> Iterator[Row]:
        yield Row(f"{theirs}.conv.weight", f"{ours}.weight", _CONV)
        yield Row(f"{theirs}.conv.modulation.weight", f"{ours}.affine.weight")
        yield Row(f"{theirs}.conv.modulation.bias", f"{ours}.affine.bias")

    def layer(theirs: str, ours: str, noise: int) -> Iterator[Row]:
        yield from modulated(theirs, ours)
        yield Row(f"{theirs}.noise.weight", f"{ours}.noise_strength", with_unit_axes(1, leading=1))
        yield Row(f"{theirs}.activate.bias", f"{ours}.bias")
        yield Row(f"noises.noise_{noise}", f"{ours}.noise_const", with_unit_axes(4, leading=2))

    def rgb(theirs: str, ours: str) -> Iterator[Row]:
        yield from modulated(theirs, ours)
        yield Row(f"{theirs}.bias", f"{ours}.bias", _BIAS)

    def rows() -> Iterator[Row]:
        for index in range(config.mapping_layers):
            yield from pair(f"style.{index + 1}", f"mapping.fc{index}")
        yield Row(_INPUT, "synthesis.b4.const", with_unit_axes(4, leading=1))
        yield from layer("conv1", "synthesis.b4.conv1", 0)
        yield from rgb("to_rgb1", "synthesis.b4.torgb")
        for k in range(num):
            block = f"synthesis.b{8 << k}"
            yield from layer(f"convs.{2 * k}", f"{block}.conv0", 2 * k + 1)
            yield from layer(f"convs.{2 * k + 1}", f"{block}.conv1", 2 * k + 2)
            yield from rgb(f"to_rgbs.{k}", f"{block}.torgb")

    return NameMap(rows(), constants=constants)


def _discriminator_names(config: DiscriminatorConfig) -> NameMap:
    """Return the names of all tensors of a discriminator in the file and in our network."""
    num = config.size.doublings
    kernel = fir_kernel(RESAMPLE_TAPS)
    constants: dict[str, Tensor] = {}
    for m in range(1, num + 1):
        constants |= {f"convs.{m}.conv2.0.kernel": kernel, f"convs.{m}.skip.0.kernel": kernel}

    def conv(weight: str, bias: str, ours: str) -> Iterator[Row]:
        yield Row(weight, f"{ours}.weight")
        yield Row(bias, f"{ours}.bias")

    def rows() -> Iterator[Row]:
        yield from conv("convs.0.0.weight", "convs.0.1.bias", f"b{config.size.nominal}.fromrgb")
        for m in range(1, num + 1):
            block, there = f"b{config.size.nominal >> (m - 1)}", f"convs.{m}"
            yield from conv(f"{there}.conv1.0.weight", f"{there}.conv1.1.bias", f"{block}.conv0")
            yield from conv(f"{there}.conv2.1.weight", f"{there}.conv2.2.bias", f"{block}.conv1")
            yield Row(f"{there}.skip.1.weight", f"{block}.skip.weight")
        yield from conv("final_conv.0.weight", "final_conv.1.bias", "b4.conv")
        yield from pair("final_linear.0", "b4.fc")
        yield from pair("final_linear.1", "b4.out")

    return NameMap(rows(), constants=constants)


def _check_expressible(config: GeneratorConfig | DiscriminatorConfig, name: str) -> None:
    """Raise WeightsError for options that the program does not have."""
    is_generator = isinstance(config, GeneratorConfig)
    architecture = "skip" if is_generator else "resnet"
    if config.architecture != architecture:
        raise _inexpressible(name, f"architecture {config.architecture}", architecture)
    if config.c_dim > 0:
        raise _inexpressible(name, f"labels (c_dim {config.c_dim})", "no labels")
    if config.img_channels != 3:
        raise _inexpressible(name, f"{config.img_channels} image channels", "3")
    if isinstance(config, GeneratorConfig):
        width = config.mapping_width or config.w_dim
        if not config.z_dim == config.w_dim == width:
            sizes = f"z_dim {config.z_dim}, w_dim {config.w_dim}, mapping_width {width}"
            raise _inexpressible(name, sizes, "one width for all three")
    elif (config.mbstd_group_size, config.mbstd_num_channels) != (4, 1):
        groups = f"{config.mbstd_group_size} and {config.mbstd_num_channels}"
        raise _inexpressible(name, f"minibatch group and channels {groups}", "4 and 1")
    if not config.size.is_power_of_two:
        raise _inexpressible(
            name,
            f"images of {config.size}",
            "square ones, a power of two",
            fix="convert to native",
        )
    resolutions = block_resolutions(config.size)
    widths = {r: channels_at(config, r) for r in resolutions}
    multiplier = max(widths.get(64, 512) // 256, 1)
    table = {r: _WIDTH if r <= 32 else 256 * multiplier * 64 // r for r in resolutions}
    if widths != table:
        raise _inexpressible(name, f"channels {widths}", f"channels {table}")


def _inexpressible(
    name: str, option: str, expected: str, *, fix: str = "convert to nvidia or native"
) -> WeightsError:
    return WeightsError(
        f"{name} has {option}, which rosinality files do not support",
        expected=expected,
        fix=fix,
    )
