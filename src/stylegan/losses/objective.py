"""Which terms make up the loss of each phase, with what weight.

A phase is one optimizer step. Nothing here changes a network; what is random comes in a `Draw`.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from stylegan.errors import ConfigError, check_fraction, check_not_negative, check_positive
from stylegan.latents import mix
from stylegan.losses.adversarial import (
    discriminator_logistic_fake,
    discriminator_logistic_real,
    discriminator_wasserstein,
    generator_logistic,
    generator_wasserstein,
    label_cross_entropy,
)
from stylegan.losses.regularizers import (
    enlargement,
    gradient_penalty,
    path_length_penalty,
    path_lengths,
    r1_penalty,
)
from stylegan.microbatch import BatchSlice, GroupGenerators
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator, Images
from stylegan.nn.noise import NoiseMode


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and intervals of the loss terms. The defaults are StyleGAN2's.

    An interval makes a regularizer lazy: it takes steps of its own, Adam is corrected for them,
    and its loss is multiplied by the interval. The correction stays where the weight is 0 and no
    such step is taken: the official code trains StyleGAN2's configuration C like that. Without
    an interval (None) the regularizer is part of the main loss, in each iteration.

    Attributes:
        adversarial: "logistic", non-saturating, or "wgan-gp" with its gradient penalty.
        gamma: weight of R1; half of it multiplies the squared gradient norm. 0 for "wgan-gp".
        r1_interval: iterations between two R1 steps; None for R1 in the main loss.
        gp_weight: weight of the gradient penalty of "wgan-gp".
        gp_target: the gradient norm that it asks for.
        drift: weight of D's squared output at real images, for "wgan-gp".
        pl_weight: weight of path-length regularization; 0 leaves it out.
        pl_interval: iterations between two path-length steps; None for path lengths in the main
            loss. The paper says 8, the official code 4; this follows the code.
        pl_decay: share of a batch in the running mean of path lengths.
        pl_batch_shrink: path lengths use this fraction of the batch, 2 for a half.
        mixing_prob: share of batches whose styles are mixed from two latents.
    """

    adversarial: Literal["logistic", "wgan-gp"] = "logistic"
    gamma: float = 10.0
    r1_interval: int | None = 16
    gp_weight: float = 10.0
    gp_target: float = 1.0
    drift: float = 0.001
    pl_weight: float = 2.0
    pl_interval: int | None = 4
    pl_decay: float = 0.01
    pl_batch_shrink: int = 2
    mixing_prob: float = 0.9

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("r1_interval", "pl_interval"):
            if getattr(self, name) is not None:
                check_positive(f"loss.{name}", getattr(self, name))
        for name in ("gp_target", "pl_batch_shrink"):
            check_positive(f"loss.{name}", getattr(self, name))
        for name in ("gamma", "gp_weight", "drift", "pl_weight"):
            check_not_negative(f"loss.{name}", getattr(self, name))
        for name in ("pl_decay", "mixing_prob"):
            check_fraction(f"loss.{name}", getattr(self, name))
        if self.adversarial == "wgan-gp" and self.gamma > 0:
            raise ConfigError(
                f"loss.gamma {self.gamma:g} with loss.adversarial wgan-gp",
                expected="gamma 0, as WGAN-GP has a gradient penalty of its own",
                fix="add --gamma 0",
            )


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The random numbers of one generator pass.

    Attributes:
        z: [N, z_dim].
        z_mix: second latents for style mixing, [N, z_dim]; None without mixing.
        crossover: first style input that takes the second latents.
        noise: source of the noise maps; None takes the stored ones. A
            single Generator is stateful and cannot be split over micro-batches;
            `GroupGenerators` can.
        c: labels of the images, [N, c_dim]; None where networks have none.
    """

    z: Tensor
    z_mix: Tensor | None = None
    crossover: int = 0
    noise: torch.Generator | GroupGenerators | None = None
    c: Tensor | None = None

    def take(self, part: BatchSlice) -> "Draw":
        """Return what a part of the batch draws.

        Raises:
            ValueError: if the noise cannot be shared.
        """
        if len(part) == part.batch_size == len(self.z):
            return self
        if isinstance(self.noise, torch.Generator):
            raise ValueError("a part of a batch needs noise in streams of its own")
        return replace(
            self,
            z=part.take(self.z),
            z_mix=None if self.z_mix is None else part.take(self.z_mix),
            noise=None if self.noise is None else replace(self.noise, rows=part),
            c=None if self.c is None else part.take(self.c),
        )


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
    ws: Tensor = generator.mapping(draw.z, draw.c)
    if draw.z_mix is None:
        return ws, ws
    return mix(ws, generator.mapping(draw.z_mix, draw.c), draw.crossover), ws


def show(generator: AbstractGenerator, ws: Tensor, draw: Draw) -> Images:
    """Make from ws, with the draw's noise, what the discriminator is shown."""
    noise_mode: NoiseMode = "const" if draw.noise is None else "random"
    source = tuple(draw.noise) if isinstance(draw.noise, GroupGenerators) else draw.noise
    return generator.show(ws, noise_mode=noise_mode, generator=source)


