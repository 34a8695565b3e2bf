"""Normalizations without parameters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pixel_norm(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Scale [N, C, ...] to unit second moment over C: `x / sqrt(mean(x^2) + eps)`.

    Latents are projected to a sphere of radius sqrt(C). The mean is computed in float32 at least.

    Source: Karras et al. 2018 (ProGAN), section 4.2.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    # Squares stay in the dtype of x: the backward pass would store a wider copy.
    mean = x.square().mean(dim=1, keepdim=True, dtype=wide)
    return x * (mean + eps).rsqrt().to(x.dtype)


def adain(x: Tensor, scale: Tensor, shift: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Adaptive instance normalization: `(x - mean) / std * scale + shift`.

    Mean and variance are those of each channel of each sample over its pixels (divided by H * W),
    computed in float32 at least. Differentiable any number of times with respect to all three.

    Source: Karras et al. 2019 (StyleGAN), equation 1.

    Args:
        x: [N, C, H, W].
        scale: the style's y_s, [N, C], float32 or wider.
        shift: the style's y_b, [N, C], float32 or wider.
        eps: added to the variance.

    Returns:
        The shape and dtype of `x`.
    """
    scale, shift = scale[:, :, None, None], shift[:, :, None, None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, scale, shift)):
        apply: Callable[..., Tensor] = _AdaIN.apply
        return apply(x, scale, shift, eps)
    return _adain(x, scale, shift, eps)[0]


def _adain(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result, and the mean and the inverse std of x, [N, C, 1, 1] each."""
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = y.mean(dim=(2, 3), keepdim=True)
    rstd = ((y - mean).square().mean(dim=(2, 3), keepdim=True) + eps).rsqrt()
    gain = rstd * scale
    return torch.addcmul(shift - mean * gain, y, gain).to(x.dtype), mean, rstd


class _AdaIN(torch.autograd.Function):
    """AdaIN with a gradient in closed form, which takes a third of autograd's time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        y, mean, rstd = _adain(x, scale, shift, eps)
        ctx.save_for_backward(x, scale, shift, mean, rstd)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated again
            y = _adain(x, scale, shift, ctx.eps)[0]
            inputs = [t for t in (x, scale, shift) if t.requires_grad]
            grads = iter(torch.autograd.grad(y, inputs, grad, create_graph=True))
            return (*(next(grads) if t.requires_grad else None for t in (x, scale, shift)), None)
        y, grad = x.to(mean.dtype), grad.to(mean.dtype)
        shift_grad = grad.sum(dim=(2, 3), keepdim=True)
        scale_grad = ((grad * y).sum(dim=(2, 3), keepdim=True) - mean * shift_grad) * rstd
        # The gradient's projection orthogonal to changes of mean and variance.
        gain, num = rstd * scale, x.shape[2] * x.shape[3]
        slope = -gain * rstd * scale_grad / num
        x_grad = torch.addcmul(-gain * shift_grad / num - mean * slope, grad, gain)
        return x_grad.addcmul_(y, slope).to(x.dtype), scale_grad, shift_grad, None


def stddev_group(group_size: int | None, num: int) -> int:
    """Return the samples of a group of `minibatch_stddev` in a batch of `num`."""
    return num if group_size is None else min(group_size, num)


def minibatch_stddev(x: Tensor, *, group_size: int | None, num_channels: int = 1) -> Tensor:
    """Append the standard deviation over groups of samples as constant channels.

    Sample n belongs to group `n % M` of `M = N / group_size` groups, as in the official code:
    groups are strided, not contiguous.

    Source: Karras et al. 2018 (ProGAN), section 3.

    Args:
        x: [N, C, H, W].
        group_size: samples in a group; N where N is smaller, and for None.
        num_channels: number of statistics F; each averages over C / F of the channels.

    Returns:
        [N, C + F, H, W].

    Raises:
        ValueError: if N is not a multiple of the group size, or C of F.
    """
    num, channels, height, width = x.shape
    group_size = stddev_group(group_size, num)
    if num % group_size or channels % num_channels:
        raise ValueError(
            f"minibatch_stddev needs a batch that is a multiple of the group size and channels "
            f"that are a multiple of num_channels, got {num} / {group_size} and "
            f"{channels} / {num_channels}"
        )
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    y = y.reshape(group_size, -1, num_channels, channels // num_channels, height, width)
    variance = (y - y.mean(dim=0)).square().mean(dim=0)  # [M, F, C/F, H, W]
    stddev = (variance + 1e-8).sqrt().mean(dim=(2, 3, 4))  # [M, F]
    stddev = stddev.repeat(group_size, 1).to(x.dtype)  # sample n gets group n % M
    return torch.cat([x, stddev[:, :, None, None].expand(-1, -1, height, width)], dim=1)
