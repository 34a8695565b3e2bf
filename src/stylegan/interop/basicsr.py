"""StyleGAN2 of BasicSR, and the decoder of GFPGAN's first version, which is the same network.

The network is rosinality's under other names, so that the names are translated. Files without its
filters are of the variants "clean" and "bilinear", which upsample in another way: `unsupported`
refuses them.

Source: the names in public error messages about these files.
"""

import re
from collections.abc import Collection

from torch import Tensor

from stylegan.interop import rosinality
from stylegan.interop.shapes import refusing_impossible_configs
from stylegan.interop.torch_file import TorchFile
from stylegan.models.base import Networks

_FILTER = "style_convs.0.modulated_conv.smooth.kernel"  # of the first layer that upsamples
_NAMES = (
    (r"style_mlp\.", "style."),
    (r"constant_input\.weight$", "input.input"),
    (r"noises\.noise(\d+)$", r"noises.noise_\1"),
    (r"style_(conv1|convs\.\d+)\.weight$", r"\1.noise.weight"),
    (r"style_(conv1|convs\.\d+)\.modulated_conv\.smooth\.kernel$", r"\1.conv.blur.kernel"),
    (r"style_(conv1|convs\.\d+)\.modulated_conv\.", r"\1.conv."),
    (r"style_(conv1|convs\.\d+)\.activate\.", r"\1.activate."),
    (r"(to_rgb1|to_rgbs\.\d+)\.modulated_conv\.", r"\1.conv."),
)
"""Patterns of the names here, and rosinality's names; the first one that matches counts."""


def is_basicsr(file: TorchFile) -> bool:
    """Return whether a file of torch.save is of this kind."""
    return file.find(_FILTER) is not None


def networks_of(file: TorchFile, only: Collection[str] | None = None) -> Networks:
    """Build our averaged generator from an open file.

    The mean of w, which such files do not have, is computed, with a line in the log.

    Args:
        file: open, of this kind.
        only: our names of the networks to build; None for all.

    Raises:
        WeightsError: if tensors are missing, left over or of other shapes.
    """
    networks = Networks()
    place = file.find(_FILTER)
    assert place is not None
    if only is None or "generator_ema" in only:
        key, prefix = place
        stored = file.tensors(key, prefix=prefix)
        tensors = {_translated(name): _of_gain_4(name, tensor) for name, tensor in stored.items()}
        with refusing_impossible_configs(file.place(key)):
            networks.generator_ema = rosinality.generator_of(tensors, file, file.place(key))
    return networks


def _translated(name: str) -> str:
    """Return rosinality's name of a tensor; a name that is not known stays as it is."""
    for pattern, replacement in _NAMES:
        translated, num = re.subn(f"^{pattern}", replacement, name)
        if num:
            return translated
    return name


def _of_gain_4(name: str, tensor: Tensor) -> Tensor:
    """Return a filter with the sum that rosinality's have; other tensors stay as they are."""
    return tensor * (4 / tensor.sum()) if name.endswith(".kernel") else tensor