def generator_loss(
    generator: AbstractGenerator,
    discriminator: AbstractDiscriminator,
    draw: Draw,
    *,
    config: LossConfig,
) -> Loss:
    """Loss of the phase "G main": the generator against the discriminator.

    Where D guesses labels, as an AC-GAN's does, G is also to make images that show theirs.
    """
    ws, _ = styles(generator, draw)
    logits, guessed = discriminator.logits_and_labels(show(generator, ws, draw), draw.c)
    is_logistic = config.adversarial == "logistic"
    each = generator_logistic(logits) if is_logistic else generator_wasserstein(logits)
    total = each.mean()
    terms = {"loss/G": total.detach()}
    if guessed is not None and draw.c is not None:
        terms["label_loss/G"], total = _with_labels(total, guessed, draw.c)
    return Loss(total=total, terms=terms)


def drawn_path_lengths(
    generator: AbstractGenerator, draw: Draw, *, pl_noise: Tensor, create_graph: bool = True
) -> Tensor:
    """Path lengths at what is drawn, [N].

    Args:
        generator: G.
        draw: latents, already shrunk.
        pl_noise: standard normal, the shape of the images, the largest ones of a mipmap.
        create_graph: whether the lengths are to be differentiated.
    """
    ws, _ = styles(generator, draw)
    images = show(generator, ws, draw)
    largest = images if isinstance(images, Tensor) else images[0]
    return path_lengths(largest, ws, pl_noise, create_graph=create_graph)


def path_length_loss(
    lengths: Tensor, *, pl_mean: Tensor, config: LossConfig, batch_mean: Tensor | None = None
) -> tuple[Loss, Tensor]:
    """Loss of the phase "G path length", times its weight and interval.

    Args:
        lengths: from `drawn_path_lengths`, of a part of the batch or all of it.
        pl_mean: running mean of path lengths, [].
        config: weights.
        batch_mean: mean length of the whole batch, []; None for that of `lengths`.

    Returns:
        The loss, and the new running mean.
    """
    penalty, pl_mean = path_length_penalty(
        lengths, pl_mean, decay=config.pl_decay, batch_mean=batch_mean
    )
    total = penalty.mean() * (config.pl_weight * (config.pl_interval or 1))
    terms = {
        "path_length/mean": lengths.detach().mean(),
        "path_length/penalty": penalty.detach().mean(),
    }
    return Loss(total=total, terms=terms), pl_mean


def has_second_derivatives(config: LossConfig) -> bool:
    """Tell whether the loss of "D main" asks for second derivatives of D."""
    if config.adversarial == "wgan-gp":
        return config.gp_weight > 0
    return config.r1_interval is None and config.gamma > 0


