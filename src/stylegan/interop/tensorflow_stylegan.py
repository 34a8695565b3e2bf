"""ProGAN and StyleGAN networks of official TensorFlow pickles.

The architecture is read from the names and shapes of the variables, and must agree with the
arguments that the file records. The family follows from the names of the variables, as the version
numbers of the files do not identify it.

Source: the variables of Karras et al. 2018 and 2019's weight files, as observed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

from stylegan.image_size import ImageSize
from stylegan.interop.naming import (
    TF_CONV,
    TF_DENSE,
    TF_FLIPPED_CONV,
    Layout,
    NameMap,
    Row,
    tf_pair,
    with_unit_axes,
)
from stylegan.interop.restricted import quoted
from stylegan.interop.shapes import (
    Shapes,
    channels_of,
    check_agreement,
    check_supported,
    count_layers,
    recorded_size,
    refusal,
    resolutions_of,
    shapes_of,
    size_from_constant,
    size_from_dense,
    size_of,
)
from stylegan.interop.tensorflow_pickle import NETWORK_NAMES, TensorFlowNetwork
from stylegan.models import progan, stylegan
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator, Networks
from stylegan.models.growth import max_lod
from stylegan.models.io import fill

Family = Literal["progan", "stylegan"]
Built = TypeVar("Built", bound=AbstractGenerator | AbstractDiscriminator)

_BLOCK = r"(\d{1,6})x\d+/"
_CONST = "synthesis/4x4/Const/const"
# The kernels of joined up-convolutions are [3, 3, out, in] in ProGAN's repository.
_FLIPPED_OUT_IN = Layout(
    ndim=4,
    read=lambda x: x.permute(2, 3, 0, 1).flip(2, 3),
    write=lambda x: x.flip(2, 3).permute(2, 3, 0, 1),
)
_FUSED = {"auto": 128, True: 8, False: math.inf}  # smallest size of a joined up-convolution
LODS = ("synthesis/lod", "lod")
"""Variables that hold the level of detail; the first one that exists counts."""
_COMMON: dict[str, object] = {"use_wscale": True, "fmap_decay": 1, "normalize_latents": True}
_PROGAN: dict[str, object] = {
    **_COMMON,
    "use_leakyrelu": True,
    "use_pixelnorm": True,
    "pixelnorm_epsilon": 1e-8,
    "tanh_at_end": False,
}
_STYLEGAN: dict[str, object] = {
    **_COMMON,
    "nonlinearity": "lrelu",
    "blur_filter": [1, 2, 1],
    "mapping_lrmul": 0.01,
    "mapping_nonlinearity": "lrelu",
}


def family_of_tensorflow(networks: Mapping[str, TensorFlowNetwork]) -> Family | None:
    """Return the family of the networks of one file; None if it is neither of the two.

    The generator decides, as discriminators differ only in blurring, which no variable shows.
    Without a generator, the name of the function that built the discriminator decides.
    """
    for key in ("Gs", "G"):
        if key in networks:
            names = networks[key].variables
            if "4x4/Dense/weight" in names:
                return "progan"
            is_styled2 = "synthesis/ToRGB_lod0/mod_weight" in names
            return "stylegan" if "synthesis/ToRGB_lod0/weight" in names and not is_styled2 else None
    for network in networks.values():
        if {"FromRGB_lod0/weight", "4x4/Dense1/weight"} <= network.variables.keys():
            is_progan = "8x8/Conv1/weight" in network.variables or network.version <= 2
            return "progan" if is_progan or network.build_func_name == "D_paper" else "stylegan"
    return None


def networks_of(networks_by_key: dict[str, TensorFlowNetwork], origin: str) -> Networks:
    """Build our networks from those of a TensorFlow pickle.

    Args:
        networks_by_key: networks by their official names. The dictionary is emptied, so that each
            can be freed once ours is built.
        origin: the file, for errors.

    Raises:
        WeightsError: as `build_progan`.
    """
    family = family_of_tensorflow(networks_by_key)
    if family is None:
        raise refusal(f"{origin} holds no ProGAN or StyleGAN network", "a ProGAN or StyleGAN file")
    build = {"progan": build_progan, "stylegan": build_stylegan}[family]
    networks = Networks()
    generated: ImageSize | None = None
    # the discriminator last, whose base a generator may decide
    for key in sorted(networks_by_key, key=lambda key: key == "D"):
        built = build(networks_by_key.pop(key), origin=f"{origin} ({key})", generated=generated)
        setattr(networks, NETWORK_NAMES[key], built)
        generated = built.img_size
    return networks


def build_progan(
    network: TensorFlowNetwork, *, origin: str, generated: ImageSize | None = None
) -> progan.Generator | progan.Discriminator:
    """Build one network of a ProGAN file.

    Args:
        network: G, Gs or D.
        origin: the file and network, for the errors.
        generated: size of the images of a generator in the same file; None if there is none.

    Raises:
        WeightsError: if it is another network, contradicts itself, needs a computation that our
            networks lack, or has tensors missing or left over.
    """
    recorded = network.static_kwargs
    check_supported(_PROGAN, recorded, origin)
    if "FromRGB_lod0/weight" in network.variables:
        options = _discriminator_options(network, origin, generated)
        c_dim = options.num_outputs - 1
        check_agreement({"label_size": c_dim}, recorded, origin)
        d_config = progan.DiscriminatorConfig
        return _filled(
            network,
            lambda: progan.Discriminator(
                d_config(
                    **options.sizes, **options.mbstd, c_dim=c_dim, fused_scale=options.is_fused
                )
            ),
            options.names,
            origin,
        )
    shapes = shapes_of(network.variables)
    blocks = resolutions_of(shapes, _BLOCK, origin)
    widths = _generator_widths(shapes, "", blocks, origin)
    num_features = size_of(shapes, "4x4/Dense/weight", 1, origin)
    size = size_from_dense(num_features, widths[4], blocks, origin)
    sizes = _sizes(network, widths, size, "ToRGB_lod0/bias", 0, origin)
    c_dim = _whole(recorded, "label_size", 0, origin)
    z_dim = size_of(shapes, "4x4/Dense/weight", 0, origin) - c_dim
    check_agreement({"latent_size": z_dim}, recorded, origin)

    def rows() -> Iterator[Row]:
        yield from tf_pair("4x4/Dense", "synthesis.b4.dense", TF_DENSE)
        yield from tf_pair("4x4/Conv", "synthesis.b4.conv", TF_CONV)
        layout = _progan_up(network, widths, origin)
        for r in blocks[1:]:
            # The name shows whether upsampling and convolution are one operation.
            is_fused = f"{r}x{r}/Conv0_up/weight" in shapes
            name = f"{r}x{r}/{'Conv0_up' if is_fused else 'Conv0'}"
            yield from tf_pair(name, f"synthesis.b{r}.conv0", layout if is_fused else TF_CONV)
            yield from tf_pair(f"{r}x{r}/Conv1", f"synthesis.b{r}.conv1", TF_CONV)
        yield from _rgb_rows("ToRGB_lod", "synthesis.b{}.torgb", blocks)

    return _filled(
        network,
        lambda: progan.Generator(progan.GeneratorConfig(**sizes, z_dim=z_dim, c_dim=c_dim)),
        NameMap(rows(), ignored=LODS),
        origin,
    )


def build_stylegan(
    network: TensorFlowNetwork, *, origin: str, generated: ImageSize | None = None
) -> stylegan.Generator | stylegan.Discriminator:
    """Build one network of a StyleGAN file: configurations B to F.

    Arguments and errors as `build_progan`.
    """
    recorded = network.static_kwargs
    check_supported(_STYLEGAN, recorded, origin)
    if recorded.get("blur_filter", 1) is None:  # None means no filter here
        raise refusal(f"{origin} was made with blur_filter = None", "blur_filter = [1, 2, 1]")
    if "FromRGB_lod0/weight" in network.variables:
        options = _discriminator_options(network, origin, generated)
        # A single output may mean no labels, or labels of one class.
        c_dim = options.num_outputs if options.num_outputs > 1 else 0
        if c_dim == 0 and _whole(recorded, "label_size", 0, origin) == 1:
            c_dim = 1
        check_agreement({"label_size": c_dim}, recorded, origin)
        return _filled(
            network,
            lambda: stylegan.Discriminator(
                stylegan.DiscriminatorConfig(**options.sizes, **options.mbstd, c_dim=c_dim)
            ),
            options.names,
            origin,
        )
    shapes = shapes_of(network.variables)
    blocks = resolutions_of(shapes, "synthesis/" + _BLOCK, origin)
    widths = _generator_widths(shapes, "synthesis/", blocks, origin)
    size = _generated_size(shapes, widths[4], blocks, origin)
    sizes = _sizes(network, widths, size, "synthesis/ToRGB_lod0/bias", 0, origin)
    w_dim = size_of(shapes, "dlatent_avg", 0, origin)
    z_dim, c_dim, num_layers, width = _mapping_sizes(shapes, w_dim, origin)
    constant_input = _CONST in shapes
    first = "Const" if constant_input else "Dense"
    styles = f"synthesis/4x4/{first}/StyleMod/weight" in shapes
    noise = "synthesis/noise0" in shapes
    values = {
        "latent_size": z_dim,
        "label_size": c_dim,
        "dlatent_size": w_dim,
        "mapping_layers": num_layers,
        **({"mapping_fmaps": width or w_dim} if num_layers > 1 else {}),
        "const_input_layer": constant_input,
        "use_styles": styles,
        "use_instance_norm": styles,
        "use_pixel_norm": not styles,
        "use_noise": noise,
    }
    check_agreement(values, recorded, origin)
    first_fused = _first_fused(recorded.get("fused_scale", "auto"), origin)

    def rows() -> Iterator[Row]:
        yield Row("dlatent_avg", "mapping.w_avg")
        for i in range(num_layers):
            yield from tf_pair(f"mapping/Dense{i}", f"mapping.fc{i}", TF_DENSE)
        if c_dim > 0:
            yield Row("mapping/LabelConcat/weight", "mapping.embed.weight", TF_DENSE)
        for index, r in enumerate(blocks):
            layers = [("Conv0_up", "conv0"), ("Conv1", "conv1")]
            if r == 4:
                layers = [(first, "input"), ("Conv", "conv1")]
            for number, (theirs, ours) in enumerate(layers, start=2 * index):
                name, layer = f"synthesis/{r}x{r}/{theirs}", f"synthesis.b{r}.{ours}"
                if theirs == "Const":
                    yield Row(f"{name}/const", f"{layer}.const", with_unit_axes(4, leading=1))
                elif theirs == "Dense":
                    yield Row(f"{name}/weight", f"{layer}.weight", TF_DENSE)
                else:
                    is_flipped = theirs == "Conv0_up" and r >= first_fused
                    layout = TF_FLIPPED_CONV if is_flipped else TF_CONV
                    yield Row(f"{name}/weight", f"{layer}.weight", layout)
                yield Row(f"{name}/bias", f"{layer}.bias")
                if styles:
                    yield from tf_pair(f"{name}/StyleMod", f"{layer}.affine", TF_DENSE)
                if noise:
                    yield Row(f"{name}/Noise/weight", f"{layer}.noise_strength")
                    stored = f"synthesis/noise{number}"
                    yield Row(stored, f"{layer}.noise_const", with_unit_axes(4, leading=2))
        yield from _rgb_rows("synthesis/ToRGB_lod", "synthesis.b{}.torgb", blocks)

    return _filled(
        network,
        lambda: stylegan.Generator(
            stylegan.GeneratorConfig(
                **sizes,
                z_dim=z_dim,
                w_dim=w_dim,
                c_dim=c_dim,
                mapping_layers=num_layers,
                mapping_width=width,
                styles=styles,
                constant_input=constant_input,
                noise=noise,
            )
        ),
        NameMap(rows(), ignored=LODS),
        origin,
    )


@dataclass(frozen=True, kw_only=True)
class _DiscriminatorOptions:
    """Options of a discriminator of either family, read from its variables."""

    sizes: dict[str, Any]
    mbstd: dict[str, int]
    num_outputs: int
    is_fused: bool
    names: NameMap


def _discriminator_options(
    network: TensorFlowNetwork, origin: str, generated: ImageSize | None
) -> _DiscriminatorOptions:
    shapes = shapes_of(network.variables)
    blocks = resolutions_of(shapes, _BLOCK, origin)
    widths = {r: size_of(shapes, f"{r}x{r}/Conv0/weight", -1, origin) for r in blocks[1:]}
    widths[4] = size_of(shapes, "4x4/Conv/weight", -1, origin)
    is_fused = "8x8/Conv1_down/weight" in shapes
    num_features = size_of(shapes, "4x4/Dense0/weight", 0, origin)
    size = size_from_dense(num_features, widths[4], blocks, origin, generated=generated)

    def rows() -> Iterator[Row]:
        yield from _rgb_rows("FromRGB_lod", "b{}.fromrgb", blocks)
        for r in blocks[1:]:
            yield from tf_pair(f"{r}x{r}/Conv0", f"b{r}.conv0", TF_CONV)
            down = "Conv1_down" if is_fused else "Conv1"
            yield from tf_pair(f"{r}x{r}/{down}", f"b{r}.conv1", TF_CONV)
        yield from tf_pair("4x4/Conv", "b4.conv", TF_CONV)
        yield from tf_pair("4x4/Dense0", "b4.fc", TF_DENSE)
        yield from tf_pair("4x4/Dense1", "b4.out", TF_DENSE)

    return _DiscriminatorOptions(
        sizes=_sizes(network, widths, size, "FromRGB_lod0/weight", 2, origin),
        mbstd={
            # Without a record: the preset with separate operations had groups of 16.
            "mbstd_group_size": _whole(
                network.static_kwargs, "mbstd_group_size", 4 if is_fused else 16, origin
            ),
            "mbstd_num_channels": size_of(shapes, "4x4/Conv/weight", 2, origin) - widths[4],
        },
        num_outputs=size_of(shapes, "4x4/Dense1/bias", 0, origin),
        is_fused=is_fused,
        names=NameMap(rows(), ignored=LODS),
    )


def _generator_widths(
    shapes: Shapes, prefix: str, blocks: list[int], origin: str
) -> dict[int, int]:
    """Return the channels of a generator's blocks."""
    widths = {r: size_of(shapes, f"{prefix}{r}x{r}/Conv1/bias", 0, origin) for r in blocks[1:]}
    return {4: size_of(shapes, f"{prefix}4x4/Conv/bias", 0, origin), **widths}


