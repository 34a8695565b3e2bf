"""StyleGAN2's TensorFlow networks: configurations B to F, and ADA.

Configuration A has StyleGAN's networks, see `tensorflow_stylegan.py`.

Source: the names and layouts of Karras et al. 2020 (StyleGAN2, ADA), as observed.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from stylegan.image_size import ImageSize
from stylegan.interop.naming import (
    SAME,
    TF_CONV,
    TF_DENSE,
    TF_FLIPPED_CONV,
    Layout,
    NameMap,
    Row,
    multiplied,
    shifted,
    tf_pair,
    with_unit_axes,
)
from stylegan.interop.shapes import (
    Shapes,
    architecture_of,
    channels_of,
    check_agreement,
    check_supported,
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
from stylegan.interop.tensorflow_pickle import NETWORK_NAMES, TensorFlowNetwork
from stylegan.interop.tensorflow_stylegan import LODS, set_lod
from stylegan.models.base import Networks
from stylegan.models.io import fill
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)
from stylegan.nn.mapping import LR_MULTIPLIER

_CONST = "synthesis/4x4/Const/const"
_BLOCK = r"synthesis/(\d{1,6})x\1/"
_SUPPORTED = {
    "resample_kernel": [1, 3, 3, 1],
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "normalize_latents": True,
    "fmap_decay": 1.0,
}


def is_stylegan2(network: TensorFlowNetwork) -> bool:
    """Return whether a network is of configurations B to F rather than StyleGAN or ProGAN."""
    return "Output/weight" in network.variables or any(
        name.endswith("/mod_weight") for name in network.variables
    )


def networks_of(networks_by_key: dict[str, TensorFlowNetwork], origin: str) -> Networks:
    """Build our networks from those of a TensorFlow pickle.

    Sizes and architecture are read from the variables' shapes, and must agree with the arguments
    that the file records. Every variable is used, and a growing network gets the file's lod.

    Args:
        networks_by_key: networks by their official names. The dictionary is emptied, so that each
            can be freed once ours is built.
        origin: the file, for errors.

    Raises:
        WeightsError: if a network is not StyleGAN2, contradicts itself, or has variables missing
            or left over.
    """
    networks = Networks()
    generated = _generated_size(networks_by_key, origin)
    for key in list(networks_by_key):
        network, place = networks_by_key.pop(key), f"{origin} ({key})"
        shapes = shapes_of(network.variables)
        built: Generator | Discriminator
        with refusing_impossible_configs(place):
            if key == "D":
                critic = _discriminator_config(network, shapes, place, generated)
                names = _discriminator_names(critic, _lr_ratio(network, critic, place))
                tensors = names.read(network.variables, origin=place)
                built = fill(partial(Discriminator, critic), tensors, origin=place)
            else:
                config = _generator_config(network, shapes, place)
                names = _generator_names(config, _lr_ratio(network, config, place))
                tensors = names.read(network.variables, origin=place)
                built = fill(partial(Generator, config), tensors, origin=place)
        if built.is_growing:
            set_lod(built, network.variables, place)
        setattr(networks, NETWORK_NAMES[key], built)
    return networks


def _generated_size(networks: Mapping[str, TensorFlowNetwork], origin: str) -> ImageSize | None:
    """Return the size of the images of a generator, if there is one."""
    for key in ("Gs", "G"):
        shapes = shapes_of(networks[key].variables) if key in networks else {}
        if _CONST in shapes:
            resolutions = resolutions_of(shapes, _BLOCK, f"{origin} ({key})")
            return size_from_constant(shapes, _CONST, resolutions, f"{origin} ({key})")
    return None


def _generator_config(network: TensorFlowNetwork, shapes: Shapes, origin: str) -> GeneratorConfig:
    """Read a generator's options from its variables, and compare them with its arguments."""
    if _CONST not in shapes:
        raise refusal(
            f"{origin} is a {network.build_func_name!a} that is not StyleGAN2",
            "a StyleGAN2 generator",
        )
    recorded = _recorded(network)
    resolutions = resolutions_of(shapes, _BLOCK, origin)
    top = resolutions[-1]
    size = size_from_constant(shapes, _CONST, resolutions, origin)
    is_growing = "synthesis/ToRGB_lod0/weight" in shapes
    rgb = "ToRGB_lod0" if is_growing else f"{top}x{top}/ToRGB"
    architecture = architecture_of(
        shapes, "synthesis/4x4/ToRGB/weight", f"synthesis/{top}x{top}/Skip/weight"
    )
    joint, separate = "mapping/LabelConcat/weight", "mapping/LabelEmbed/weight"
    label = joint if joint in shapes else separate if separate in shapes else None
    num_layers = count_layers(shapes, "mapping/Dense", "/weight")
    c_dim = size_of(shapes, label, 0, origin) if label else 0
    z_dim = size_of(shapes, "mapping/Dense0/weight", 0, origin)
    z_dim -= size_of(shapes, label, 1, origin) if label else 0
    width = size_of(shapes, "mapping/Dense0/weight", 1, origin)
    w_dim = size_of(shapes, f"mapping/Dense{num_layers - 1}/weight", 1, origin)
    img_channels = size_of(shapes, f"synthesis/{rgb}/weight", 3, origin)
    values: dict[str, object] = {
        "latent_size": z_dim,
        "label_size": c_dim,
        "dlatent_size": w_dim,
        "resolution": recorded_size(size),
        "num_channels": img_channels,
        "mapping_layers": num_layers,
    }
    if not is_growing:
        values["architecture"] = architecture
    check_agreement(values, recorded, origin)
    check_supported(_SUPPORTED, recorded, origin)
    widths = {
        r: size_of(shapes, f"synthesis/{r}x{r}/Conv1/weight", 3, origin) for r in resolutions[1:]
    }
    widths[4] = size_of(shapes, "synthesis/4x4/Conv/weight", 3, origin)
    channel_base, channel_max = channels_of(widths, recorded, origin)
    return GeneratorConfig(
        resolution=size.stored,
        img_channels=img_channels,
        z_dim=z_dim,
        w_dim=w_dim,
        c_dim=c_dim,
        mapping_layers=num_layers,
        mapping_width=None if width == w_dim else width,
        label_norm="joint" if label == joint else "separate",
        architecture="growing" if is_growing else architecture,
        channel_base=channel_base,
        channel_max=channel_max,
    )


