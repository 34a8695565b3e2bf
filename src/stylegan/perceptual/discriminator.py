"""A network's own discriminator as a perceptual distance, which needs no other weights."""

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stylegan.models.base import AbstractDiscriminator
from stylegan.perceptual.detector import AbstractDistance, unit_norm
from stylegan.pixel_format import PixelFormat


class DiscriminatorDistance(AbstractDistance):
    """A distance like LPIPS, with the blocks of a discriminator and equal weights.

    The output of each block is normalized over channels; squared differences are averaged over
    positions and blocks, so the distance is in [0, 4]. It depends on the training of the
    discriminator, and its values are not comparable with any other distance.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", section 3, for the definition.

    Args:
        discriminator: in eval mode, without gradients for its parameters. Images must have its
            size.
    """

    name = "discriminator"

    def __init__(self, discriminator: AbstractDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator.eval().requires_grad_(False)
        self.largest = min(discriminator.img_size.height, discriminator.img_size.width)
        self._blocks = [
            block
            for name, block in discriminator.named_children()
            if re.fullmatch(r"b\d+", name) and name != "b4"
        ]

    def view(self, images: Tensor, pixels: PixelFormat) -> Tensor:
        """Return the images as they are, as the discriminator takes all channels."""
        return images

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the features at each size above the base, of images [N, C, H, W]."""
        network = self.discriminator
        outputs: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs.append(output)

        def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            raise _LastBlockReachedError

        hooks = [block.register_forward_hook(keep) for block in self._blocks]
        # The head mixes the images of a batch and needs labels.
        hooks.append(network.get_submodule("b4").register_forward_pre_hook(stop))
        try:
            network(images.to(torch.float32))
        except _LastBlockReachedError:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        for features in outputs:
            num_places = features.shape[2] * features.shape[3]
            yield unit_norm(features.to(torch.float32)) / math.sqrt(num_places * len(outputs))


class _LastBlockReachedError(Exception):
    """Ends a forward pass after the last block."""
