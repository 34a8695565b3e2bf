"""Regularizers of both networks, one value per sample, without their weights."""

import math

import torch
from torch import Tensor

from stylegan.image_size import ImageSize


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Squared gradient norm of the discriminator at real images.

    The caller multiplies by gamma / 2, and by the interval if applied lazily.

    Source: Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?",
    the penalty called R1, without its factor gamma / 2.

    Args:
        logits: discriminator outputs for `images`, [N, 1], unnormalized.
        images: real images, [N, C, H, W] in [-1, 1], with `requires_grad` set
            before the forward pass that made `logits`.

    Returns:
        [N], differentiable a second time. It is a sum over pixels, not a mean, so it
        grows with resolution, and so does the influence of a fixed gamma.

    Raises:
        ValueError: if `images` does not require grad.
    """
    if not images.requires_grad:
        raise ValueError("r1_penalty needs images.requires_grad_() before D(images)")
    return _squared_norm(logits, images)


def gradient_penalty(
    logits: Tensor, images: Tensor, *, target: float = 1.0, scale: float = 1.0
) -> Tensor:
    """Relative squared distance of the discriminator's gradient norm from a target.

    `((scale * |dD/dx| - target) / target)^2`; the caller multiplies by its weight, 10.

    Source: Gulrajani et al. 2017 (WGAN-GP), section 4, with a target of 1; the target is a
    parameter in Karras et al. 2018 (ProGAN).

    Args:
        logits: discriminator outputs for `images`, [N, 1].
        images: interpolations of real and generated images, [N, C, H, W], with
            `requires_grad` set before the forward pass that made `logits`.
        target: target of the norm, above 0.
        scale: factor on the norm; see `gradient_scale`.

    Returns:
        [N], differentiable a second time where the gradient is not zero everywhere.

    Raises:
        ValueError: if `images` does not require grad.
    """
    if not images.requires_grad:
        raise ValueError("gradient_penalty needs images.requires_grad_() before D(images)")
    norm = _squared_norm(logits, images).sqrt() * scale
    return ((norm - target) / target).square()


def gradient_scale(images: Tensor, full: ImageSize) -> float:
    """Return the factor from gradient norms at images to those in the published networks.

    The published networks grow at a fixed input size R: an image of r x r pixels is enlarged by
    repeating each pixel s = R / r times along both axes, and the network first averages over
    s x s pixels. The gradient at each of the s^2 copies is 1 / s^2 of the gradient at the pixel, so
    the squared norm over all copies is s^2 (1 / s^2)^2 = 1 / s^2 of ours, and the norm is 1 / s.
    Published weights of gradient penalties apply to that norm, at every level of detail.

    Args:
        images: [N, C, h, w].
        full: full size of the networks' images, of which r / R is the same for both sides.
    """
    return images.shape[-1] / full.width


def _squared_norm(logits: Tensor, images: Tensor) -> Tensor:
    # Samples do not interact in the sum, so its gradient is each sample's own.
    # (The minibatch-stddev layer breaks this slightly; the official code accepts it too.)
    (grad,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return grad.square().sum(dim=(1, 2, 3))


def lecam_penalty(
    real_logits: Tensor, fake_logits: Tensor, *, real_mean: Tensor, fake_mean: Tensor
) -> Tensor:
    """Squared distance by which logits are beyond the mean logit of the other kind of images.

    `relu(D(x) - fake_mean)^2 + relu(real_mean - D(G(z)))^2`. It keeps the outputs of a
    discriminator that has memorized its training images close to each other. The caller multiplies
    by its weight, 3e-7 to 1e-6.

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data"
    (LeCam).

    Args:
        real_logits: discriminator outputs for real images, [N, 1].
        fake_logits: those for generated images, [N, 1].
        real_mean: moving average of the mean logit of real images, [], without graph.
        fake_mean: that of generated images, [], without graph.

    Returns:
        [N].
    """
    real_excess = (real_logits - fake_mean).relu()
    fake_excess = (real_mean - fake_logits).relu()
    return (real_excess.square() + fake_excess.square()).squeeze(1)


def path_lengths(
    outputs: Tensor, ws: Tensor, noise: Tensor, *, create_graph: bool = True
) -> Tensor:
    """Length of the change of images, or of their features, per unit step in w.

    `|J^T y|`, along a random direction y of the outputs: the squared gradient is summed over w_dim
    and averaged over style inputs. For images, y is the noise divided by sqrt(H * W). A growing
    network needs no correction: in the published networks the noise at the s^2 = (R / r)^2 copies
    of each pixel, divided by R, sums to a standard deviation of s / R = 1 / r per pixel, which is
    what H = W = r gives.

    Source: Karras et al. 2020 (StyleGAN2), section 3.2, equation 4, and appendix B.

    Args:
        outputs: images [N, C, H, W], synthesized from `ws`, or their features [N, K].
        ws: [N, num_ws, w_dim], with `requires_grad` set before the images were synthesized.
        noise: standard normal, of the shape of `outputs`.
        create_graph: whether the lengths are to be differentiated.

    Returns:
        [N], differentiable a second time with `create_graph`.

    Raises:
        ValueError: if `ws` does not require grad.
    """
    if not ws.requires_grad:
        raise ValueError("path_lengths needs ws.requires_grad_() before the images are synthesized")
    # Divide at the end: gradients of noise this small would underflow in float16 layers.
    (grad,) = torch.autograd.grad((outputs * noise).sum(), ws, create_graph=create_graph)
    grad = grad / math.sqrt(math.prod(outputs.shape[2:]))
    return grad.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(
    lengths: Tensor, mean: Tensor, *, decay: float, batch_mean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Squared distance of path lengths from their running mean, after updating the mean.

    The updated mean is not detached, as in the official code, so a small part (`decay`) of the
    gradient flows through it. The mean depends on the whole batch, of which a rank or micro-batch
    holds a part only, so that gradient is added in closed form: through the mean, the
    derivative of the mean penalty with respect to a length is `-2 decay (batch_mean - m) / N`.

    Args:
        lengths: [N], of the batch or a micro-batch.
        mean: running mean so far, [], without graph.
        decay: weight of the batch in the new mean, 0.01 in the paper.
        batch_mean: mean length of the whole batch, [], without graph; None for that of `lengths`.

    Returns:
        The penalty [N], and the new mean m, [], detached.
    """
    current = lengths.detach().mean() if batch_mean is None else batch_mean
    mean = mean.lerp(current, decay)
    # Its value is 0; its gradient is the gradient through the mean.
    through_mean = 2 * decay * (current - mean) * (lengths - lengths.detach())
    return (lengths - mean).square() - through_mean, mean
