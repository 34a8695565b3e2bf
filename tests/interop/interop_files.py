"""Write files in the layouts of other programs, honest and hostile ones."""

import sys
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from stylegan.models.stylegan2 import Generator
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel


class Persistent:
    """An object that pickles like an official module."""

    def __init__(self, meta: dict[str, object]) -> None:
        self.meta = meta

    def __reduce__(self):
        function = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        return (function, (self.meta,))


def persistent(
    class_name: str,
    tensors: Mapping[str, Tensor],
    *,
    init_args: tuple[object, ...] = (),
    init_kwargs: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    source: str = "",
) -> Persistent:
    """Nest a state dict as the official modules nest it."""
    children: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        head, _, tail = name.partition(".")
        if tail:
            children.setdefault(head, {})[tail] = tensor
        else:
            own[name] = tensor
    state = {
        "training": False,
        "_parameters": {k: torch.nn.Parameter(v) for k, v in own.items() if "const" not in k},
        "_buffers": {k: v for k, v in own.items() if "const" in k},
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": {name: persistent("Layer", child) for name, child in children.items()},
        "_init_args": init_args,
        "_init_kwargs": dict(init_kwargs or {}),
        **(attributes or {}),
    }
    meta = {"type": "class", "version": 6, "module_src": source}
    return Persistent(meta | {"class_name": class_name, "state": state})


def basicsr_tensors(network: Generator, gain: float = 4.0) -> dict[str, Tensor]:
    """Write a generator under the names of BasicSR."""
    ours, theirs = network.state_dict(), {}
    kernel = fir_kernel(RESAMPLE_TAPS) * gain
    for index in range(network.config.mapping_layers):
        theirs[f"style_mlp.{index + 1}.weight"] = ours[f"mapping.fc{index}.weight"]
        theirs[f"style_mlp.{index + 1}.bias"] = ours[f"mapping.fc{index}.bias"]

    def conv(there: str, here: str) -> None:
        theirs[f"{there}.modulated_conv.weight"] = ours[f"{here}.weight"][None]
        for kind in ("weight", "bias"):
            name = f"{there}.modulated_conv.modulation.{kind}"
            theirs[name] = ours[f"{here}.affine.{kind}"]

    def layer(there: str, here: str, noise: int) -> None:
        conv(there, here)
        theirs[f"{there}.weight"] = ours[f"{here}.noise_strength"][None]
        theirs[f"{there}.activate.bias"] = ours[f"{here}.bias"]
        theirs[f"noises.noise{noise}"] = ours[f"{here}.noise_const"][None, None]

    def rgb(there: str, here: str) -> None:
        conv(there, here)
        theirs[f"{there}.bias"] = ours[f"{here}.bias"].reshape(1, -1, 1, 1)

    theirs["constant_input.weight"] = ours["synthesis.b4.const"][None]
    layer("style_conv1", "synthesis.b4.conv1", 0)
    rgb("to_rgb1", "synthesis.b4.torgb")
    for k, side in enumerate(network.synthesis.resolutions[1:]):
        layer(f"style_convs.{2 * k}", f"synthesis.b{side}.conv0", 2 * k + 1)
        layer(f"style_convs.{2 * k + 1}", f"synthesis.b{side}.conv1", 2 * k + 2)
        rgb(f"to_rgbs.{k}", f"synthesis.b{side}.torgb")
        theirs[f"style_convs.{2 * k}.modulated_conv.smooth.kernel"] = kernel
        theirs[f"to_rgbs.{k}.upsample.kernel"] = kernel
    return theirs
