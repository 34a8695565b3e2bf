"""Exponential moving average (EMA) of the generator's weights."""

import torch

from stylegan.models.base import AbstractGenerator


@torch.no_grad()
def update_ema(average: AbstractGenerator, generator: AbstractGenerator, beta: float) -> None:
    """Update the average in place; buffers are copied.

    Source: Karras et al. 2018 (ProGAN), appendix A.

    Args:
        average: becomes `lerp(generator, average, beta)`.
        generator: unchanged.
        beta: weight of the old average.
    """
    parameters = [parameter.data for parameter in average.parameters()]
    torch._foreach_lerp_(parameters, [p.data for p in generator.parameters()], 1 - beta)
    for buffer, source in zip(average.buffers(), generator.buffers(), strict=True):
        buffer.copy_(source)
