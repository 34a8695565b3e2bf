"""The loss of each training phase: which terms it has, and with what weight.

A phase is one optimizer step. With E for the mean over the batch, x for real images and z for
latents, the losses are:

    G            E[softplus(-D(G(z)))]
    path length  pl_weight * pl_interval * E[(|J^T y| - mean)^2]
    D            E[softplus(-D(x))] + E[softplus(D(G(z)))]
    R1           gamma / 2 * r1_interval * E[|dD/dx|^2]

and for WGAN-GP, with images x' between real and generated ones:

    G            -E[D(G(z))]
    D            E[D(G(z))] - E[D(x)] + drift * E[D(x)^2]
                 + gp_weight * E[((|dD/dx'| - gp_target) / gp_target)^2]

With LeCam, the loss of D also has, with moving averages r and f of the logits of real and
generated images,

                 + lecam_weight * E[relu(D(x) - f)^2 + relu(r - D(G(z)))^2]

D's images may be augmented first. Nothing here changes a network or draws random numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from stylegan.errors import ConfigError, check_fraction, check_not_negative, check_positive, decided
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
    gradient_penalty,
    gradient_scale,
    lecam_penalty,
    path_length_penalty,
    path_lengths,
    r1_penalty,
)
from stylegan.microbatch import BatchSlice, GroupGenerators
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator, Images
from stylegan.nn.noise import NoiseMode

LECAM_DECAY = 0.99
PathSpace = Literal["pixels", "lpips", "efficientnet-lite0"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and intervals of the loss terms. The defaults are StyleGAN2's.

    With an interval a regularizer is lazy: it takes optimizer steps of its own, Adam is corrected
    for them, and its loss is multiplied by the interval. The correction also applies if the
    weight is 0 and no such step is taken, as the official code trains StyleGAN2's configuration
    C. Without an interval (None) the regularizer is part of the main loss, in each iteration.

    Attributes:
        adversarial: "logistic", non-saturating, or "wgan-gp" with its gradient penalty.
        gamma: weight of R1; half of it multiplies the squared gradient norm. 0 for "wgan-gp".
            None: the published value, or a rule at other resolutions and batch sizes.
        r1_interval: iterations between two R1 steps; None for R1 in the main loss.
        gp_weight: weight of the gradient penalty of "wgan-gp".
        gp_target: target of the gradient norm in that penalty.
        drift: weight of D's squared output at real images, for "wgan-gp".
        pl_weight: weight of path-length regularization; 0 switches it off.
        pl_interval: iterations between two path-length steps; None for path lengths in the main
            loss. The paper says 8, the official code 4; this follows the code.
        pl_decay: fraction of a batch's mean in the running mean of path lengths.
        pl_batch_shrink: path lengths use the batch size divided by this number.
        pl_space: space in which path lengths are measured: of pixels, as published, or of the
            features of a perceptual distance, scaled to be comparable (docs/path_length.md).
        mixing_prob: fraction of batches whose styles are mixed from two latents.
        lecam_weight: weight of LeCam regularization of D, for few images (Tseng et al. 2021):
            3e-7 or 1e-6 in the paper. 0 switches it off.
    """

    adversarial: Literal["logistic", "wgan-gp"] = "logistic"
    gamma: float | None = 10.0
    r1_interval: int | None = 16
    gp_weight: float = 10.0
    gp_target: float = 1.0
    drift: float = 0.001
    pl_weight: float = 2.0
    pl_interval: int | None = 4
    pl_decay: float = 0.01
    pl_batch_shrink: int = 2
    pl_space: PathSpace = "pixels"
    mixing_prob: float = 0.9
    lecam_weight: float = 0.0

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("r1_interval", "pl_interval"):
            if getattr(self, name) is not None:
                check_positive(f"loss.{name}", getattr(self, name))
        for name in ("gp_target", "pl_batch_shrink"):
            check_positive(f"loss.{name}", getattr(self, name))
        for name in ("gamma", "gp_weight", "drift", "pl_weight", "lecam_weight"):
            if getattr(self, name) is not None:
                check_not_negative(f"loss.{name}", getattr(self, name))
        for name in ("pl_decay", "mixing_prob"):
            check_fraction(f"loss.{name}", getattr(self, name))
        if self.adversarial == "wgan-gp" and self.gamma is not None and self.gamma > 0:
            raise ConfigError(
                f"loss.gamma {self.gamma:g} with loss.adversarial wgan-gp, which has a gradient "
                "penalty of its own",
                fix="add --gamma 0",
            )


