"""Convolution whose weights are scaled by a style and normalized back."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.ops.resample_conv import conv2d_up

EPS = 1e-8


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    up_kernel: Tensor | None = None,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    gain: float = 1.0,
    form: Literal["scaled", "grouped"] = "scaled",
) -> Tensor:
    """Convolve each sample with its own weights, `gain * (W'' * x + noise + bias)`.

    Modulation scales the input channels, `W' = s_i W`; demodulation brings each output
    channel back to unit norm, `W'' = W' / sqrt(sum(W'^2) + 1e-8)`.

    The two forms give equal results. "grouped" builds the N weights and is the
    specification. "scaled" multiplies the activations before and after one convolution that
    all samples share: no copies of the weights, and the fast kernels of the platform.

    Source: Karras et al. 2020 (StyleGAN2), section 2.2, equations 1 and 3.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k]. With demodulation its scale does not matter.
        styles: [N, I], about 1.
        demodulate: False for the layers that make RGB.
        up_kernel: FIR filter [T, T]; doubles the size as in `conv2d_up`. None keeps the size.
        noise: [H', W'], or [N, 1, H', W'] for noise of each sample; added after demodulation.
        bias: [O].
        gain: factor on the whole result; the caller's leaky ReLU lets it pass.
        form: "scaled" or "grouped".

    Returns:
        [N, O, H', W'] in the dtype of `x`. Differentiable twice.
    """
    if x.dtype == torch.float16 and demodulate:
        # Demodulation cancels both factors; without them x * s overflows.
        fan_in = weight[0].numel()
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * fan_in**0.5)
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    run = _scaled if form == "scaled" else _grouped
    return run(x, weight, styles, demodulate, up_kernel, noise, bias, gain)


def _scaled(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demodulate: bool,
    up_kernel: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    gain: float,
) -> Tensor:
    x = x * styles.to(x.dtype)[:, :, None, None]
    if not demodulate:
        weight = weight * gain
    y = _convolve(x, weight.to(x.dtype), up_kernel, groups=1)
    shift, noise = _shift(noise, bias, gain, x.dtype)
    if demodulate:
        # sum over I, k, k of (s W)^2 is a matrix product: N weights are never built
        squares = weight.square().sum(dim=(2, 3)).to(styles.dtype)  # [O, I]
        energy = styles.square() @ squares.t()  # [N, O]
        scale = ((energy + EPS).rsqrt() * gain).to(x.dtype)[:, :, None, None]
        y = y * scale if shift is None else torch.addcmul(shift, y, scale)
    elif shift is not None:
        y = y + shift
    return y if noise is None else y + noise


def _shift(
    noise: Tensor | None, bias: Tensor | None, gain: float, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Return what all samples add, [O, 1, 1] or [O, H, W], and what each adds of its own."""
    noise = None if noise is None else noise * gain
    if bias is None:
        return None, None if noise is None else noise.to(dtype)
    bias = bias * gain
    if noise is not None and noise.ndim == 2:  # stored noise: one pass over the features less
        return (noise[:, :, None] + bias).to(dtype).permute(2, 0, 1), None
    return bias.to(dtype)[:, None, None], None if noise is None else noise.to(dtype)


def _grouped(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demodulate: bool,
    up_kernel: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    gain: float,
) -> Tensor:
    num = x.shape[0]
    weights = weight * styles[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        weights = weights * (weights.square().sum(dim=(2, 3, 4), keepdim=True) + EPS).rsqrt()
    x = x.reshape(1, -1, *x.shape[2:])  # [1, N * I, H, W]
    y = _convolve(x, weights.flatten(0, 1).to(x.dtype), up_kernel, groups=num)
    y = y.reshape(num, -1, *y.shape[2:])
    if noise is not None:
        y = y + noise.to(y.dtype)
    if bias is not None:
        y = y + bias.to(y.dtype)[:, None, None]
    return y * gain


def _convolve(x: Tensor, weight: Tensor, up_kernel: Tensor | None, *, groups: int) -> Tensor:
    if up_kernel is not None:
        return conv2d_up(x, weight, up_kernel, groups=groups)
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
