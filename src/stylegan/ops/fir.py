"""FIR filtering with up- and downsampling, in plain PyTorch or by a kernel.

Every function works in any float dtype, on any device and memory format, and can be differentiated
any number of times with respect to the image. Filters are constants.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.ops.backend import is_fused, is_portable

RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)
"""The binomial low-pass filter of StyleGAN2 (Karras et al. 2020, appendix B)."""

BLUR_TAPS = (1.0, 2.0, 1.0)
"""The low-pass filter of StyleGAN (Karras et al. 2019, appendix C)."""


def fir_kernel(taps: Sequence[float] | Tensor) -> Tensor:
    """Return a float32 2D kernel that sums to 1.

    Args:
        taps: [T_y, T_x], or [T] for the outer product of `taps` with itself.

    Raises:
        ValueError: if `taps` has another number of dimensions.
    """
    kernel = torch.as_tensor(taps, dtype=torch.float32)
    if kernel.ndim == 1:
        kernel = kernel[:, None] @ kernel[None]
    if kernel.ndim != 2:
        raise ValueError(f"taps must be 1D or 2D, got {list(kernel.shape)}")
    # In place: on the meta device, where weights are checked before they are read, torch imports
    # its compiler for `/`, which takes two seconds.
    return kernel.clone().div_(kernel.sum())


def upfirdn2d(
    x: Tensor,
    kernel: Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Upsample with zeros, pad, filter and downsample each channel, in this order.

    1. Insert `up - 1` zeros after each sample, including the last one.
    2. Pad with zeros; a negative number crops.
    3. Convolve with `kernel` at valid positions only. (Convolution mirrors the kernel.)
    4. Keep every `down`-th sample, starting with the first one.

    Args:
        x: [N, C, H, W].
        kernel: [T_y, T_x], from `fir_kernel`.
        up: integer upsampling factor.
        down: integer downsampling factor.
        padding: samples added left, right, top, bottom, counted after upsampling.
        flip: correlate instead of convolving.
        gain: factor on the result.

    Returns:
        [N, C, H', W'] with `H' = (H * up + top + bottom - T_y) // down + 1`.

    Source: Karras et al. 2020 (StyleGAN2), appendix B.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        apply: Callable[..., Tensor] = _UpFirDn2d.apply
        return apply(x, kernel, up, down, padding, flip, gain)
    return _upfirdn2d(x, kernel, up, down, padding, flip, gain)


def _upfirdn2d(
    x: Tensor,
    kernel: Tensor,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    flip: bool,
    gain: float,
) -> Tensor:
    """Compute `upfirdn2d` without its custom gradient."""
    if not is_fused(x):
        return _reference(x, kernel, up, down, padding, flip, gain)
    from stylegan.ops import kernels

    taps = (kernel if flip else kernel.flip(0, 1)) * gain
    return kernels.upfirdn(x, taps.to(x.device), up=up, down=down, padding=padding)


def _reference(
    x: Tensor,
    kernel: Tensor,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    flip: bool,
    gain: float,
) -> Tensor:
    """Compute `upfirdn2d` in plain PyTorch."""
    if up > 1:
        x = _insert_zeros(x, up)
    channels = x.shape[1]
    weight = kernel if flip else kernel.flip(0, 1)
    weight = (weight * gain).to(device=x.device, dtype=x.dtype).expand(channels, 1, -1, -1)
    left, right, top, bottom = padding
    is_even = left == right and top == bottom
    if min(padding) < 0 or (down > 1 and not is_even):
        return F.conv2d(F.pad(x, padding), weight, stride=down, groups=channels)
    # Padding within the convolution saves a copy, but is symmetric: crop the excess after it.
    pad_y, pad_x = max(top, bottom), max(left, right)
    y = F.conv2d(x, weight, stride=down, padding=(pad_y, pad_x), groups=channels)
    if is_even:
        return y
    height, width = y.shape[2] - abs(bottom - top), y.shape[3] - abs(right - left)
    return y.narrow(2, pad_y - top, height).narrow(3, pad_x - left, width)


class _UpFirDn2d(torch.autograd.Function):
    """A custom gradient: the same operation with up and down exchanged and a mirrored kernel.

    Autograd through the convolution would be correct too, but oneDNN's backward pass of a
    strided depthwise convolution is ten times slower.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernel: Tensor,
        up: int,
        down: int,
        padding: tuple[int, int, int, int],
        flip: bool,
        gain: float,
    ) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.options = (up, down, padding, flip, gain)
        y = _upfirdn2d(x, kernel, up, down, padding, flip, gain)
        ctx.sides = (*x.shape[2:], *y.shape[2:])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        up, down, (left, _, top, _), flip, gain = ctx.options
        height, width, out_height, out_width = ctx.sides
        taps_y, taps_x = kernel.shape
        padding = (
            taps_x - left - 1,
            width * up - out_width * down + left - up + 1,
            taps_y - top - 1,
            height * up - out_height * down + top - up + 1,
        )
        x_grad = upfirdn2d(
            grad, kernel, up=down, down=up, padding=padding, flip=not flip, gain=gain
        )
        return (x_grad, *[None] * 6)


def filter2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter [N, C, H, W] at the same size, with zeros outside the border."""
    taps_y, taps_x = kernel.shape
    padding = (taps_x // 2, (taps_x - 1) // 2, taps_y // 2, (taps_y - 1) // 2)
    return upfirdn2d(x, kernel, padding=padding)


def upsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the size of [N, C, H, W]. A constant keeps its value, but for the border."""
    taps_y, taps_x = kernel.shape
    padding = ((taps_x + 1) // 2, (taps_x - 2) // 2, (taps_y + 1) // 2, (taps_y - 2) // 2)
    if is_portable():
        return _transposed_upsample2d(x, kernel)
    return upfirdn2d(x, kernel, up=2, padding=padding, gain=4)


def downsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Halve the size of [N, C, H, W]. A constant keeps its value, but for the border."""
    taps_y, taps_x = kernel.shape
    padding = ((taps_x - 1) // 2, (taps_x - 2) // 2, (taps_y - 1) // 2, (taps_y - 2) // 2)
    return upfirdn2d(x, kernel, down=2, padding=padding)


def _transposed_upsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Compute `upsample2d` as one transposed convolution, without inserting zeros."""
    channels, height, width = x.shape[1:]
    weight = (kernel * 4).to(device=x.device, dtype=x.dtype).expand(channels, 1, -1, -1)
    # The full result begins where the last tap meets the first sample.
    padding = [taps - 1 - (taps + 1) // 2 for taps in kernel.shape]
    y = F.conv_transpose2d(x, weight, stride=2, padding=padding, groups=channels)
    return y[:, :, : 2 * height, : 2 * width]


def _insert_zeros(x: Tensor, up: int) -> Tensor:
    num, channels, height, width = x.shape
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    spread = torch.empty(
        [num, channels, height * up, width * up],
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if is_last else torch.contiguous_format,
    ).zero_()
    spread[:, :, ::up, ::up] = x
    return spread
