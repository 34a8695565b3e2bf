"""Bias, activation, gain, clamp."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.ops.backend import is_fused
from stylegan.ops.epilogue import epilogue

Activation = Literal["linear", "lrelu"]

LRELU_SLOPE = 0.2
ACTIVATION_GAIN: dict[Activation, float] = {"linear": 1.0, "lrelu": math.sqrt(2.0)}
"""Gains that keep the variance: in StyleGAN2 He's sqrt(2) belongs to the activation."""

HALF_CLAMP = 256.0
"""Bound on activations in float16, whose range ends at 65504 (Karras et al. 2020, ADA)."""


def clamp_for(x: Tensor, gain: float = 1.0, *, clamp: float | None = None) -> float | None:
    """Return the bound on the magnitude of a layer's output.

    Args:
        x: the layer's input. float16 is always clamped, by default to `HALF_CLAMP`.
        gain: the layer's output gain, which scales the bound too.
        clamp: the layer's own bound in every dtype; None for none.
    """
    if clamp is None and x.dtype == torch.float16:
        clamp = HALF_CLAMP
    return None if clamp is None else clamp * gain


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    act: Activation = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    inplace: bool = False,
) -> Tensor:
    """Compute `clamp(act(x + bias) * gain)`.

    Args:
        x: [N, C, ...].
        bias: [C], or None.
        act: "linear", or "lrelu" with slope 0.2.
        gain: not negative; None for the gain of the activation, 1 or sqrt(2).
        clamp: bound on the magnitude of the result, or None.
        inplace: allow the activation to overwrite `x`.

    Returns:
        The shape and dtype of `x`. Differentiable twice; the second derivative of the
        activation is zero almost everywhere.
    """
    gain = ACTIVATION_GAIN[act] if gain is None else gain
    if bias is None and act == "linear" and gain == 1 and clamp is None:
        return x
    if x.ndim == 4 and is_fused(x):  # the activation commutes with a positive gain
        slope = LRELU_SLOPE if act == "lrelu" else 1.0
        scaled = None if gain == 1 else x.new_full([1, 1], gain).expand(x.shape[0], x.shape[1])
        return epilogue(
            x,
            scale=scaled,
            bias=None if bias is None else bias * gain,
            slope=slope,
            clamp=clamp,
        )
    if bias is not None:
        x = x + bias.to(x.dtype).reshape(-1, *[1] * (x.ndim - 2))
    if act == "lrelu":
        x = F.leaky_relu(x, LRELU_SLOPE, inplace=inplace or bias is not None)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
