"""Mean power spectra of images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The mean power spectrum of images.

    Attributes:
        power: [H, W], frequency zero in the middle; white noise of variance 1 has 1 everywhere.
        radial: mean power over all directions at each integer frequency from 0 to R / 2, in cycles
            per R pixels, where R is the shorter side.
        num_images: number of images.
    """

    power: Tensor
    radial: list[float]
    num_images: int


def mean_spectrum(batches: Iterable[Tensor]) -> Spectrum:
    """Average the power spectra of images.

    The mean of each color channel is removed, and a Hann window is applied; without it the
    discontinuity at opposite borders would add power at high frequencies. Powers are averaged over
    channels and images.

    Args:
        batches: batches of [N, C, H, W], float in [-1, 1], all of one size; memory is that of one.

    Raises:
        ValueError: if there is no image, or sizes differ.
    """
    total: Tensor | None = None
    num_images = 0
    for batch in batches:
        images = batch.to("cpu", torch.float64)
        height, width = images.shape[2:]
        if total is not None and total.shape != images.shape[2:]:
            raise ValueError(
                f"images of {height}x{width} and of {total.shape[0]}x{total.shape[1]} pixels"
            )
        window = _hann_line(height)[:, None] * _hann_line(width)
        # the mean weighted by the window, otherwise its side lobes remain
        mean = (images * window).sum(dim=(2, 3), keepdim=True) / window.sum()
        power = torch.fft.fft2((images - mean) * window).abs().square() / window.square().sum()
        power = power.mean(dim=1).sum(dim=0)
        total = power if total is None else total + power
        num_images += len(images)
    if total is None:
        raise ValueError("a spectrum needs at least one image")
    power = torch.fft.fftshift(total / num_images)
    return Spectrum(power=power, radial=_radial(power), num_images=num_images)


def _hann_line(side: int) -> Tensor:
    """Return a Hann window that is symmetric, and nonzero at all pixels."""
    line = torch.hann_window(side + 1, periodic=False, dtype=torch.float64)
    return 0.5 * (line[1:] + line[:-1])


def _radial(power: Tensor) -> list[float]:
    shortest = min(power.shape)
    # frequencies along each axis, in cycles per `shortest` pixels
    y, x = (
        (torch.arange(side, dtype=torch.float64) - side // 2) * (shortest / side)
        for side in power.shape
    )
    radius = (y[:, None].square() + x.square()).sqrt().round().long()
    num_bins = shortest // 2 + 1
    inside = radius < num_bins
    sums = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, radius[inside], power[inside])
    counts = torch.bincount(radius[inside], minlength=num_bins)
    radial: list[float] = (sums / counts).tolist()
    return radial
