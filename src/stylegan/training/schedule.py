"""Schedules: pure functions of the position in the run."""

import math
from dataclasses import dataclass

from stylegan.errors import decided
from stylegan.image_size import ImageSize
from stylegan.microbatch import BatchSlice
from stylegan.models.growth import fade_weight, resolution_at
from stylegan.training.config import EmaConfig, RunConfig, group_of


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Level of detail, batch size and learning rates at a position; constant without growing.

    Attributes:
        lod: level of detail.
        resolution: nominal resolution of the images; the larger one while fading.
        size: height and width of the images at this resolution.
        batch: images per iteration, over all ranks.
        generator_lr: learning rate of the generator, before the lazy correction.
        discriminator_lr: of the discriminator, likewise.
    """

    lod: float
    resolution: int
    size: ImageSize
    batch: int
    generator_lr: float
    discriminator_lr: float

    @property
    def fade(self) -> float:
        """Weight of the smaller resolution; 0 outside fades."""
        return fade_weight(self.lod)

    @property
    def key(self) -> tuple[int, int]:
        """Changes at the start and end of every fade, where the optimizers are reset."""
        return math.floor(self.lod), math.ceil(self.lod)


def stage_at(config: RunConfig, nimg: int) -> Stage:
    """Return the stage after a number of images.

    While the next resolution fades in, its batch size and learning rate apply already.

    Source: Karras et al. 2018 (ProGAN), appendix A; the official schedule.
    """
    growth, optim, size = config.growth, config.optim, config.generator.size
    if growth is None:
        return Stage(
            lod=0.0,
            resolution=size.nominal,
            size=size,
            batch=config.batch,
            generator_lr=optim.generator_lr,
            discriminator_lr=optim.discriminator_lr,
        )
    lod = growth.schedule.lod_at(nimg, resolution=size.nominal)
    resolution = resolution_at(size.nominal, lod)
    key = str(resolution)
    lrs = decided(growth.lrs, "growth.lrs")
    return Stage(
        lod=lod,
        resolution=resolution,
        size=size.at(resolution),
        batch=decided(growth.batches, "growth.batches").get(key, config.batch),
        generator_lr=lrs.get(key, optim.generator_lr),
        discriminator_lr=lrs.get(key, optim.discriminator_lr),
    )


def whole_batch(config: RunConfig, num: int, *, shrink: int = 1) -> BatchSlice:
    """Return the slice of a whole batch, with the groups that must not be split.

    Args:
        config: the run's options.
        num: rows of the batch.
        shrink: factor by which it is smaller than the batch of the main phases, as are its groups.
    """
    return BatchSlice.whole(num, group_size=group_of(config, num * shrink, shrink=shrink))


def ema_beta(config: EmaConfig, *, nimg: int, batch: int) -> float:
    """Return the weight of the old average in one iteration's EMA update.

    `0.5 ** (batch / half_life)` with the half-life in images; with ramp-up, the half-life is at
    most a fraction of the images shown so far.

    Source: Karras et al. 2018 (ProGAN), appendix A, with a constant weight; the half-life in
    images is from StyleGAN's official code, the ramp-up from StyleGAN2-ADA's.

    Args:
        config: half-life and ramp-up, or the constant weight.
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
    """Whether a lazy regularizer takes its step in this iteration; in the first one all do.

    A regularizer without an interval (None) has no steps of its own.
    """
    return interval is not None and iteration % interval == 0


def crossed(nimg: int, batch: int, every_kimg: float) -> bool:
    """Whether the last iteration, which ended at `nimg`, reached a multiple of the cadence."""
    every = max(round(every_kimg * 1000), 1)
    return nimg // every > (nimg - batch) // every
