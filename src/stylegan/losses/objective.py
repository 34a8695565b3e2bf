"""Which terms make up the loss of each phase, with what weight.

A phase is one optimizer step. Nothing here changes a network; what is random comes in a `Draw`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.errors import check_not_negative, check_positive, check_share
from stylegan.latents import mix
from stylegan.losses.adversarial import (
    discriminator_logistic_fake,
    discriminator_logistic_real,
    generator_logistic,
)
from stylegan.losses.regularizers import path_length_penalty, path_lengths, r1_penalty
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and intervals of the loss terms. The defaults are StyleGAN2's.

    Attributes:
        gamma: weight of R1; half of it multiplies the squared gradient norm.
        r1_interval: iterations between two R1 steps. Its loss is multiplied by as much.
        pl_weight: weight of path-length regularization; 0 leaves it out.
        pl_interval: iterations between two path-length steps. The paper says 8, the official
            code 4; this follows the code.
        pl_decay: share of a batch in the running mean of path lengths.
        pl_batch_shrink: path lengths use this fraction of the batch, 2 for a half.
        mixing_prob: share of batches whose styles are mixed from two latents.
    """

    gamma: float = 10.0
    r1_interval: int = 16
    pl_weight: float = 2.0
    pl_interval: int = 4
    pl_decay: float = 0.01
    pl_batch_shrink: int = 2
    mixing_prob: float = 0.9

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("r1_interval", "pl_interval", "pl_batch_shrink"):
            check_positive(f"loss.{name}", getattr(self, name))
        for name in ("gamma", "pl_weight"):
            check_not_negative(f"loss.{name}", getattr(self, name))
        for name in ("pl_decay", "mixing_prob"):
            check_share(f"loss.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The random numbers of one generator pass.

    Attributes:
        z: [N, z_dim].
        z_mix: second latents for style mixing, [N, z_dim]; None without mixing.
        crossover: first style input that takes the second latents.
        noise: source of the noise maps; None takes the stored ones.
    """

    z: Tensor
    z_mix: Tensor | None = None
    crossover: int = 0
    noise: torch.Generator | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of one phase.

    Attributes:
        total: what to differentiate, [].
        terms: named means for the log, [] each, detached.
    """

    total: Tensor
    terms: dict[str, Tensor]


def styles(generator: AbstractGenerator, draw: Draw) -> tuple[Tensor, Tensor]:
    """Map a draw to ws for synthesis, and to the unmixed ws of which w_avg is the mean."""
    ws: Tensor = generator.mapping(draw.z)
    if draw.z_mix is None:
        return ws, ws
    return mix(ws, generator.mapping(draw.z_mix), draw.crossover), ws


def synthesize(generator: AbstractGenerator, ws: Tensor, draw: Draw) -> Tensor:
    """Make images from ws with the draw's noise."""
    noise_mode = "const" if draw.noise is None else "random"
    images: Tensor = generator.synthesis(ws, noise_mode=noise_mode, generator=draw.noise)
    return images


def generator_loss(
    generator: AbstractGenerator, discriminator: AbstractDiscriminator, draw: Draw
) -> Loss:
    """Loss of the phase "G main": the generator against the discriminator."""
    ws, _ = styles(generator, draw)
    logits = discriminator(synthesize(generator, ws, draw))
    total = generator_logistic(logits).mean()
    return Loss(total=total, terms={"loss/G": total.detach()})


def path_length_loss(
    generator: AbstractGenerator,
    draw: Draw,
    *,
    pl_noise: Tensor,
    pl_mean: Tensor,
    config: LossConfig,
) -> tuple[Loss, Tensor]:
    """Loss of the phase "G path length", times its weight and interval.

    Args:
        generator: G.
        draw: latents, already shrunk.
        pl_noise: standard normal, the shape of the images.
        pl_mean: running mean of path lengths, [].
        config: weights.

    Returns:
        The loss, and the new running mean.
    """
    ws, _ = styles(generator, draw)
    lengths = path_lengths(synthesize(generator, ws, draw), ws, pl_noise)
    penalty, pl_mean = path_length_penalty(lengths, pl_mean, decay=config.pl_decay)
    total = penalty.mean() * (config.pl_weight * config.pl_interval)
    terms = {
        "path_length/mean": lengths.detach().mean(),
        "path_length/penalty": penalty.detach().mean(),
    }
    return Loss(total=total, terms=terms), pl_mean


def discriminator_loss(discriminator: AbstractDiscriminator, reals: Tensor, fakes: Tensor) -> Loss:
    """Loss of the phase "D main": real against generated images, both [N, C, R, R]."""
    real_logits, fake_logits = discriminator(reals), discriminator(fakes)
    total = (
        discriminator_logistic_real(real_logits) + discriminator_logistic_fake(fake_logits)
    ).mean()
    terms = {
        "loss/D": total.detach(),
        "logits/real": real_logits.detach().mean(),
        "logits/fake": fake_logits.detach().mean(),
        "logits/real_sign": real_logits.detach().sign().mean(),
    }
    return Loss(total=total, terms=terms)


def r1_loss(discriminator: AbstractDiscriminator, reals: Tensor, *, config: LossConfig) -> Loss:
    """Loss of the phase "D R1" at real images [N, C, R, R], times its weight and interval."""
    reals = reals.detach().requires_grad_()
    penalty = r1_penalty(discriminator(reals), reals)
    total = penalty.mean() * (config.gamma / 2 * config.r1_interval)
    return Loss(total=total, terms={"r1/penalty": penalty.detach().mean()})
