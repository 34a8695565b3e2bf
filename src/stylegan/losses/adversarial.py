"""Adversarial losses, one value per sample.

Source: Goodfellow et al. 2014, section 3; Karras et al. 2020 (StyleGAN2), appendix B; for the
Wasserstein losses Gulrajani et al. 2017 (WGAN-GP).
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


def label_cross_entropy(label_logits: Tensor, c: Tensor) -> Tensor:
    """Softmax cross-entropy of predicted labels, `-log softmax(logits)` at each label: [N].

    Source: Odena et al. 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs",
    equation 3.

    Args:
        label_logits: predictions of the discriminator, [N, c_dim], unnormalized.
        c: the labels, one-hot, [N, c_dim].

    Raises:
        ValueError: if the shapes differ.
    """
    if label_logits.shape != c.shape:
        raise ValueError(f"c must be {list(label_logits.shape)}, got {list(c.shape)}")
    return F.cross_entropy(label_logits, c, reduction="none")