def _sizes(
    network: TensorFlowNetwork,
    widths: Mapping[int, int],
    size: ImageSize,
    rgb: str,
    axis: int,
    origin: str,
) -> dict[str, Any]:
    """Return the options of every network; `axis` of variable `rgb` has the image channels."""
    img_channels = size_of(shapes_of(network.variables), rgb, axis, origin)
    values = {"resolution": recorded_size(size), "num_channels": img_channels}
    check_agreement(values, network.static_kwargs, origin)
    # fmap_base and fmap_max are not compared: the widths determine them, and some files record
    # another base.
    base, top = channels_of(widths, {}, origin)
    return {
        "resolution": size.stored,
        "img_channels": img_channels,
        "channel_base": base,
        "channel_max": top,
    }


def _generated_size(shapes: Shapes, channels: int, blocks: list[int], origin: str) -> ImageSize:
    """Return the size of a StyleGAN generator's images, from its constant or dense input."""
    if _CONST in shapes:
        return size_from_constant(shapes, _CONST, blocks, origin)
    num_features = size_of(shapes, "synthesis/4x4/Dense/weight", 1, origin)
    return size_from_dense(num_features, channels, blocks, origin)


def _mapping_sizes(shapes: Shapes, w_dim: int, origin: str) -> tuple[int, int, int, int | None]:
    """Return the widths of z and labels, and the mapping network's depth and inner width."""
    num_layers = count_layers(shapes, "mapping/Dense", "/weight")
    width = size_of(shapes, "mapping/Dense0/weight", 0, origin) if num_layers else w_dim
    inner = size_of(shapes, "mapping/Dense0/weight", 1, origin) if num_layers > 1 else w_dim
    c_dim = 0
    if "mapping/LabelConcat/weight" in shapes:
        c_dim = size_of(shapes, "mapping/LabelConcat/weight", 0, origin)
        width -= size_of(shapes, "mapping/LabelConcat/weight", 1, origin)
    return width, c_dim, num_layers, None if inner == w_dim else inner


