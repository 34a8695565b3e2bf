"""Regularizers of both networks, one number per sample, without their weights."""

import math

import torch
from torch import Tensor


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
    """Squared distance of the discriminator's gradient norm from a target, over the target.

    `((scale * |dD/dx| - target) / target)^2`; the caller multiplies by its weight, 10.

    Source: Gulrajani et al. 2017 (WGAN-GP), section 4; the target of the norm, 1 there, is
    free in Karras et al. 2018 (ProGAN).

    Args:
        logits: discriminator outputs for `images`, [N, 1].
        images: points between real and generated images, [N, C, H, W], with `requires_grad`
            set before the forward pass that made `logits`.
        target: the norm to reach, above 0.
        scale: factor on the norm; see `enlargement`.

    Returns:
        [N], differentiable a second time where the gradient is not zero everywhere.

    Raises:
        ValueError: if `images` does not require grad.
    """
    if not images.requires_grad:
        raise ValueError("gradient_penalty needs images.requires_grad_() before D(images)")
    norm = _squared_norm(logits, images).sqrt() * scale
    return ((norm - target) / target).square()


def enlargement(images: Tensor, resolution: int) -> float:
    """Return the factor from gradient norms at images to those at the enlarged images.

    The published networks grow inside a fixed size: they are given each pixel of an image at
    r x r repeated s = R / r times along both axes, and take the mean over s x s pixels first. The
    gradient at one of the s^2 copies is thus 1 / s^2 of that at the pixel, and the squared norm
    over all copies is s^2 (1 / s^2)^2 = 1 / s^2 of ours: the norm is 1 / s. Published weights of
    gradient penalties are meant for that norm, at every level.

    Args:
        images: [N, C, r, r].
        resolution: R, the full side of the networks.
    """
    return images.shape[-1] / resolution


def _squared_norm(logits: Tensor, images: Tensor) -> Tensor:
    # Samples do not interact in the sum, so its gradient is each sample's own.
    # (The minibatch-stddev layer breaks this slightly; the official code accepts it too.)
    (grad,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return grad.square().sum(dim=(1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor, *, create_graph: bool = True) -> Tensor:
    """Length of the step that an image takes per unit step in w, along a random direction.

    `|J^T y|`, with y the noise divided by sqrt(H * W): the squared gradient is summed over
    w_dim and averaged over style inputs. A growing network needs no correction: noise over R x R
    copies of r x r pixels, s^2 = (R / r)^2 of them each, divided by R, sums to a deviation of
    s / R = 1 / r a pixel, which is what H = W = r gives.

    Source: Karras et al. 2020 (StyleGAN2), section 3.2, equation 4, and appendix B.

    Args:
        images: [N, C, H, W], made from `ws`.
        ws: [N, num_ws, w_dim], with `requires_grad` set before `images` were made.
        noise: standard normal, the shape of `images`.
        create_graph: whether the lengths are to be differentiated.

    Returns:
        [N], differentiable a second time with `create_graph`.

    Raises:
        ValueError: if `ws` does not require grad.
    """
    if not ws.requires_grad:
        raise ValueError("path_lengths needs ws that require grad before the images are made")
    height, width = images.shape[2:]
    # divided at the end: float16 has no room for what noise this small leaves in the layers
    (grad,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=create_graph)
    grad = grad / math.sqrt(height * width)
    return grad.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(
    lengths: Tensor, mean: Tensor, *, decay: float, batch_mean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Squared deviation of path lengths from their running mean, which moves first.

    The mean that enters the penalty is not detached, as in the official code: a small part,
    `decay`, of the gradient flows through it. As it depends on the whole batch, of which a
    process may hold a part only, that gradient is added in closed form: through the mean, a
    length's derivative of the mean penalty is `-2 decay (batch_mean - m) / N`.

    Args:
        lengths: [N], of a part of the batch or all of it.
        mean: running mean so far, [], without graph.
        decay: share of the batch in the new mean, 0.01 in the paper.
        batch_mean: mean length of the whole batch, [], without graph; None for that of `lengths`.

    Returns:
        The penalty [N], and the new mean m, [], detached.
    """
    known = lengths.detach().mean() if batch_mean is None else batch_mean
    mean = mean.lerp(known, decay)
    through_mean = 2 * decay * (known - mean) * (lengths - lengths.detach())  # of value 0
    return (lengths - mean).square() - through_mean, mean