Augment = Callable[[Tensor], Tensor]
"""Transforms images [N, C, R, R], and can be differentiated."""


@dataclass(frozen=True, kw_only=True)
class GeneratorInputs:
    """All inputs of one generator pass.

    Attributes:
        z: [N, z_dim].
        z_mix: second latents for style mixing, [N, z_dim]; None without mixing.
        crossover: first style input that takes the second latents.
        noise: source of the noise maps; None takes the stored ones. A single Generator is
            stateful and cannot be split over micro-batches; `GroupGenerators` can.
        c: labels of the images, [N, c_dim]; None for networks without labels.
    """

    z: Tensor
    z_mix: Tensor | None = None
    crossover: int = 0
    noise: torch.Generator | GroupGenerators | None = None
    c: Tensor | None = None

    def take(self, rows: BatchSlice) -> "GeneratorInputs":
        """Return the inputs of some rows of the batch.

        Raises:
            ValueError: if the noise cannot be split.
        """
        if len(rows) == rows.batch_size == len(self.z):
            return self
        if isinstance(self.noise, torch.Generator):
            raise ValueError("a micro-batch needs noise from GroupGenerators, got one Generator")
        return replace(
            self,
            z=rows.take(self.z),
            z_mix=None if self.z_mix is None else rows.take(self.z_mix),
            noise=None if self.noise is None else replace(self.noise, rows=rows),
            c=None if self.c is None else rows.take(self.c),
        )


@dataclass(frozen=True, kw_only=True)
class LogitMeans:
    """Exponential moving averages of the discriminator's mean logits, for LeCam.

    Source: Tseng et al. 2021 (LeCam); the decay is the paper's. They start at 0.

    Attributes:
        real: of real images, [].
        fake: of generated images, [].
    """

    real: Tensor
    fake: Tensor

    def updated(self, real: Tensor, fake: Tensor) -> "LogitMeans":
        """Return the averages after one more batch; a mean that is not finite is left out."""
        averages = [
            torch.where(
                torch.isfinite(mean),
                average.lerp(mean.to(average.dtype), 1 - LECAM_DECAY),
                average,
            )
            for average, mean in ((self.real, real), (self.fake, fake))
        ]
        return LogitMeans(real=averages[0], fake=averages[1])


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of one phase.

    Attributes:
        total: the value to differentiate, [].
        terms: named means for the log, [] each, detached.
    """

    total: Tensor
    terms: dict[str, Tensor]


def styles(generator: AbstractGenerator, inputs: GeneratorInputs) -> tuple[Tensor, Tensor]:
    """Return the ws for synthesis, and those before mixing, which w_avg is the mean of."""
    ws: Tensor = generator.mapping(inputs.z, inputs.c)
    if inputs.z_mix is None:
        return ws, ws
    return mix(ws, generator.mapping(inputs.z_mix, inputs.c), inputs.crossover), ws


def discriminator_input(
    generator: AbstractGenerator, ws: Tensor, inputs: GeneratorInputs
) -> Images:
    """Synthesize the discriminator's input from ws: images or an image pyramid."""
    noise_mode: NoiseMode = "const" if inputs.noise is None else "random"
    noise = tuple(inputs.noise) if isinstance(inputs.noise, GroupGenerators) else inputs.noise
    return generator.discriminator_input(ws, noise_mode=noise_mode, generator=noise)