def _discriminator_config(
    network: TensorFlowNetwork, shapes: Shapes, origin: str, generated: ImageSize | None
) -> DiscriminatorConfig:
    """Read a discriminator's options from its variables, and compare them with its arguments.

    `generated` is the size of the images of a generator in the same file, if there is one.
    """
    if "Output/weight" not in shapes:
        raise refusal(
            f"{origin} is a {network.build_func_name!a} that is not StyleGAN2",
            "a StyleGAN2 discriminator",
        )
    recorded = _recorded(network)
    resolutions = resolutions_of(shapes, r"(\d{1,6})x\1/", origin)
    top = resolutions[-1]
    size = size_from_dense(
        size_of(shapes, "4x4/Dense0/weight", 0, origin),
        size_of(shapes, "4x4/Conv/weight", 3, origin),
        resolutions,
        origin,
        generated=generated,
    )
    is_growing = "FromRGB_lod0/weight" in shapes
    rgb = "FromRGB_lod0" if is_growing else f"{top}x{top}/FromRGB"
    architecture = architecture_of(shapes, "4x4/FromRGB/weight", f"{top}x{top}/Skip/weight")
    num_outputs = size_of(shapes, "Output/weight", 1, origin)
    has_projection = "LabelEmbed/weight" in shapes
    if has_projection:
        c_dim = size_of(shapes, "LabelEmbed/weight", 0, origin)
    else:
        # A single output may mean no labels, or labels of one class.
        c_dim = num_outputs if num_outputs > 1 or recorded.get("label_size") == 1 else 0
    img_channels = size_of(shapes, f"{rgb}/weight", 2, origin)
    values: dict[str, object] = {
        "label_size": c_dim,
        "resolution": recorded_size(size),
        "num_channels": img_channels,
    }
    if not is_growing:
        values["architecture"] = architecture
    check_agreement(values, recorded, origin)
    check_supported(_SUPPORTED, recorded, origin)
    widths = {r: size_of(shapes, f"{r}x{r}/Conv0/weight", 3, origin) for r in resolutions[1:]}
    widths[4] = size_of(shapes, "4x4/Conv/weight", 3, origin)
    channel_base, channel_max = channels_of(widths, recorded, origin)
    group_size = recorded.get("mbstd_group_size", 4)
    if not isinstance(group_size, int):
        raise refusal(f"{origin} has minibatch groups of another kind", "a whole number")
    return DiscriminatorConfig(
        resolution=size.stored,
        img_channels=img_channels,
        c_dim=c_dim,
        architecture="growing" if is_growing else architecture,
        channel_base=channel_base,
        channel_max=channel_max,
        label_head="select" if c_dim > 0 and not has_projection else "projection",
        mapping_layers=count_layers(shapes, "Mapping", "/weight")
        if has_projection
        else DiscriminatorConfig.mapping_layers,
        mbstd_group_size=group_size,
        mbstd_num_channels=size_of(shapes, "4x4/Conv/weight", 2, origin) - widths[4],
    )


def _recorded(network: TensorFlowNetwork) -> dict[str, object]:
    """Return the file's arguments, with the widths also under the names of the PyTorch code."""
    recorded = dict(network.static_kwargs)
    if isinstance(base := recorded.get("fmap_base"), int):
        recorded["channel_base"] = 2 * base
    if isinstance(top := recorded.get("fmap_max"), int):
        recorded["channel_max"] = top
    return recorded


