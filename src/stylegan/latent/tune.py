"""Pivotal tuning: a copy of a generator, fine-tuned to one image around its projection.

Source: Roich et al. 2021, "Pivotal Tuning for Latent-based Editing of Real Images", sections 3.2
and 3.3.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.errors import check_not_negative, check_positive
from stylegan.latent.project import psnr, resized_for
from stylegan.latent.render import device_of
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import store_noise
from stylegan.perceptual.detector import AbstractDistance
from stylegan.progress import Progress, track


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Options of tuning; the defaults are the paper's.

    Attributes:
        num_steps: steps of Adam.
        learning_rate: of Adam.
        pixel_weight: weight of the mean squared error of pixels in [-1, 1].
        locality_weight: weight of the locality regularizer, which penalizes changes of other
            images.
        locality_distance: distance of their w from the image's w.

    Raises:
        ConfigError: if a value is out of range.
    """

    num_steps: int = 350
    learning_rate: float = 3e-4
    pixel_weight: float = 1.0
    locality_weight: float = 0.1
    locality_distance: float = 30.0

    def __post_init__(self) -> None:
        for name in ("num_steps", "learning_rate", "locality_distance"):
            check_positive(name, getattr(self, name))
        for name in ("pixel_weight", "locality_weight"):
            check_not_negative(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A tuned generator.

    Attributes:
        generator: a copy in eval mode; its stored noise is that of the image.
        image: the generated image of the image's w, uint8 [C, R, R].
        psnr: of the generated image, in dB.
    """

    generator: AbstractGenerator
    image: Tensor
    psnr: float


def tune_generator(
    generator: AbstractGenerator,
    ws: Tensor,
    *,
    target: Tensor,
    noise: Mapping[str, Tensor],
    distance: AbstractDistance,
    config: TuneConfig,
    c: Tensor | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Tune a copy of a generator's synthesis network to reproduce an image from its w.

    Source: equations 2 to 5 of the paper.

    Args:
        generator: is not changed.
        ws: the pivot: latents of the image, [1, num_ws, w_dim].
        target: the image, uint8 [C, R, R].
        noise: noise of layers, [r, r]; other layers keep the stored noise.
        distance: on the generator's device.
        config: options.
        c: label of the images for the locality regularizer, [c_dim]; None for a generator without
            labels.
        seed: of the latents for the locality regularizer.
        progress: called after each step.
    """
    device = device_of(generator)
    before = copy.deepcopy(generator).eval()
    store_noise(before, noise)
    tuned = copy.deepcopy(before)
    tuned.requires_grad_(False)
    parameters = list(tuned.synthesis.requires_grad_(True).parameters())
    adam = torch.optim.Adam(parameters, lr=config.learning_rate)
    pivot = ws.to(device)
    pixels = generator.pixels
    target_image = pixels.to_float(target.to(device))[None]
    label = None if c is None else c.to(device)[None]

    def difference(a: Tensor, b: Tensor) -> Tensor:
        seen = (resized_for(distance.view(each, pixels), distance) for each in (a, b))
        perceived = distance.distance(*seen)
        return (perceived + config.pixel_weight * (a - b).square().mean(dim=(1, 2, 3))).sum()

    for step in track(range(config.num_steps), progress, "tuning steps", config.num_steps):
        loss = difference(tuned.synthesis(pivot), target_image)
        if config.locality_weight > 0:
            with torch.no_grad():
                z = latents_from_seeds([seed + step], generator.z_dim).to(device)
                away = generator.mapping(z, label) - pivot
                # averaged over style inputs, so that w+ has the distance of w
                length = away.square().sum(dim=2, keepdim=True).mean(dim=1, keepdim=True).sqrt()
                elsewhere = pivot + config.locality_distance * away / length
                kept = before.synthesis(elsewhere)
            loss = loss + config.locality_weight * difference(tuned.synthesis(elsewhere), kept)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        adam.step()
    tuned.requires_grad_(False)
    with torch.no_grad():
        image = tuned.synthesis(pivot).cpu()[0]
    ratio = psnr(pixels.to_stored(image), target.cpu(), pixels)
    return Tuned(generator=tuned, image=pixels.shown(image), psnr=ratio)
