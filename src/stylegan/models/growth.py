"""The schedule of progressive growing: level of detail by the number of images shown.

The level of detail, `lod`, is a float: 0 is full resolution, and each 1 halves it. Between two
whole numbers the larger of the two resolutions fades in. The fractional part is the weight of the
smaller resolution, which is 1 - alpha in the paper.

Source: Karras et al. 2018 (ProGAN), section 2 and appendix A.
"""

import math
from dataclasses import dataclass

from stylegan.errors import ConfigError, check_not_negative, check_positive
from stylegan.image_size import SMALLEST


def max_lod(resolution: int) -> int:
    """Return the level of detail at which a network makes images of its base.

    Resolutions are nominal here and below; see `image_size`.
    """
    return resolution.bit_length() - SMALLEST.bit_length()


def resolution_at(resolution: int, lod: float) -> int:
    """Return the resolution at a level of detail, the larger one while fading."""
    return resolution >> math.floor(lod)


def fade_weight(lod: float) -> float:
    """Return the weight of the smaller resolution, from 0 to below 1."""
    return lod - math.floor(lod)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Options of progressive growing: each resolution is trained, then the next one fades in.

    Attributes:
        initial_resolution: nominal resolution of the first images, a power of two from 4.
        train_kimg: length of each stage at one resolution, in thousands of images.
        fade_kimg: length of each fade.
    """

    initial_resolution: int = 8
    train_kimg: float = 600.0
    fade_kimg: float = 600.0

    def __post_init__(self) -> None:
        """Check every value."""
        side = self.initial_resolution
        if side < SMALLEST or side & (side - 1):
            raise ConfigError(
                f"growth.initial_resolution must be a power of two from {SMALLEST}, got {side}"
            )
        check_not_negative("growth.train_kimg", self.train_kimg)
        check_positive("growth.fade_kimg", self.fade_kimg)

    def lod_at(self, nimg: int, *, resolution: int) -> float:
        """Return the level of detail after `nimg` images, for networks of a resolution.

        Source: Karras et al. 2019 (StyleGAN), appendix C; the official schedule.
        """
        first = max_lod(resolution) - max_lod(self.initial_resolution)
        # In whole images, so that fades of any length end at a whole number.
        train, fade = round(self.train_kimg * 1000), max(round(self.fade_kimg * 1000), 1)
        phase, position = divmod(nimg, train + fade)
        return max(first - phase - max(position - train, 0) / fade, 0.0)
