"""Convolution combined with up- or downsampling by 2.

`conv2d_up` and `conv2d_down` are StyleGAN2's: the filter follows a transposed convolution and
precedes a strided one. Padding is done once, so that the border differs from that of separate
operations. `conv2d_nearest_up` and `conv2d_box_down` are ProGAN's and StyleGAN's, without a
filter, and equal to separate operations.

Source: Karras et al. 2020 (StyleGAN2), appendix B; Karras et al. 2018 (ProGAN), section 2.
"""

import torch.nn.functional as F
from torch import Tensor

from stylegan.ops.fir import downsample2d, upfirdn2d, upsample2d


def conv2d_up(x: Tensor, weight: Tensor, kernel: Tensor, *, groups: int = 1) -> Tensor:
    """Upsample by 2 and convolve: [N, I, H, W] to [N, O, 2H, 2W].

    Args:
        x: [N, I, H, W].
        weight: [O, I / groups, k, k] with k 1 or 3, a true convolution as in the official PyTorch
            weight files, and so mirrored compared with `conv2d_down`.
        kernel: the FIR filter, [T, T], from `fir_kernel`.
        groups: as in `torch.nn.functional.conv2d`.
    """
    size = weight.shape[-1]
    if size == 1:  # 1x1 convolution and resampling commute; this order has fewer pixels
        return upsample2d(F.conv2d(x, weight, groups=groups), kernel)
    out_channels, in_channels = weight.shape[0] // groups, weight.shape[1]
    weight = weight.reshape(groups, out_channels, in_channels, size, size).transpose(1, 2)
    weight = weight.reshape(groups * in_channels, out_channels, size, size)
    # The full transposed convolution has 2H + 1 samples, an odd size for which oneDNN's kernels
    # are five times slower. One zero before the input and one sample of output padding give
    # 2H + 2 samples, of which the first is zero: it replaces one sample of the filter's padding.
    x = F.pad(x, (1, 0, 1, 0))
    x = F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1, groups=groups)
    extra = (kernel.shape[-1] - 2) - (size - 1)
    before, after = (extra + 1) // 2 + 1, extra // 2 + 1
    return upfirdn2d(x, kernel, padding=(before - 1, after) * 2, gain=4)


def conv2d_down(x: Tensor, weight: Tensor, kernel: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Convolve and downsample by 2: [N, I, H, W] to [N, O, H / 2, W / 2].

    Args:
        x: [N, I, H, W], H and W even.
        weight: [O, I, k, k] with k 1 or 3, a correlation.
        kernel: the FIR filter, [T, T], from `fir_kernel`.
        bias: [O].
    """
    size = weight.shape[-1]
    if size == 1:
        return F.conv2d(downsample2d(x, kernel), weight, bias)
    extra = (kernel.shape[-1] - 2) + (size - 1)
    x = upfirdn2d(x, kernel, padding=((extra + 1) // 2, extra // 2) * 2)
    return F.conv2d(x, weight, bias, stride=2)


def conv2d_nearest_up(x: Tensor, weight: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Repeat each pixel twice along both axes, then correlate with zeros outside the border.

    Computed as one transposed convolution: weights of equal pixels are added in the kernel, which
    takes 16 multiplications per input pixel instead of 36.

    Args:
        x: [N, I, H, W].
        weight: [O, I, 3, 3], a correlation on the upsampled image.
        bias: [O].

    Returns:
        [N, O, 2H, 2W].
    """
    kernel = _sum_of_shifts(weight.flip(2, 3)).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def conv2d_box_down(x: Tensor, weight: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Correlate with zeros outside the border, then take the mean of 2x2 pixels.

    Computed as one strided convolution, the adjoint of `conv2d_nearest_up` up to a factor.

    Args:
        x: [N, I, H, W], H and W even.
        weight: [O, I, 3, 3], a correlation.
        bias: [O].

    Returns:
        [N, O, H / 2, W / 2].
    """
    return F.conv2d(x, _sum_of_shifts(weight) / 4, bias, stride=2, padding=1)


def _sum_of_shifts(weight: Tensor) -> Tensor:
    """Return the sum of the four shifts of [O, I, 3, 3] by 0 or 1 pixel, [O, I, 4, 4]."""
    w = F.pad(weight, (1, 1, 1, 1))
    w = w[..., 1:, :] + w[..., :-1, :]
    return w[..., 1:] + w[..., :-1]
