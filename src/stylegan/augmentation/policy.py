"""Which augmentation a run uses, and how its probability follows from overfitting."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from stylegan.augmentation.diffaugment import diffaugment, draw_diffaugment
from stylegan.augmentation.draws import RandomDraws
from stylegan.augmentation.parameters import (
    AugmentParameters,
    AugmentSet,
    draw_parameters,
    transforms_of,
)
from stylegan.augmentation.pipeline import augment
from stylegan.errors import check_fraction, check_positive, decided
from stylegan.microbatch import BatchSlice


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of the discriminator's input: real and generated images.

    Attributes:
        mode: "ada" adapts the probability of the transforms to overfitting, "fixed" keeps it at
            `augment.p`, "diffaugment" applies color, translation and cutout to every image (Zhao
            et al. 2020), "apa" shows the discriminator generated images as real ones with an
            adapted probability (Jiang et al. 2021, "Deceive D").
        set: transforms of "ada" and "fixed": a group (blit, geom, color, filter, noise, cutout), or
            the initials of several.
        p: probability of each transform, at first for "ada" and "apa".
        target: mean sign of the discriminator's outputs for real images, above which p increases.
        kimg: thousands of images in which p can move by 1. None: by the number of images and the
            length of the run.
        interval: iterations between two changes of p.
    """

    mode: Literal["none", "ada", "fixed", "diffaugment", "apa"] = "none"
    set: AugmentSet = "bgc"
    p: float = 0.0
    target: float = 0.6
    kimg: float | None = None
    interval: int = 4

    def __post_init__(self) -> None:
        """Check every value."""
        check_fraction("augment.p", self.p)
        check_fraction("augment.target", self.target)
        check_positive("augment.interval", self.interval)
        if self.kimg is not None:
            check_positive("augment.kimg", self.kimg)

    @property
    def is_adaptive(self) -> bool:
        """Whether p changes."""
        return self.mode in ("ada", "apa")


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of a batch of images.

    Args:
        apply: transforms images by parameters.
        parameters: of the whole batch.
    """

    apply: Callable[[Tensor, AugmentParameters], Tensor]
    parameters: AugmentParameters

    def of(self, rows: BatchSlice) -> Callable[[Tensor], Tensor]:
        """Return the function that augments the images of a micro-batch."""
        parameters = self.parameters.take(rows)
        return lambda images: self.apply(images, parameters)


def draw_augmentation(
    config: AugmentConfig,
    p: float,
    batch: int,
    generator: torch.Generator,
    *,
    has_alpha: bool = False,
) -> Augmentation | None:
    """Draw the augmentation of a batch; None if there is none.

    Args:
        config: the policy.
        p: probability of each transform.
        batch: number of images.
        generator: on the CPU.
        has_alpha: whether the images are premultiplied RGBA.
    """
    draws = RandomDraws(batch, generator)
    match config.mode:
        case "diffaugment":
            return Augmentation(partial(diffaugment, has_alpha=has_alpha), draw_diffaugment(draws))
        case "ada" | "fixed" if p > 0:
            parameters = draw_parameters(transforms_of(config.set), p, draws)
            return Augmentation(partial(augment, has_alpha=has_alpha), parameters)
    return None


class Controller:
    """Adapts the probability of augmentation to overfitting.

    The mean sign of the discriminator's outputs for real images rises towards 1 when it overfits.
    While it is above the target, p increases, else it decreases, by the images in between divided
    by `augment.kimg`.

    Source: Karras et al. 2020 (ADA), section 3, r_t. Unlike there, p stays below 1, so that it
    needs no time to come back from values that have the same effect.

    Args:
        config: the policy. Its `kimg` is decided.
        device: of the outputs.

    Attributes:
        p: the probability.
    """

    def __init__(self, config: AugmentConfig, device: torch.device) -> None:
        self._config = config
        self._device = device
        self.p = config.p
        self._num_iterations = 0
        self._num_images = 0
        self._signs = torch.zeros([], device=device)
        self._num_signs = 0

    def add(self, mean_sign: Tensor, num: int) -> None:
        """Count the mean sign of the outputs for a batch of real images, over all ranks, []."""
        self._signs = self._signs + mean_sign.detach() * num
        self._num_signs += num

    def advance(self, num: int) -> None:
        """Count an iteration of `num` images, and move p after every `augment.interval` of them."""
        self._num_iterations += 1
        self._num_images += num
        if self._num_iterations % self._config.interval or not self._num_signs:
            return
        excess = float(self._signs) / self._num_signs - self._config.target
        step = self._num_images / (1000 * decided(self._config.kimg, "augment.kimg"))
        self.p = min(max(self.p + step * ((excess > 0) - (excess < 0)), 0.0), 1.0)
        self._signs = torch.zeros([], device=self._device)
        self._num_images = self._num_signs = 0

    def state_dict(self) -> dict[str, float]:
        """Return p and the sums since it moved."""
        return {
            "p": self.p,
            "num_iterations": self._num_iterations,
            "num_images": self._num_images,
            "signs": float(self._signs),
            "num_signs": self._num_signs,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the result of `state_dict`."""
        self.p = state["p"]
        self._num_iterations = int(state["num_iterations"])
        self._num_images, self._num_signs = int(state["num_images"]), int(state["num_signs"])
        self._signs = torch.tensor(state["signs"], device=self._device)
