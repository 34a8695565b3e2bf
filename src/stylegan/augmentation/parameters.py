"""The transforms of ADA: their groups, and the numbers that each image draws for them.

Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA),
appendix B.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stylegan.augmentation.draws import Draws
from stylegan.microbatch import BatchSlice

AugmentSet = Literal[
    "blit",
    "geom",
    "color",
    "filter",
    "noise",
    "cutout",
    "bg",
    "bgc",
    "bgcf",
    "bgcfn",
    "bgcfnc",
]
GROUPS = {
    "blit": ("x_flip", "quarter_turn", "integer_shift"),
    "geom": ("scale", "rotation", "anisotropic_scale", "second_rotation", "fractional_shift"),
    "color": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
    "filter": ("band_gains",),
    "noise": ("noise_std",),
    "cutout": ("cutout",),
}
"""The transforms of each group, in the order in which they are applied."""
_ORDER = tuple(GROUPS)
_COMBINED = {
    "bg": _ORDER[:2],
    "bgc": _ORDER[:3],
    "bgcf": _ORDER[:4],
    "bgcfn": _ORDER[:5],
    "bgcfnc": _ORDER,
}
"""The groups of the sets that have several."""
NUM_BANDS = 4
BAND_POWERS = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected power of an image in each band of the filter, from the lowest."""
CUTOUT_SIDE = 0.5


def transforms_of(augment_set: AugmentSet) -> tuple[str, ...]:
    """Return the transforms of a set: a group, or the initials of several, such as "bgc"."""
    groups = _COMBINED.get(augment_set, (augment_set,))
    return tuple(name for group in groups for name in GROUPS[group])


@dataclass(frozen=True, kw_only=True)
class AugmentParameters:
    """What is done to each image of a batch: values in the units of the paper.

    Attributes:
        values: by transform, float64 on the CPU, [N, ...]. Those of images to which a transform is
            not applied leave them as they are.
    """

    values: dict[str, Tensor]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(next(iter(self.values.values())))

    def take(self, rows: BatchSlice) -> "AugmentParameters":
        """Return the parameters of a micro-batch or shard."""
        return AugmentParameters(
            values={name: rows.take(value) for name, value in self.values.items()}
        )

    def of(self, *groups: str) -> dict[str, Tensor]:
        """Return the values of the transforms in some groups; empty if none is in use."""
        names = [name for group in groups for name in GROUPS[group]]
        return {name: self.values[name] for name in names if name in self.values}


def draw_parameters(
    transforms: Collection[str], probability: float, draws: Draws
) -> AugmentParameters:
    """Draw what is done to each image of a batch.

    Args:
        transforms: names from `GROUPS`.
        probability: p, with which each transform is applied to an image; above 1 it counts as 1.
        draws: source of the numbers.
    """
    p = min(probability, 1.0)
    values: dict[str, Tensor] = {}

    def applied(name: str, value: Tensor, *, neutral: float, chance: float = p) -> None:
        # All numbers are drawn, so that sets with a transform in common draw the same for it.
        if name in transforms:
            values[name] = torch.where(draws.chance(chance), value, neutral)

    # Two rotations, each with this probability, leave an image upright with probability 1 - p.
    p_rotation = 1 - math.sqrt(1 - p)
    applied("x_flip", 1 - 2 * draws.integers(2), neutral=1)
    applied("quarter_turn", draws.integers(4), neutral=0)
    applied("integer_shift", draws.uniform(-0.125, 0.125, num=2), neutral=0)
    applied("scale", torch.exp2(draws.normal(0.2)), neutral=1)
    applied("rotation", draws.uniform(-math.pi, math.pi), neutral=0, chance=p_rotation)
    applied("anisotropic_scale", torch.exp2(draws.normal(0.2)), neutral=1)
    applied("second_rotation", draws.uniform(-math.pi, math.pi), neutral=0, chance=p_rotation)
    applied("fractional_shift", draws.normal(0.125, num=2), neutral=0)
    applied("brightness", draws.normal(0.2), neutral=0)
    applied("contrast", torch.exp2(draws.normal(0.5)), neutral=1)
    applied("luma_flip", draws.integers(2), neutral=0)
    applied("hue", draws.uniform(-math.pi, math.pi), neutral=0)
    applied("saturation", torch.exp2(draws.normal(1.0)), neutral=1)
    if "band_gains" in transforms:
        values["band_gains"] = _draw_band_gains(draws, p)
    applied("noise_std", draws.normal(0.1).abs(), neutral=0)
    if "noise_std" in transforms:
        values["noise_seed"] = draws.integers(2**53)  # of the numbers of the pixels
    applied("cutout", draws.uniform(0, 1, num=2), neutral=math.inf)  # a center outside the image
    return AugmentParameters(values=values)


def _draw_band_gains(draws: Draws, p: float) -> Tensor:
    """Return the gain of each band, [N, NUM_BANDS], which keeps the expected power of images.

    Source: ADA, appendix B, image-space filtering.
    """
    powers = torch.tensor(BAND_POWERS, dtype=torch.float64)
    gains: Tensor | None = None
    for band in range(NUM_BANDS):
        gain = torch.where(draws.chance(p), torch.exp2(draws.normal(1.0)), 1.0)
        factors = torch.ones([len(gain), NUM_BANDS], dtype=torch.float64)
        factors[:, band] = gain[:, 0]
        factors = factors / (powers * factors.square()).sum(dim=1, keepdim=True).sqrt()
        gains = factors if gains is None else gains * factors
    assert gains is not None
    return gains
