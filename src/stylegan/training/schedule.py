"""Pure functions of the position in the run."""

import math

from stylegan.training.config import EmaConfig


def ema_beta(config: EmaConfig, *, nimg: int, batch: int) -> float:
    """Return the share of the old average that stays after one iteration.

    `0.5 ** (batch / half_life)`, the half-life in images, with ramp-up at most a share of the
    images shown so far.

    Source: Karras et al. 2018 (ProGAN), appendix A; ramp-up from StyleGAN2-ADA.

    Args:
        config: half-life and ramp-up.
        nimg: images shown before this iteration.
        batch: images in this iteration.
    """
    half_life = config.half_life_kimg * 1000
    if config.rampup is not None:
        half_life = min(half_life, nimg * config.rampup)
    return math.pow(0.5, batch / max(half_life, 1e-8))


def is_due(iteration: int, interval: int) -> bool:
    """Tell whether a lazy step belongs to this iteration; the first one has all of them."""
    return iteration % interval == 0


def crossed(nimg: int, batch: int, every_kimg: float) -> bool:
    """Tell whether the last iteration, which ended at `nimg`, reached a multiple of the cadence."""
    every = max(round(every_kimg * 1000), 1)
    return nimg // every > (nimg - batch) // every