def _progan_up(network: TensorFlowNetwork, widths: Mapping[int, int], origin: str) -> Layout:
    """Return the layout of a ProGAN generator's joined up-convolutions.

    They are [3, 3, out, in] in ProGAN's repository, and [3, 3, in, out] in the copy in StyleGAN's.
    Shapes decide if widths differ; otherwise the container's version does.
    """
    for r in sorted(widths)[1:]:
        name = f"{r}x{r}/Conv0_up/weight"
        if name in network.variables and widths[r] != widths[r // 2]:
            is_out_in = size_of(shapes_of(network.variables), name, 2, origin) == widths[r]
            return _FLIPPED_OUT_IN if is_out_in else TF_FLIPPED_CONV
    return _FLIPPED_OUT_IN if network.version <= 2 else TF_FLIPPED_CONV


def _first_fused(fused_scale: object, origin: str) -> float:
    """Return the smallest size at which upsampling and convolution are one operation."""
    if not isinstance(fused_scale, str | bool) or fused_scale not in _FUSED:
        raise refusal(
            f"{origin} was made with fused_scale = {quoted(fused_scale)}", "auto, true or false"
        )
    return _FUSED[fused_scale]


def _whole(recorded: Mapping[str, object], name: str, default: int, origin: str) -> int:
    """Return an argument that must be a whole number, 0 or more."""
    value = default if recorded.get(name) is None else recorded[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 30:
        raise refusal(f"{origin} says {name} = {quoted(value)}", "a whole number")
    return value


def _rgb_rows(theirs: str, ours: str, blocks: list[int]) -> Iterator[Row]:
    """Give the rows of the RGB layers, which are counted from the largest resolution."""
    for lod, r in enumerate(reversed(blocks)):
        yield from tf_pair(f"{theirs}{lod}", ours.format(r), TF_CONV)


def _filled(
    network: TensorFlowNetwork, build: Callable[[], Built], names: NameMap, origin: str
) -> Built:
    """Build one of our networks with a file's tensors and level of detail."""
    built = fill(build, names.read(network.variables, origin=origin), origin=origin)
    set_lod(built, network.variables, origin)
    return built


def set_lod(
    network: AbstractGenerator | AbstractDiscriminator,
    variables: Mapping[str, Tensor],
    origin: str,
) -> None:
    """Set a growing network to the level of detail that a file holds, if any.

    Raises:
        WeightsError: if it is not a single number, or out of range.
    """
    name = next((name for name in LODS if name in variables), None)
    if name is None:
        return
    lod = variables[name]
    try:
        network.lod = lod.float().item()
    except (RuntimeError, ValueError) as error:
        value = f"{lod.item():g}" if lod.numel() == 1 else f"{lod.numel()} numbers"
        raise refusal(
            f"{origin} has {name} = {value}",
            f"one number from 0 to {max_lod(network.img_resolution)}",
        ) from error
