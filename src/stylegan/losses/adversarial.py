"""The adversarial game, one number per sample.

Source: Goodfellow et al. 2014, section 3; Karras et al. 2020 (StyleGAN2), appendix B; for the
Wasserstein game Gulrajani et al. 2017 (WGAN-GP).
"""

import torch.nn.functional as F
from torch import Tensor


def generator_logistic(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of the generator, `softplus(-D(G(z)))`: [N, 1] to [N]."""
    return F.softplus(-fake_logits).squeeze(1)


def discriminator_logistic_real(real_logits: Tensor) -> Tensor:
    """Loss of the discriminator at real images, `softplus(-D(x))`: [N, 1] to [N]."""
    return F.softplus(-real_logits).squeeze(1)


def discriminator_logistic_fake(fake_logits: Tensor) -> Tensor:
    """Loss of the discriminator at generated images, `softplus(D(G(z)))`: [N, 1] to [N]."""
    return F.softplus(fake_logits).squeeze(1)


def generator_wasserstein(fake_logits: Tensor) -> Tensor:
    """Wasserstein loss of the generator, `-D(G(z))`: [N, 1] to [N].

    Source: Gulrajani et al. 2017 (WGAN-GP), algorithm 1.
    """
    return -fake_logits.squeeze(1)


def discriminator_wasserstein(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Wasserstein loss of the discriminator, `D(G(z)) - D(x)`: two of [N, 1] to [N].

    Source: Gulrajani et al. 2017 (WGAN-GP), algorithm 1, without the gradient penalty.
    """
    return (fake_logits - real_logits).squeeze(1)