def generator_loss(
    generator: AbstractGenerator,
    discriminator: AbstractDiscriminator,
    inputs: GeneratorInputs,
    *,
    config: LossConfig,
    augment: Augment | None = None,
) -> Loss:
    """Loss of the phase "G": `E[softplus(-D(T(G(z))))]`, or `-E[D(T(G(z)))]` for WGAN-GP.

    T is the augmentation, if there is one. With a discriminator that predicts labels (AC-GAN), the
    cross-entropy of the labels of the generated images is added.
    """
    ws, _ = styles(generator, inputs)
    fakes = _augmented(discriminator_input(generator, ws, inputs), augment)
    logits, label_logits = discriminator.logits_and_labels(fakes, inputs.c)
    is_logistic = config.adversarial == "logistic"
    total = (generator_logistic(logits) if is_logistic else generator_wasserstein(logits)).mean()
    terms = {"loss/G": total.detach()}
    if label_logits is not None and inputs.c is not None:
        terms["label_loss/G"], total = _add_label_loss(total, label_logits, inputs.c)
    return Loss(total=total, terms=terms)


def sampled_path_lengths(
    generator: AbstractGenerator,
    inputs: GeneratorInputs,
    *,
    draw_noise: Callable[[torch.Size], Tensor],
    features: Callable[[Tensor], Tensor] | None = None,
    create_graph: bool = True,
) -> Tensor:
    """Path lengths `|J^T y|` at sampled latents, [N].

    Args:
        generator: G.
        inputs: of the reduced batch.
        draw_noise: returns y, standard normal, of the given shape: that of the images at full size,
            or of their features.
        features: maps images to features [N, K], whose path lengths are taken; None for those of
            pixels.
        create_graph: whether the lengths are to be differentiated.
    """
    ws, _ = styles(generator, inputs)
    if not ws.requires_grad:  # the mapping network is frozen
        ws.requires_grad_()
    images = discriminator_input(generator, ws, inputs)
    largest = images if isinstance(images, Tensor) else images[0]
    outputs = largest if features is None else features(largest)
    return path_lengths(outputs, ws, draw_noise(outputs.shape), create_graph=create_graph)


def path_length_loss(
    lengths: Tensor, *, pl_mean: Tensor, config: LossConfig, batch_mean: Tensor | None = None
) -> tuple[Loss, Tensor]:
    """Loss of the phase "path_length": `pl_weight * pl_interval * E[(length - mean)^2]`.

    Args:
        lengths: from `sampled_path_lengths`, of the batch or a micro-batch.
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


def needs_second_derivatives(config: LossConfig) -> bool:
    """Whether the loss of the phase "D" differentiates D's gradient."""
    if config.adversarial == "wgan-gp":
        return config.gp_weight > 0
    return config.r1_interval is None and decided(config.gamma, "loss.gamma") > 0


