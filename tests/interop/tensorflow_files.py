"""Write files in the layout of the official TensorFlow pickles, by the names of spec 14.2."""

import copyreg
import math
from collections.abc import Mapping

import numpy as np

from stylegan.models import stylegan
from stylegan.models.stylegan2 import Discriminator, Generator


class Network:
    """A network that pickles like an official one."""

    def __init__(
        self,
        name: str,
        variables: Mapping[str, np.ndarray],
        *,
        components: Mapping[str, "Network"] | None = None,
        build_func_name: str = "",
        static_kwargs: Mapping[str, object] | None = None,
        version: int = 4,
    ) -> None:
        self.state = {
            "version": version,
            "name": name,
            "static_kwargs": dict(static_kwargs or {}),
            "components": dict(components or {}),
            "build_module_src": "raise SystemExit",
            "build_func_name": build_func_name,
            # as TensorFlow's session gives them: without axes a numpy scalar, not an array
            "variables": [
                (key, np.float32(value) if getattr(value, "ndim", 1) == 0 else value)
                for key, value in variables.items()
            ],
        }

    def __reduce_ex__(self, protocol: int):
        return (copyreg.__newobj__, (type(self),), self.state)


def generator(name: str, network: Generator, *, ada: bool = False, **kwargs: object) -> Network:
    """Make the official form of a StyleGAN2 generator; `kwargs` are its recorded arguments."""
    config, state = network.config, {k: v.numpy() for k, v in network.state_dict().items()}
    mapping, synthesis = {}, {}
    for index in range(config.mapping_layers):
        mapping[f"Dense{index}/weight"] = state[f"mapping.fc{index}.weight"].T
        mapping[f"Dense{index}/bias"] = state[f"mapping.fc{index}.bias"]
    if config.c_dim:
        label = "LabelEmbed" if ada else "LabelConcat"
        mapping[f"{label}/weight"] = state["mapping.embed.weight"].T
        if ada:
            mapping[f"{label}/bias"] = state["mapping.embed.bias"]

    def styled(theirs: str, ours: str) -> None:
        synthesis[f"{theirs}/weight"] = conv(state[f"{ours}.weight"], flip="Conv0_up" in theirs)
        synthesis[f"{theirs}/bias"] = state[f"{ours}.bias"]
        synthesis[f"{theirs}/mod_weight"] = state[f"{ours}.affine.weight"].T
        synthesis[f"{theirs}/mod_bias"] = state[f"{ours}.affine.bias"] - 1

    def layer(theirs: str, ours: str, noise: int) -> None:
        styled(theirs, ours)
        synthesis[f"{theirs}/noise_strength"] = state[f"{ours}.noise_strength"]
        synthesis[f"noise{noise}"] = state[f"{ours}.noise_const"][None, None]

    synthesis["4x4/Const/const"] = state["synthesis.b4.const"][None]
    layer("4x4/Conv", "synthesis.b4.conv1", 0)
    for level in range(2, int(math.log2(config.size.nominal)) + 1):
        r = 1 << level
        if r > 4:
            layer(f"{r}x{r}/Conv0_up", f"synthesis.b{r}.conv0", 2 * level - 5)
            layer(f"{r}x{r}/Conv1", f"synthesis.b{r}.conv1", 2 * level - 4)
        if f"synthesis.b{r}.skip.weight" in state:
            synthesis[f"{r}x{r}/Skip/weight"] = conv(state[f"synthesis.b{r}.skip.weight"])
        lod = int(math.log2(config.size.nominal // r))
        if config.architecture == "growing":
            styled(f"ToRGB_lod{lod}", f"synthesis.b{r}.torgb")
        elif f"synthesis.b{r}.torgb.weight" in state:
            styled(f"{r}x{r}/ToRGB", f"synthesis.b{r}.torgb")
    if config.architecture == "growing":
        synthesis["lod"] = np.array(network.lod, np.float32)
    own = {"lod": np.array(0, np.float32), "dlatent_avg": state["mapping.w_avg"]}
    return Network(
        name,
        own,
        components={
            "mapping": Network("G_mapping", mapping, static_kwargs=kwargs),
            "synthesis": Network("G_synthesis", synthesis, static_kwargs=kwargs),
        },
        build_func_name="G_main",
        static_kwargs=kwargs,
    )


def discriminator(network: Discriminator, **kwargs: object) -> Network:
    """Make the official form of a StyleGAN2 discriminator."""
    config, state = network.config, {k: v.numpy() for k, v in network.state_dict().items()}
    variables = {}

    def put(theirs: str, ours: str) -> None:
        weight = state[f"{ours}.weight"]
        variables[f"{theirs}/weight"] = conv(weight) if weight.ndim == 4 else weight.T
        if f"{ours}.bias" in state:
            variables[f"{theirs}/bias"] = state[f"{ours}.bias"]

    for level in range(int(math.log2(config.size.nominal)), 1, -1):
        r = 1 << level
        lod = int(math.log2(config.size.nominal // r))
        if config.architecture == "growing":
            put(f"FromRGB_lod{lod}", f"b{r}.fromrgb")
        elif f"b{r}.fromrgb.weight" in state:
            put(f"{r}x{r}/FromRGB", f"b{r}.fromrgb")
        if r > 4:
            put(f"{r}x{r}/Conv0", f"b{r}.conv0")
            put(f"{r}x{r}/Conv1_down", f"b{r}.conv1")
        if f"b{r}.skip.weight" in state:
            put(f"{r}x{r}/Skip", f"b{r}.skip")
    put("4x4/Conv", "b4.conv")
    put("4x4/Dense0", "b4.fc")
    put("Output", "b4.out")
    if "mapping.embed.weight" in state:
        put("LabelEmbed", "mapping.embed")
        for index in range(config.mapping_layers):
            put(f"Mapping{index}", f"mapping.fc{index}")
    if config.architecture == "growing":
        variables["lod"] = np.array(network.lod, np.float32)
    return Network("D", variables, build_func_name="D_stylegan2", static_kwargs=kwargs)


def conv(weight: np.ndarray, *, flip: bool = False) -> np.ndarray:
    """Turn [O, I, k, k] to TensorFlow's [k, k, I, O]."""
    weight = weight[:, :, ::-1, ::-1] if flip else weight
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def classifier(name: str, network: stylegan.Discriminator, **kwargs: object) -> Network:
    """Make the official form of a StyleGAN discriminator, alone and of a name of its own."""
    state = {k: v.detach().numpy() for k, v in network.state_dict().items()}
    theirs = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down"}
    theirs |= {"conv": "Conv", "fc": "Dense0", "out": "Dense1"}
    variables = {"lod": np.array(0, np.float32)}
    for key, value in state.items():
        block, layer, part = key.split(".")
        side = int(block.removeprefix("b"))
        place = f"{side}x{side}/{theirs[layer]}"
        if layer == "fromrgb":
            place = f"FromRGB_lod{int(math.log2(network.img_resolution // side))}"
        layout = {4: conv, 2: np.transpose}.get(value.ndim, np.asarray)
        variables[f"{place}/{part}"] = layout(value)
    return Network(name, variables, static_kwargs=kwargs, build_func_name="D_basic", version=3)
