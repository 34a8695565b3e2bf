"""Contribution of each resolution to the image of a skip generator.

Source: Karras et al. 2020 (StyleGAN2), section 4.2 and figure 8.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylegan.errors import ConfigError
from stylegan.models import stylegan2
from stylegan.models.base import AbstractGenerator
from stylegan.nn.modulated import ToRGB
from stylegan.ops.fir import upsample2d


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Contribution of each resolution.

    Attributes:
        deviations: std of the pixels that each resolution adds to the image, of range [-1, 1], by
            nominal resolution, smallest first.
        num_images: number of images.
    """

    deviations: dict[int, float]
    num_images: int

    @property
    def shares(self) -> dict[int, float]:
        """The stds as fractions of their sum; 0 if all are 0."""
        total = sum(self.deviations.values())
        return {side: each / total if total > 0 else 0.0 for side, each in self.deviations.items()}


def check_usage(generator: AbstractGenerator, origin: str) -> None:
    """Check that the image of a generator is a sum over resolutions.

    Raises:
        ConfigError: if it is not.
    """
    if not _is_sum(generator):
        raise ConfigError(
            f"{origin} makes its image at one resolution; only the image of a skip generator "
            "(StyleGAN2 E and F) is a sum over resolutions"
        )


def resolution_usage(generator: AbstractGenerator, ws: Iterable[Tensor]) -> Usage:
    """Measure the std of what each resolution adds to the image of a skip generator.

    The RGB output of each resolution is upsampled to the image's resolution as in the network. The
    variance over images and pixels is averaged over color channels. Biases are excluded.

    Args:
        generator: a skip generator in eval mode.
        ws: batches of [N, num_ws, w_dim] on its device; 1024 latents in the paper. Memory is that
            of one batch.

    Raises:
        ConfigError: if the image is not a sum over resolutions.
    """
    check_usage(generator, "the network")
    synthesis = generator.synthesis
    assert isinstance(synthesis, stylegan2.SynthesisNetwork)
    sums: dict[int, Tensor] = {}
    squares: dict[int, Tensor] = {}
    num_images = num_pixels = 0

    def see(side: int, rgb: Tensor) -> None:
        image = rgb.to(torch.float32)
        while image.shape[-1] < generator.img_size.width:
            image = upsample2d(image, synthesis.kernel)
        pixels = image.double()
        sums[side] = sums.get(side, torch.zeros(())) + pixels.sum(dim=(0, 2, 3)).cpu()
        squares[side] = (
            squares.get(side, torch.zeros(())) + pixels.square().sum(dim=(0, 2, 3)).cpu()
        )

    def hook(side: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        # a bias would add a frame, since upsampling pads with zeros
        return lambda module, inputs, output: see(side, output - _bias_of(module))

    handles = [
        synthesis.get_submodule(f"b{side}.torgb").register_forward_hook(hook(side))
        for side in synthesis.resolutions
    ]
    try:
        for batch in ws:
            with torch.no_grad():
                synthesis(batch)
            num_images += len(batch)
            num_pixels += len(batch) * generator.img_size.num_pixels
    finally:
        for handle in handles:
            handle.remove()
    deviations = {}
    for side in sorted(sums):
        mean = sums[side] / num_pixels
        variance = (squares[side] / num_pixels - mean.square()).clamp_min(0)
        deviations[side] = variance.mean().sqrt().item()
    return Usage(deviations=deviations, num_images=num_images)


def _bias_of(torgb: nn.Module) -> Tensor:
    assert isinstance(torgb, ToRGB)
    return torgb.bias.detach()[:, None, None]


def _is_sum(generator: AbstractGenerator) -> bool:
    return isinstance(generator, stylegan2.Generator) and generator.config.architecture == "skip"
