"""Pure functions of the position in the run."""

import math
from dataclasses import dataclass

from stylegan.errors import decided
from stylegan.models.growth import fade_weight, resolution_at
from stylegan.training.config import EmaConfig, RunConfig


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a run does at one moment; the same throughout where it does not grow.

    Attributes:
        lod: level of detail.
        resolution: side of the images, the larger one while fading.
        batch: images in an iteration.
        generator_lr: learning rate of the generator, before the lazy correction.
        discriminator_lr: of the discriminator, likewise.
    """

    lod: float
    resolution: int
    batch: int
    generator_lr: float
    discriminator_lr: float

    @property
    def fade(self) -> float:
        """The weight of the smaller resolution; 0 outside fades."""
        return fade_weight(self.lod)

    @property
    def key(self) -> tuple[int, int]:
        """Changes at the start and at the end of every fade: there the optimizers start anew."""
        return math.floor(self.lod), math.ceil(self.lod)


def stage_at(config: RunConfig, nimg: int) -> Stage:
    """Return what a run does after so many images.

    While the next resolution fades in, its batch and learning rate apply already.

    Source: Karras et al. 2018 (ProGAN), appendix A; the official schedule.
    """
    growth, optim, resolution = config.growth, config.optim, config.generator.resolution
    if growth is None:
        return Stage(
            lod=0.0,
            resolution=resolution,
            batch=config.batch,
            generator_lr=optim.generator_lr,
            discriminator_lr=optim.discriminator_lr,
        )
    lod = growth.schedule.lod_at(nimg, resolution=resolution)
    key = str(resolution_at(resolution, lod))
    lrs = decided(growth.lrs, "growth.lrs")
    return Stage(
        lod=lod,
        resolution=int(key),
        batch=decided(growth.batches, "growth.batches").get(key, config.batch),
        generator_lr=lrs.get(key, optim.generator_lr),
        discriminator_lr=lrs.get(key, optim.discriminator_lr),
    )


def ema_beta(config: EmaConfig, *, nimg: int, batch: int) -> float:
    """Return the share of the old average that stays after one iteration.

    `0.5 ** (batch / half_life)`, the half-life in images, with ramp-up at most a share of the
    images shown so far.

    Source: Karras et al. 2018 (ProGAN), appendix A, which has a constant share; the half-life
    in images from StyleGAN's official code, the ramp-up from StyleGAN2-ADA's.

    Args:
        config: half-life and ramp-up, or the constant share.
        nimg: images shown before this iteration.
        batch: images in this iteration.
    """
    if config.beta is not None:
        return config.beta
    half_life = decided(config.half_life_kimg, "ema.half_life_kimg") * 1000
    if config.rampup is not None:
        half_life = min(half_life, nimg * config.rampup)
    return math.pow(0.5, batch / max(half_life, 1e-8))


def is_due(iteration: int, interval: int | None) -> bool:
    """Tell whether a lazy step belongs to this iteration; the first one has all of them.

    A regularizer without an interval has no steps of its own.
    """
    return interval is not None and iteration % interval == 0


def crossed(nimg: int, batch: int, every_kimg: float) -> bool:
    """Tell whether the last iteration, which ended at `nimg`, reached a multiple of the cadence."""
    every = max(round(every_kimg * 1000), 1)
    return nimg // every > (nimg - batch) // every
