"""The operations after a convolution, fused: scale, noise, bias, leaky ReLU, clamp.

Source: Karras et al. 2020 (StyleGAN2), figure 2d, for the order.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.ops.backend import is_fused


def epilogue(
    x: Tensor,
    *,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    slope: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """Compute `clamp(lrelu(x * scale + noise + bias))`. `x` may be overwritten.

    Both implementations compute this function in at least float32 if `x` is float32. In half
    precision the kernel rounds once, the result; plain PyTorch rounds after each operation, so
    that its error is up to five times as large. Rounding once would cost it half as much time
    again, for float32 copies of the features.

    Args:
        x: [N, C, H, W].
        scale: [N, C], or None.
        noise: [H, W] for all samples, or [N, 1, H, W], or None.
        bias: [C], or None.
        slope: slope of the leaky ReLU below 0; 1 for no activation.
        clamp: bound on the magnitude, or None.

    Returns:
        The shape and dtype of `x`. Differentiable any number of times; the second derivative of
        leaky ReLU and clamp is zero almost everywhere.
    """
    if not is_fused(x):
        return _reference(x, scale, noise, bias, slope=slope, clamp=clamp)
    noise = noise[None, None] if noise is not None and noise.ndim == 2 else noise
    apply: Callable[..., Tensor] = _Epilogue.apply
    return apply(x, scale, noise, bias, slope, clamp)


def _reference(
    x: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    *,
    slope: float,
    clamp: float | None,
) -> Tensor:
    """Compute `epilogue` in plain PyTorch, with as few passes over `x` as possible."""
    shift, sample_noise = _shift(noise, bias, x.dtype)
    if scale is not None:
        factor = scale.to(x.dtype)[:, :, None, None]
        x = x * factor if shift is None else torch.addcmul(shift, x, factor)
    elif shift is not None:
        x = x + shift
    if sample_noise is not None:
        x = x + sample_noise
    if slope != 1:
        x = F.leaky_relu(x, slope, inplace=True)
    return x if clamp is None else x.clamp(-clamp, clamp)


def _shift(
    noise: Tensor | None, bias: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Return the sum of bias and shared noise, [C, 1, 1] or [C, H, W], and the remaining noise."""
    if bias is None:
        return None, None if noise is None else noise.to(dtype)
    if noise is not None and noise.ndim == 2:  # saves one pass over the features
        return (noise[:, :, None] + bias).to(dtype).permute(2, 0, 1), None
    return bias.to(dtype)[:, None, None], None if noise is None else noise.to(dtype)


class _Epilogue(torch.autograd.Function):
    """The kernel. Its gradient consists of another kernel, `_Slope`, and sums."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        noise: Tensor | None,
        bias: Tensor | None,
        slope: float,
        clamp: float | None,
    ) -> Tensor:
        from stylegan.ops import kernels

        y = kernels.epilogue(x, scale, noise, bias, slope=slope, clamp=clamp)
        ctx.save_for_backward(x if scale is not None else None, scale, y)
        ctx.slope, ctx.clamp = slope, clamp
        ctx.dtypes = [None if t is None else t.dtype for t in (scale, noise, bias)]
        ctx.shares_noise = noise is not None and len(noise) == 1
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, y = ctx.saved_tensors
        apply: Callable[..., Tensor] = _Slope.apply
        needs_x, needs_scale, needs_noise, needs_bias = ctx.needs_input_grad[:4]
        scale_dtype, noise_dtype, bias_dtype = ctx.dtypes
        x_grad = scale_grad = noise_grad = bias_grad = None
        is_plain = not (needs_scale or needs_noise or needs_bias)
        if is_plain and not torch.is_grad_enabled() and scale is not None:
            from stylegan.ops import kernels

            x_grad = kernels.epilogue_slope(grad, y, scale, slope=ctx.slope, clamp=ctx.clamp)
            return x_grad, None, None, None, None, None
        inner = apply(grad, y, ctx.slope, ctx.clamp)
        if needs_x:
            x_grad = inner if scale is None else inner * scale.to(inner.dtype)[:, :, None, None]
        if needs_scale:
            scale_grad = (inner * x).sum(dim=(2, 3), dtype=scale_dtype)
        if needs_noise:
            noise_grad = inner.sum(dim=1, keepdim=True, dtype=noise_dtype)
            if ctx.shares_noise:
                noise_grad = noise_grad.sum(dim=0, keepdim=True)
        if needs_bias:
            bias_grad = inner.sum(dim=(0, 2, 3), dtype=bias_dtype)
        return x_grad, scale_grad, noise_grad, bias_grad, None, None


class _Slope(torch.autograd.Function):
    """Multiplication by the epilogue's derivative at y: linear and self-adjoint."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor, slope: float, clamp: float | None) -> Tensor:
        from stylegan.ops import kernels

        ctx.save_for_backward(y)
        ctx.slope, ctx.clamp = slope, clamp
        return kernels.epilogue_slope(grad, y, None, slope=slope, clamp=clamp)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        apply: Callable[..., Tensor] = _Slope.apply
        return apply(grad, y, ctx.slope, ctx.clamp), None, None, None