def _lr_ratio(
    network: TensorFlowNetwork, config: GeneratorConfig | DiscriminatorConfig, origin: str
) -> float:
    """Return the learning-rate multiplier of a mapping network's layers, divided by ours.

    Where the file does not record it, it is 0.01 in generators and 0.1 in ADA's discriminators,
    whose mapping networks have no layers by default.
    """
    default = LR_MULTIPLIER if isinstance(config, GeneratorConfig) else 0.1
    multiplier = network.static_kwargs.get("mapping_lrmul")
    is_unknown = multiplier is None or config.mapping_layers == 0
    return lr_ratio(default if is_unknown else multiplier, origin)


def _mapping_rows(theirs: str, num_layers: int, ratio: float) -> Iterator[Row]:
    """Give the rows of a mapping network's layers, scaled by `_lr_ratio`."""
    weight, bias = multiplied(TF_DENSE, ratio), multiplied(SAME, ratio)
    for index in range(num_layers):
        yield from tf_pair(f"{theirs}{index}", f"mapping.fc{index}", weight, bias=bias)


def _generator_names(config: GeneratorConfig, ratio: float) -> NameMap:
    """Return the names of all tensors of a generator in the file and in our network."""

    def mapping() -> Iterator[Row]:
        if config.c_dim > 0 and config.label_norm == "joint":
            yield Row("mapping/LabelConcat/weight", "mapping.embed.weight", TF_DENSE)
        elif config.c_dim > 0:
            yield from tf_pair("mapping/LabelEmbed", "mapping.embed", TF_DENSE)
        yield from _mapping_rows("mapping/Dense", config.mapping_layers, ratio)
        yield Row("dlatent_avg", "mapping.w_avg")

    def styled(theirs: str, ours: str, layout: Layout) -> Iterator[Row]:
        yield from tf_pair(theirs, ours, layout)
        yield Row(f"{theirs}/mod_weight", f"{ours}.affine.weight", TF_DENSE)
        # TensorFlow adds 1 at run time, so its biases start at 0.
        yield Row(f"{theirs}/mod_bias", f"{ours}.affine.bias", shifted(1.0))

    def layer(theirs: str, ours: str, noise: int, layout: Layout = TF_CONV) -> Iterator[Row]:
        yield from styled(theirs, ours, layout)
        yield Row(f"{theirs}/noise_strength", f"{ours}.noise_strength")
        yield Row(f"synthesis/noise{noise}", f"{ours}.noise_const", with_unit_axes(4, leading=2))

    def synthesis() -> Iterator[Row]:
        yield Row(_CONST, "synthesis.b4.const", with_unit_axes(4, leading=1))
        yield from layer("synthesis/4x4/Conv", "synthesis.b4.conv1", 0)
        top = config.size.nominal.bit_length() - 1
        for level in range(2, top + 1):
            r = 2**level
            theirs, ours = f"synthesis/{r}x{r}", f"synthesis.b{r}"
            if r > 4:
                up = f"{theirs}/Conv0_up"
                yield from layer(up, f"{ours}.conv0", 2 * level - 5, TF_FLIPPED_CONV)
                yield from layer(f"{theirs}/Conv1", f"{ours}.conv1", 2 * level - 4)
                if config.architecture == "resnet":
                    yield Row(f"{theirs}/Skip/weight", f"{ours}.skip.weight", TF_CONV)
            if config.architecture == "growing":
                yield from styled(f"synthesis/ToRGB_lod{top - level}", f"{ours}.torgb", TF_CONV)
            elif config.architecture == "skip" or level == top:
                yield from styled(f"{theirs}/ToRGB", f"{ours}.torgb", TF_CONV)

    return NameMap([*mapping(), *synthesis()], ignored=LODS)


def _discriminator_names(config: DiscriminatorConfig, ratio: float) -> NameMap:
    """Return the names of all tensors of a discriminator in the file and in our network."""

    def rows() -> Iterator[Row]:
        top = config.size.nominal.bit_length() - 1
        for level in range(top, 1, -1):
            r = 2**level
            if config.architecture == "growing":
                yield from tf_pair(f"FromRGB_lod{top - level}", f"b{r}.fromrgb", TF_CONV)
            elif config.architecture == "skip" or level == top:
                yield from tf_pair(f"{r}x{r}/FromRGB", f"b{r}.fromrgb", TF_CONV)
            if r > 4:
                yield from tf_pair(f"{r}x{r}/Conv0", f"b{r}.conv0", TF_CONV)
                yield from tf_pair(f"{r}x{r}/Conv1_down", f"b{r}.conv1", TF_CONV)
                if config.architecture == "resnet":
                    yield Row(f"{r}x{r}/Skip/weight", f"b{r}.skip.weight", TF_CONV)
        yield from tf_pair("4x4/Conv", "b4.conv", TF_CONV)
        yield from tf_pair("4x4/Dense0", "b4.fc", TF_DENSE)
        yield from tf_pair("Output", "b4.out", TF_DENSE)
        if config.c_dim > 0 and config.label_head == "projection":
            yield from tf_pair("LabelEmbed", "mapping.embed", TF_DENSE)
            yield from _mapping_rows("Mapping", config.mapping_layers, ratio)

    return NameMap(rows(), ignored=LODS)
