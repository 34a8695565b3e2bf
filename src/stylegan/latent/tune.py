"""A copy of a generator, tuned to one picture around its projection.

Source: Roich et al. 2021, "Pivotal Tuning for Latent-based Editing of Real Images", sections 3.2
and 3.3.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.errors import check_not_negative, check_positive
from stylegan.images import from_uint8, to_uint8
from stylegan.latent.project import compared, psnr
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import store_noise
from stylegan.perceptual.detector import AbstractDistance
from stylegan.progress import Progress, track


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How a generator is tuned; the values are the paper's.

    Attributes:
        num_steps: of Adam.
        learning_rate: of Adam.
        pixel_weight: weight of the mean squared error of pixels in [-1, 1].
        locality_weight: weight of what changes elsewhere.
        locality_distance: how far from the picture's w elsewhere is, in units of w.

    Raises:
        ConfigError: if a value makes no sense.
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
        generator: a copy, in eval mode, that holds the picture's noise as its stored noise.
        image: what it makes of the picture's w, uint8 [C, R, R].
        psnr: of the image, in dB.
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
    """Tune a copy of a generator's synthesis network until it makes a picture of a w.

    Source: equations 2 to 5 of the paper.

    Args:
        generator: stays as it is.
        ws: of the picture, the pivot, [1, num_ws, w_dim].
        target: the picture, uint8 [C, R, R].
        noise: noise of layers, [r, r]; others keep the stored one.
        distance: on the generator's device.
        config: how.
        c: label of what must not change, [c_dim]; None where the generator takes none.
        seed: of the latents of what must not change.
        progress: called after each step.
    """
    device = next(generator.parameters()).device
    before = copy.deepcopy(generator).eval()
    store_noise(before, noise)
    tuned = copy.deepcopy(before)
    tuned.requires_grad_(False)
    parameters = list(tuned.synthesis.requires_grad_(True).parameters())
    adam = torch.optim.Adam(parameters, lr=config.learning_rate)
    pivot = ws.to(device)
    wanted = from_uint8(target.to(device))[None]
    label = None if c is None else c.to(device)[None]

    def difference(a: Tensor, b: Tensor) -> Tensor:
        perceived = distance.distance(compared(a, distance), compared(b, distance))
        return (perceived + config.pixel_weight * (a - b).square().mean(dim=(1, 2, 3))).sum()

    for step in track(range(config.num_steps), progress, "tuning steps", config.num_steps):
        loss = difference(tuned.synthesis(pivot), wanted)
        if config.locality_weight > 0:
            with torch.no_grad():
                z = latents_from_seeds([seed + step], generator.z_dim).to(device)
                away = generator.mapping(z, label) - pivot
                # a w for each layer goes as far as one for all does
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
        image = to_uint8(tuned.synthesis(pivot)).cpu()[0]
    return Tuned(generator=tuned, image=image, psnr=psnr(image, target))
