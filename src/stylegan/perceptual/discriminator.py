"""A network's own discriminator as a perceptual distance, where no other weights can be had."""

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stylegan.models.base import AbstractDiscriminator
from stylegan.perceptual.detector import AbstractDistance, unit_norm


class DiscriminatorDistance(AbstractDistance):
    """LPIPS's form with the blocks of a discriminator and equal weights.

    The output of each block is divided by its length over channels; squared differences are
    averaged over places and blocks, so that the distance lies in [0, 4]. It knows what the
    discriminator was shown, and nothing else: not comparable with any other in value.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", section 3, for the form.

    Args:
        discriminator: in eval mode, without gradients for its parameters; it takes images of its
            own resolution only.
    """

    name = "discriminator"

    def __init__(self, discriminator: AbstractDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator.eval().requires_grad_(False)
        self.largest = discriminator.img_resolution
        self._blocks = [
            block
            for name, block in discriminator.named_children()
            if re.fullmatch(r"b\d+", name) and name != "b4"
        ]

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield a layer for each resolution above 4x4, of [N, C, R, R] as the network takes."""
        network = self.discriminator
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found.append(output)

        def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            raise _EnoughError

        hooks = [block.register_forward_hook(keep) for block in self._blocks]
        # the head would compare the images of a batch, and ask for labels
        hooks.append(network.get_submodule("b4").register_forward_pre_hook(stop))
        try:
            network(images.to(torch.float32))
        except _EnoughError:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        for features in found:
            num_places = features.shape[2] * features.shape[3]
            yield unit_norm(features.to(torch.float32)) / math.sqrt(num_places * len(found))


class _EnoughError(Exception):
    """Ends a forward pass after the last block."""
