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
    # Samples do not interact in the sum, so its gradient is each sample's own.
    # (The minibatch-stddev layer breaks this slightly; the official code accepts it too.)
    (grad,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return grad.square().sum(dim=(1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """Length of the step that an image takes per unit step in w, along a random direction.

    `|J^T y|`, with y the noise divided by sqrt(H * W): the squared gradient is summed over
    w_dim and averaged over style inputs.

    Source: Karras et al. 2020 (StyleGAN2), section 3.2, equation 4, and appendix B.

    Args:
        images: [N, C, H, W], made from `ws`.
        ws: [N, num_ws, w_dim], with `requires_grad` set before `images` were made.
        noise: standard normal, the shape of `images`.

    Returns:
        [N], differentiable a second time.

    Raises:
        ValueError: if `ws` does not require grad.
    """
    if not ws.requires_grad:
        raise ValueError("path_lengths needs ws that require grad before the images are made")
    height, width = images.shape[2:]
    projection = (images * noise).sum() / math.sqrt(height * width)
    (grad,) = torch.autograd.grad(projection, ws, create_graph=True)
    return grad.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, mean: Tensor, *, decay: float) -> tuple[Tensor, Tensor]:
    """Squared deviation of path lengths from their running mean, which moves first.

    The mean that enters the penalty is not detached, as in the official code: a small part,
    `decay`, of the gradient flows through it.

    Args:
        lengths: [N].
        mean: running mean so far, [], without graph.
        decay: share of the batch in the new mean, 0.01 in the paper.

    Returns:
        The penalty [N], and the new mean [], detached.
    """
    mean = mean.lerp(lengths.mean(), decay)
    return (lengths - mean).square(), mean.detach()
