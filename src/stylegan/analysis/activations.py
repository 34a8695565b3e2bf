"""Access to the features of a generator's layers through forward hooks."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from stylegan.models.base import AbstractGenerator
from stylegan.nn.adain import AbstractStyleLayer
from stylegan.nn.equalized import EqualizedConv2d, ResampleConv2d
from stylegan.nn.modulated import SynthesisLayer


def feature_layers(generator: AbstractGenerator) -> dict[str, nn.Module]:
    """Return the module whose output is each layer's features, coarsest first.

    Features are taken after the activation: before the normalization if there is one (pixel norm,
    AdaIN), and at the layer's output if weights are demodulated. Layers are named after their
    module in `generator.synthesis`, such as "b8.conv0".
    """
    modules: dict[str, nn.Module] = {}
    for name, module in generator.synthesis.named_modules():
        if isinstance(module, AbstractStyleLayer):
            modules[name] = module.features
        elif isinstance(module, SynthesisLayer) or (
            isinstance(module, EqualizedConv2d | ResampleConv2d)
            and re.fullmatch(r"b\d+\.conv\d?", name)
        ):
            modules[name] = module
    return modules


@contextmanager
def observe_features(
    generator: AbstractGenerator, observe: Callable[[str, Tensor], object]
) -> Iterator[None]:
    """Call `observe` with each layer's name and features [N, C, r, r] within a `with` block.

    Features are not kept: `observe` should reduce them, so that memory stays that of the network.
    """

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: (observe(name, output.detach()), None)[1]

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in feature_layers(generator).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
