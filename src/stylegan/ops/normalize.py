"""Normalizations without parameters."""

import torch
from torch import Tensor


def pixel_norm(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Scale [N, C, ...] to unit second moment over C: `x / sqrt(mean(x^2) + eps)`.

    On latents it projects to a sphere of radius sqrt(C).

    Source: Karras et al. 2018 (ProGAN), section 4.2.
    """
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def instance_norm(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Give each channel of each sample zero mean and unit variance over its pixels.

    Statistics are computed in float32 at least; variance is that of all pixels, not N - 1.

    Source: Karras et al. 2019 (StyleGAN), equation 1, without the styles.

    Args:
        x: [N, C, H, W].
        eps: added to the variance.
    """
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    y = y - y.mean(dim=(2, 3), keepdim=True)
    y = y * (y.square().mean(dim=(2, 3), keepdim=True) + eps).rsqrt()
    return y.to(x.dtype)


def minibatch_stddev(x: Tensor, *, group_size: int, num_channels: int = 1) -> Tensor:
    """Append the standard deviation over groups of samples as constant channels.

    Sample n belongs to group `n % M` of `M = N / group_size` groups, as in the official code:
    groups are strided, not contiguous.

    Source: Karras et al. 2018 (ProGAN), section 3.

    Args:
        x: [N, C, H, W].
        group_size: samples in a group; N where N is smaller.
        num_channels: number of statistics F; each averages over its share C / F of the channels.

    Returns:
        [N, C + F, H, W].

    Raises:
        ValueError: if N is not a multiple of the group size, or C of F.
    """
    num, channels, height, width = x.shape
    group_size = min(group_size, num)
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
