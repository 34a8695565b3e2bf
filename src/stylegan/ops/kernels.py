"""Triton kernels of memory-bound ops, imported on first use only.

Each computes its reference in one pass over memory: `epilogue` that of `ops/epilogue.py`, `upfirdn`
that of `ops/fir.py`. They compute in float32, or in float64 for float64 tensors, and round the
result once. Tensors are [N, C, H, W], contiguous or channels_last; results keep the layout.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
# Explicit, because Triton's default changes between versions, with a warning.
_OPTIONS = {"enable_fp_fusion": True}


@triton.jit
def _epilogue_kernel(
    x_ptr,
    scale_ptr,
    noise_ptr,
    bias_ptr,
    y_ptr,
    numel,
    channels,
    pixels,
    noise_step,
    slope: tl.constexpr,
    clamp: tl.constexpr,
    has_scale: tl.constexpr,
    has_noise: tl.constexpr,
    has_bias: tl.constexpr,
    has_clamp: tl.constexpr,
    is_last: tl.constexpr,
    is_wide: tl.constexpr,
    block: tl.constexpr,
):
    """Y = clamp(lrelu(x * scale[n, c] + noise[n, h, w] + bias[c]))."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = index < numel
    if is_last:
        channel = index % channels
        pixel = (index // channels) % pixels
    else:
        channel = (index // pixels) % channels
        pixel = index % pixels
    row = index // (channels * pixels)
    dtype = tl.float64 if is_wide else tl.float32
    value = tl.load(x_ptr + index, mask=mask, other=0.0).to(dtype)
    if has_scale:
        value *= tl.load(scale_ptr + row * channels + channel, mask=mask, other=0.0).to(dtype)
    if has_noise:
        value += tl.load(noise_ptr + row * noise_step + pixel, mask=mask, other=0.0).to(dtype)
    if has_bias:
        value += tl.load(bias_ptr + channel, mask=mask, other=0.0).to(dtype)
    value = tl.where(value > 0, value, value * slope)
    if has_clamp:
        bound = tl.full([block], clamp, dtype)
        value = tl.maximum(value, -bound, propagate_nan=tl.PropagateNan.ALL)
        value = tl.minimum(value, bound, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y_ptr + index, value.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _slope_kernel(
    grad_ptr,
    y_ptr,
    scale_ptr,
    out_ptr,
    numel,
    channels,
    pixels,
    slope: tl.constexpr,
    clamp: tl.constexpr,
    has_scale: tl.constexpr,
    has_clamp: tl.constexpr,
    is_last: tl.constexpr,
    is_wide: tl.constexpr,
    block: tl.constexpr,
):
    """Out = grad * (the epilogue's derivative where it gave y) * scale[n, c]."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = index < numel
    dtype = tl.float64 if is_wide else tl.float32
    grad = tl.load(grad_ptr + index, mask=mask, other=0.0).to(dtype)
    y = tl.load(y_ptr + index, mask=mask, other=0.0).to(dtype)
    grad = tl.where(y > 0, grad, grad * slope)
    if has_clamp:  # y was rounded to its type, so the bound must be, too
        bound = tl.full([block], clamp, dtype).to(y_ptr.dtype.element_ty).to(dtype)
        grad = tl.where(tl.abs(y) < bound, grad, 0.0)
    if has_scale:
        channel = index % channels if is_last else (index // pixels) % channels
        row = index // (channels * pixels)
        grad *= tl.load(scale_ptr + row * channels + channel, mask=mask, other=0.0).to(dtype)
    tl.store(out_ptr + index, grad.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _upfirdn_kernel(
    x_ptr,
    taps_ptr,
    y_ptr,
    numel,
    channels,
    height,
    width,
    out_height,
    out_width,
    left,
    top,
    up: tl.constexpr,
    down: tl.constexpr,
    taps_y: tl.constexpr,
    taps_x: tl.constexpr,
    is_last: tl.constexpr,
    is_wide: tl.constexpr,
    block: tl.constexpr,
):
    """Y = the sum over taps of the zero-upsampled, padded input, at every `down`-th position."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = index < numel
    if is_last:
        channel = index % channels
        rest = index // channels
        out_x = rest % out_width
        out_y = (rest // out_width) % out_height
        row = rest // (out_width * out_height)
    else:
        out_x = index % out_width
        out_y = (index // out_width) % out_height
        channel = (index // (out_width * out_height)) % channels
        row = index // (out_width * out_height * channels)
    dtype = tl.float64 if is_wide else tl.float32
    total = tl.zeros([block], dtype=dtype)
    for tap_y in tl.static_range(taps_y):
        for tap_x in tl.static_range(taps_x):
            spread_y = out_y * down + tap_y - top
            spread_x = out_x * down + tap_x - left
            in_y, in_x = spread_y // up, spread_x // up
            is_inside = mask & (spread_y >= 0) & (spread_x >= 0) & (in_y < height) & (in_x < width)
            is_inside = is_inside & (spread_y % up == 0) & (spread_x % up == 0)
            if is_last:
                offset = ((row * height + in_y) * width + in_x) * channels + channel
            else:
                offset = ((row * channels + channel) * height + in_y) * width + in_x
            value = tl.load(x_ptr + offset, mask=is_inside, other=0.0).to(dtype)
            total += value * tl.load(taps_ptr + tap_y * taps_x + tap_x).to(dtype)
    tl.store(y_ptr + index, total.to(y_ptr.dtype.element_ty), mask=mask)


def epilogue(
    x: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    *,
    slope: float,
    clamp: float | None,
) -> Tensor:
    """Compute `clamp(lrelu(x * scale + noise + bias))` without a graph.

    Args:
        x: [N, C, H, W].
        scale: [N, C].
        noise: [1 or N, 1, H, W].
        bias: [C].
        slope: slope of the leaky ReLU below 0; 1 for no activation.
        clamp: bound on the magnitude, or None.
    """
    x, is_last = _laid_out(x)
    y = torch.empty_like(x)
    num, channels, height, width = x.shape
    _launch(
        _epilogue_kernel,
        y,
        x,
        x if scale is None else scale.contiguous(),
        x if noise is None else noise.contiguous(),
        x if bias is None else bias.contiguous(),
        y,
        x.numel(),
        channels,
        height * width,
        0 if noise is None or len(noise) == 1 < num else height * width,
        slope,
        0.0 if clamp is None else clamp,
        has_scale=scale is not None,
        has_noise=noise is not None,
        has_bias=bias is not None,
        has_clamp=clamp is not None,
        is_last=is_last,
        is_wide=x.dtype == torch.float64,
    )
    return y


def epilogue_slope(
    grad: Tensor, y: Tensor, scale: Tensor | None, *, slope: float, clamp: float | None
) -> Tensor:
    """Multiply a gradient by the derivative of `epilogue`, without a graph.

    Args:
        grad: [N, C, H, W].
        y: the result of `epilogue`, [N, C, H, W].
        scale: an additional factor, [N, C], or None.
        slope: as for `epilogue`.
        clamp: as for `epilogue`.
    """
    y, is_last = _laid_out(y)
    layout = torch.channels_last if is_last else torch.contiguous_format
    grad = grad.contiguous(memory_format=layout)
    out = torch.empty_like(grad)
    _launch(
        _slope_kernel,
        out,
        grad,
        y,
        grad if scale is None else scale.contiguous(),
        out,
        y.numel(),
        y.shape[1],
        y.shape[2] * y.shape[3],
        slope,
        0.0 if clamp is None else clamp,
        has_scale=scale is not None,
        has_clamp=clamp is not None,
        is_last=is_last,
        is_wide=y.dtype == torch.float64,
    )
    return out


def upfirdn(
    x: Tensor, taps: Tensor, *, up: int, down: int, padding: tuple[int, int, int, int]
) -> Tensor:
    """Compute `upfirdn2d` without a graph.

    Args:
        x: [N, C, H, W].
        taps: [T_y, T_x], to correlate with, including the gain.
        up: integer upsampling factor.
        down: integer downsampling factor.
        padding: left, right, top, bottom; negative numbers crop.
    """
    x, is_last = _laid_out(x)
    num, channels, height, width = x.shape
    taps_y, taps_x = taps.shape
    left, right, top, bottom = padding
    out_height = (height * up + top + bottom - taps_y) // down + 1
    out_width = (width * up + left + right - taps_x) // down + 1
    y = torch.empty(
        [num, channels, out_height, out_width],
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if is_last else torch.contiguous_format,
    )
    _launch(
        _upfirdn_kernel,
        y,
        x,
        taps.contiguous(),
        y,
        y.numel(),
        channels,
        height,
        width,
        out_height,
        out_width,
        left,
        top,
        up=up,
        down=down,
        taps_y=taps_y,
        taps_x=taps_x,
        is_last=is_last,
        is_wide=x.dtype == torch.float64,
    )
    return y


def check_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Compare every kernel with plain PyTorch in float64, on a few numbers in both layouts.

    The first and second derivatives of the ops are made of the same kernels: `epilogue_slope`
    with and without a scale, and `upfirdn` with up- and downsampling exchanged.

    Args:
        device: where to run.
        dtype: of the images; the other tensors are in float32 at least, as layers give them.

    Raises:
        RuntimeError: if a kernel differs from the reference.
        Exception: whatever Triton raises where it does not work.
    """
    for layout in (torch.contiguous_format, torch.channels_last):
        for name, result, expected in _comparisons(device, dtype, layout):
            if not result.is_contiguous(memory_format=layout):
                raise RuntimeError(f"{name} changes the memory layout ({dtype}, {layout})")
            tolerance = _TOLERANCES[dtype]
            if not torch.allclose(result.double(), expected, rtol=tolerance, atol=tolerance):
                raise RuntimeError(f"{name} differs from the reference ({dtype}, {layout})")


# One rounding of the result, and rounding to float32 within sums.
_TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}


def _comparisons(
    device: torch.device, dtype: torch.dtype, layout: torch.memory_format
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Give for each kernel a name, its result, and the same in float64."""
    stream = torch.Generator().manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=stream).to(device, wide)

    num, channels, side = 2, 5, 12  # more than one block, and a last one that is not full
    x = draw(num, channels, side, side).to(dtype, memory_format=layout)
    scale, bias, taps = draw(num, channels), draw(channels), draw(4, 4)
    exact, factor, offset = x.double(), scale.double()[:, :, None, None], bias.double()
    offset = offset[:, None, None]
    for noise in (draw(num, 1, side, side), draw(1, 1, side, side)):
        yield (
            "epilogue",
            epilogue(x, scale, noise, bias, slope=0.2, clamp=1.0),
            F.leaky_relu(exact * factor + noise.double() + offset, 0.2).clamp(-1, 1),
        )
    yield (
        "epilogue",
        epilogue(x, None, None, bias, slope=0.2, clamp=None),
        F.leaky_relu(exact + offset, 0.2),
    )
    slopes = torch.where(exact > 0, 1.0, 0.2)
    yield (
        "epilogue_slope",
        epilogue_slope(x, x, scale, slope=0.2, clamp=1.0),
        exact * slopes * (exact.abs() < 1) * factor,
    )
    yield "epilogue_slope", epilogue_slope(x, x, None, slope=0.2, clamp=None), exact * slopes
    weights = taps.double()
    spread = torch.zeros(num, channels, 2 * side, 2 * side, dtype=torch.float64, device=device)
    spread[:, :, ::2, ::2] = exact
    for up, image in ((2, spread), (1, exact)):
        windows = F.pad(image, (2, 1, 1, 2)).unfold(2, 4, 1).unfold(3, 4, 1)
        filtered = (windows * weights).sum(dim=(4, 5))
        for down in (1, 2):
            yield (
                "upfirdn",
                upfirdn(x, taps, up=up, down=down, padding=(2, 1, 1, 2)),
                filtered[:, :, ::down, ::down],
            )


def _laid_out(x: Tensor) -> tuple[Tensor, bool]:
    """Return `x` contiguous or channels_last, and whether it is channels_last."""
    if x.is_contiguous():
        return x, False
    return x.contiguous(memory_format=torch.channels_last), True


def _launch(kernel: Any, out: Tensor, *args: Any, **constants: Any) -> None:
    """Run a kernel on the device of `out`, one program for each of its blocks."""
    grid = (triton.cdiv(out.numel(), BLOCK),)
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        kernel[grid](*args, **constants, block=BLOCK, **_OPTIONS)
