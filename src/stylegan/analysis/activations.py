"""What the layers of a generator compute, seen from outside."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from stylegan.models.base import AbstractGenerator
from stylegan.nn.adain import AbstractStyleLayer
from stylegan.nn.equalized import EqualizedConv2d, ResampleConv2d
from stylegan.nn.modulated import SynthesisLayer


def feature_layers(generator: AbstractGenerator) -> dict[str, nn.Module]:
    """Return the module that gives each layer's features, coarsest first.

    Features are what follows the activation: before the normalization where there is one (pixel
    norm, AdaIN), and the layer's output where weights are demodulated. Layers have the name of
    their module in `generator.synthesis`, such as "b8.conv0".
    """
    found: dict[str, nn.Module] = {}
    for name, module in generator.synthesis.named_modules():
        if isinstance(module, AbstractStyleLayer):
            found[name] = module.features
        elif isinstance(module, SynthesisLayer) or (
            isinstance(module, EqualizedConv2d | ResampleConv2d)
            and re.fullmatch(r"b\d+\.conv\d?", name)
        ):
            found[name] = module
    return found


@contextmanager
def watched(generator: AbstractGenerator, see: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Call `see` with each layer's name and features [N, C, r, r] while the block runs.

    Nothing is kept: `see` reduces features as they come, so that memory stays that of the network.
    """

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: (see(name, output.detach()), None)[1]

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in feature_layers(generator).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
