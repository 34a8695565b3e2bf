"""Convolution with weights that are modulated by a style and demodulated."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.ops.bias_act import LRELU_SLOPE, Activation
from stylegan.ops.epilogue import epilogue
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
    act: Activation = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    form: Literal["scaled", "grouped"] = "scaled",
) -> Tensor:
    """Convolve each sample with its own weights: `clamp(act(W'' * x + noise + bias) * gain)`.

    Modulation scales the input channels, `W' = s_i W`; demodulation brings each output
    channel back to unit norm, `W'' = W' / sqrt(sum(W'^2) + 1e-8)`.

    The two forms give equal results. "grouped" builds the N weights, as in the equations.
    "scaled" multiplies the activations before and after one convolution that all samples share,
    which needs no copies of the weights and uses the platform's fast kernels.

    Source: Karras et al. 2020 (StyleGAN2), section 2.2, equations 1 and 3.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k]. With demodulation its scale does not matter.
        styles: [N, I], about 1.
        demodulate: False for RGB layers.
        up_kernel: FIR filter [T, T] to double the size, as in `conv2d_up`; None keeps the size.
        noise: [H', W'] for all samples, or [N, 1, H', W']; added after demodulation.
        bias: [O].
        act: "linear", or "lrelu" with slope 0.2.
        gain: factor on the result, not negative. It is applied before the activation, which
            commutes with it.
        clamp: bound on the magnitude of the result, or None.
        form: "scaled" or "grouped".

    Returns:
        [N, O, H', W'] in the dtype of `x`. Differentiable twice.
    """
    if x.dtype == torch.float16 and demodulate:
        # Demodulation cancels both factors; without them x * s overflows.
        fan_in = weight[0].numel()
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * fan_in**0.5)
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    noise = None if noise is None else noise * gain
    bias = None if bias is None else bias * gain
    convolve = _scaled if form == "scaled" else _grouped
    y, scale = convolve(x, weight, styles, demodulate, up_kernel, gain)
    slope = LRELU_SLOPE if act == "lrelu" else 1.0
    return epilogue(y, scale=scale, noise=noise, bias=bias, slope=slope, clamp=clamp)


def _scaled(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demodulate: bool,
    up_kernel: Tensor | None,
    gain: float,
) -> tuple[Tensor, Tensor | None]:
    """Return the convolution of scaled features, and the scale of each output channel."""
    x = x * styles.to(x.dtype)[:, :, None, None]
    if not demodulate:
        return _convolve(x, (weight * gain).to(x.dtype), up_kernel, groups=1), None
    # The sum over I, k, k of (s W)^2 is a matrix product, without building N weights.
    squares = weight.square().sum(dim=(2, 3)).to(styles.dtype)  # [O, I]
    energy = styles.square() @ squares.t()  # [N, O]
    return _convolve(x, weight.to(x.dtype), up_kernel, groups=1), (energy + EPS).rsqrt() * gain


def _grouped(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demodulate: bool,
    up_kernel: Tensor | None,
    gain: float,
) -> tuple[Tensor, None]:
    """Return the convolution of each sample with separate weights, already scaled."""
    num = x.shape[0]
    weights = weight * styles[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        weights = weights * (weights.square().sum(dim=(2, 3, 4), keepdim=True) + EPS).rsqrt()
    x = x.reshape(1, -1, *x.shape[2:])  # [1, N * I, H, W]
    y = _convolve(x, (weights * gain).flatten(0, 1).to(x.dtype), up_kernel, groups=num)
    return y.reshape(num, -1, *y.shape[2:]), None


def _convolve(x: Tensor, weight: Tensor, up_kernel: Tensor | None, *, groups: int) -> Tensor:
    if up_kernel is not None:
        return conv2d_up(x, weight, up_kernel, groups=groups)
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
