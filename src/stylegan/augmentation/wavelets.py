"""Orthogonal wavelet filters, and the bank of four bands that ADA amplifies.

Source: Daubechies 1992, "Ten Lectures on Wavelets", the least asymmetric wavelets; the digits are
those of PyWavelets, `pywt.Wavelet(name).dec_lo`, divided by their sum.
"""

import functools
import math

import torch
from torch import Tensor

from stylegan.augmentation.parameters import NUM_BANDS


def _normalized(taps: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(tap / math.sqrt(2) for tap in taps)


SYM2 = _normalized(
    (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
)
"""Low-pass filter of the symlet of two vanishing moments. It sums to 1."""

SYM6 = _normalized(
    (
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057),
        *(-0.048311742585633, 0.4910559419267466, 0.787641141030194),
        *(0.3379294217276218, -0.07263752278646252, -0.021060292512300564),
        *(0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    )
)
"""Low-pass filter of the symlet of six vanishing moments. It sums to 1."""


@functools.cache
def band_filters() -> Tensor:
    """Return the filters of `NUM_BANDS` octaves, from the lowest, float64 [bands, taps].

    Their sum is the identity. A half-band filter P(z) = H(z) H(1/z) / 2 and its mirror image
    P(-z) sum to 1. Each step lets the bands so far pass through P at half the rate, and adds the
    mirror image as the highest band.
    """
    low = torch.tensor(SYM2, dtype=torch.float64) * math.sqrt(2)
    half_band = _convolve(low, low.flip(0)) / 2
    center = len(half_band) // 2
    signs = torch.tensor([(-1.0) ** (k - center) for k in range(len(half_band))])
    bands = torch.ones([1, 1], dtype=torch.float64)
    for _ in range(NUM_BANDS - 1):
        spread = torch.zeros([len(bands), 2 * bands.shape[1] - 1], dtype=torch.float64)
        spread[:, ::2] = bands
        bands = torch.stack([_convolve(band, half_band) for band in spread])
        highest = torch.zeros([1, bands.shape[1]], dtype=torch.float64)
        start = (bands.shape[1] - len(half_band)) // 2
        highest[0, start : start + len(half_band)] = half_band * signs
        bands = torch.cat([bands, highest])
    return bands


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(a, [len(b) - 1] * 2)
    return (padded.unfold(0, len(b), 1) * b.flip(0)).sum(dim=1)