def discriminator_loss(
    discriminator: AbstractDiscriminator,
    reals: Tensor,
    fakes: Images,
    *,
    config: LossConfig,
    positions: Tensor | None = None,
    real_c: Tensor | None = None,
    fake_c: Tensor | None = None,
) -> Loss:
    """Loss of the phase "D main": real against generated images, with its own regularizers.

    Where D guesses labels, as an AC-GAN's does, it is to guess those of both.

    Args:
        discriminator: D.
        reals: real images, [N, C, R, R].
        fakes: generated images, likewise, or their mipmap.
        config: weights; R1 is added here unless it has an interval.
        positions: for "wgan-gp", where between real (0) and generated (1) each gradient is
            taken, [N], uniform. Its label is that of the real image.
        real_c: labels of the real images, [N, c_dim]; None where networks have none.
        fake_c: labels that the generated images were made for, likewise.

    Raises:
        ValueError: if "wgan-gp" gets no positions, or a mipmap.
    """
    has_r1 = config.r1_interval is None and config.gamma > 0
    reals = reals.detach().requires_grad_(has_r1)
    real_logits, guessed_real = discriminator.logits_and_labels(reals, real_c)
    fake_logits, guessed_fake = discriminator.logits_and_labels(fakes, fake_c)
    terms = {
        "logits/real": real_logits.detach().mean(),
        "logits/fake": fake_logits.detach().mean(),
        "logits/real_sign": real_logits.detach().sign().mean(),
    }
    if config.adversarial == "logistic":
        total = (
            discriminator_logistic_real(real_logits) + discriminator_logistic_fake(fake_logits)
        ).mean()
        terms["loss/D"] = total.detach()
    else:
        total = discriminator_wasserstein(real_logits, fake_logits).mean()
        terms["loss/D"] = total.detach()
        total = total + config.drift * real_logits.square().mean()
        if config.gp_weight > 0:
            penalty = _penalty_between(discriminator, reals, fakes, positions, config, real_c)
            total = total + config.gp_weight * penalty.mean()
            terms["gradient_penalty"] = penalty.detach().mean()
    if has_r1:
        penalty = _scaled_r1(discriminator, real_logits, reals)
        total = total + config.gamma / 2 * penalty.mean()
        terms["r1/penalty"] = penalty.detach().mean()
    for name, guessed, c in (("real", guessed_real, real_c), ("fake", guessed_fake, fake_c)):
        if guessed is not None and c is not None:
            terms[f"label_loss/{name}"], total = _with_labels(total, guessed, c)
    return Loss(total=total, terms=terms)


def r1_loss(
    discriminator: AbstractDiscriminator,
    reals: Tensor,
    *,
    config: LossConfig,
    real_c: Tensor | None = None,
) -> Loss:
    """Loss of the phase "D R1" at real images [N, C, R, R], times its weight and interval.

    `real_c` are their labels, [N, c_dim]; None where networks have none.
    """
    reals = reals.detach().requires_grad_()
    penalty = _scaled_r1(discriminator, discriminator(reals, real_c), reals)
    total = penalty.mean() * (config.gamma / 2 * (config.r1_interval or 1))
    return Loss(total=total, terms={"r1/penalty": penalty.detach().mean()})


def _with_labels(total: Tensor, guessed: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of guessed labels for the log, and the total with it, at weight 1."""
    label_loss = label_cross_entropy(guessed, c).mean()
    return label_loss.detach(), total + label_loss


def _scaled_r1(discriminator: AbstractDiscriminator, logits: Tensor, reals: Tensor) -> Tensor:
    scale = enlargement(reals, discriminator.img_resolution)
    return r1_penalty(logits, reals) * scale**2


def _penalty_between(
    discriminator: AbstractDiscriminator,
    reals: Tensor,
    fakes: Images,
    positions: Tensor | None,
    config: LossConfig,
    c: Tensor | None,
) -> Tensor:
    if positions is None or not isinstance(fakes, Tensor):
        raise ValueError("wgan-gp needs positions [N], and images of one size")
    where = positions.to(reals.dtype)[:, None, None, None]
    between = reals.detach().lerp(fakes.detach(), where).requires_grad_()
    return gradient_penalty(
        discriminator(between, c),
        between,
        target=config.gp_target,
        scale=enlargement(between, discriminator.img_resolution),
    )