def discriminator_loss(
    discriminator: AbstractDiscriminator,
    reals: Tensor,
    fakes: Images,
    *,
    config: LossConfig,
    alpha: Tensor | None = None,
    real_c: Tensor | None = None,
    fake_c: Tensor | None = None,
    augment_reals: Augment | None = None,
    augment_fakes: Augment | None = None,
    logit_means: LogitMeans | None = None,
) -> Loss:
    """Loss of the phase "D": `E[softplus(-D(x))] + E[softplus(D(G(z)))]`.

    For WGAN-GP it is `E[D(G(z))] - E[D(x)]` with drift and gradient penalty. R1 is added here
    if it has no interval. With a discriminator that predicts labels (AC-GAN), the cross-entropies
    of the labels of real and generated images are added.

    Args:
        discriminator: D.
        reals: real images x, [N, C, R, R].
        fakes: generated images, likewise, or their image pyramid.
        config: weights.
        alpha: for "wgan-gp", interpolation between real (0) and generated (1) images at which
            each gradient is taken, [N], uniform. The label there is that of the real image.
        real_c: labels of the real images, [N, c_dim]; None for networks without labels.
        fake_c: labels of the generated images, likewise.
        augment_reals: augmentation of the real images. R1 is differentiated through it; the
            penalty of WGAN-GP is taken between augmented images.
        augment_fakes: augmentation of the generated images.
        logit_means: moving averages of the logits, for LeCam.

    Raises:
        ValueError: for LeCam without means, for "wgan-gp" without alpha, or with an image pyramid.
    """
    has_r1 = config.r1_interval is None and decided(config.gamma, "loss.gamma") > 0
    reals = reals.detach().requires_grad_(has_r1)
    seen = reals if augment_reals is None else augment_reals(reals)
    fakes = _augmented(fakes, augment_fakes)
    real_logits, real_label_logits = discriminator.logits_and_labels(seen, real_c)
    fake_logits, fake_label_logits = discriminator.logits_and_labels(fakes, fake_c)
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
            penalty = _interpolated_penalty(discriminator, seen, fakes, alpha, config, real_c)
            total = total + config.gp_weight * penalty.mean()
            terms["gradient_penalty"] = penalty.detach().mean()
    if config.lecam_weight > 0:
        if logit_means is None:
            raise ValueError("lecam_weight needs logit_means")
        penalty = lecam_penalty(
            real_logits, fake_logits, real_mean=logit_means.real, fake_mean=logit_means.fake
        )
        total = total + config.lecam_weight * penalty.mean()
        terms["lecam/penalty"] = penalty.detach().mean()
    if has_r1:
        penalty = _scaled_r1(discriminator, real_logits, reals)
        total = total + decided(config.gamma, "loss.gamma") / 2 * penalty.mean()
        terms["r1/penalty"] = penalty.detach().mean()
    for name, label_logits, c in (
        ("real", real_label_logits, real_c),
        ("fake", fake_label_logits, fake_c),
    ):
        if label_logits is not None and c is not None:
            terms[f"label_loss/{name}"], total = _add_label_loss(total, label_logits, c)
    return Loss(total=total, terms=terms)


def r1_loss(
    discriminator: AbstractDiscriminator,
    reals: Tensor,
    *,
    config: LossConfig,
    real_c: Tensor | None = None,
    augment: Augment | None = None,
) -> Loss:
    """Loss of the phase "R1": `gamma / 2 * r1_interval * E[|dD(T(x))/dx|^2]` at real images x.

    Args:
        discriminator: D.
        reals: [N, C, R, R].
        config: weights.
        real_c: labels of the images, [N, c_dim]; None for networks without labels.
        augment: T, the augmentation; the gradient is that of the images before it.
    """
    reals = reals.detach().requires_grad_()
    logits = discriminator(reals if augment is None else augment(reals), real_c)
    penalty = _scaled_r1(discriminator, logits, reals)
    total = penalty.mean() * (decided(config.gamma, "loss.gamma") / 2 * (config.r1_interval or 1))
    terms = {"r1/penalty": penalty.detach().mean(), "r1/real_sign": logits.detach().sign().mean()}
    return Loss(total=total, terms=terms)


def _augmented(images: Images, augment: Augment | None) -> Images:
    """Augment images.

    Raises:
        ValueError: for an image pyramid.
    """
    if augment is None:
        return images
    if not isinstance(images, Tensor):
        raise ValueError("augmentation needs images of one size, not an image pyramid")
    return augment(images)


def _add_label_loss(total: Tensor, label_logits: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the label loss for the log, and the total including it, with weight 1."""
    label_loss = label_cross_entropy(label_logits, c).mean()
    return label_loss.detach(), total + label_loss


def _scaled_r1(discriminator: AbstractDiscriminator, logits: Tensor, reals: Tensor) -> Tensor:
    scale = gradient_scale(reals, discriminator.img_size)
    return r1_penalty(logits, reals) * scale**2


def _interpolated_penalty(
    discriminator: AbstractDiscriminator,
    reals: Tensor,
    fakes: Images,
    alpha: Tensor | None,
    config: LossConfig,
    c: Tensor | None,
) -> Tensor:
    if alpha is None or not isinstance(fakes, Tensor):
        raise ValueError("wgan-gp needs alpha [N], and images of one size")
    weight = alpha.to(reals.dtype)[:, None, None, None]
    interpolated = reals.detach().lerp(fakes.detach(), weight).requires_grad_()
    return gradient_penalty(
        discriminator(interpolated, c),
        interpolated,
        target=config.gp_target,
        scale=gradient_scale(interpolated, discriminator.img_size),
    )
