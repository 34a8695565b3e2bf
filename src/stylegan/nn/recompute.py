"""Memory for time: a block keeps its input, and computes the rest again when a gradient asks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stylegan.rng import Source


def recomputed(block: nn.Module, source: Source | None = None) -> Callable[..., Any]:
    """Return what does the same as a block, and keeps only its inputs for the backward pass.

    Gradients are the same, of any order; a first one costs another forward pass of the block.

    Args:
        block: whatever it draws, it draws from `source`, or torch's global stream.
        source: of random numbers, among the block's own arguments.
    """
    streams = (source,) if isinstance(source, torch.Generator) else tuple(source or ())

    def run(*args: Any, **options: Any) -> Any:
        states = [stream.get_state() for stream in streams]

        def compute() -> Any:
            for stream, state in zip(streams, states, strict=True):
                stream.set_state(state)
            return block(*args, **options)

        return checkpoint(compute, use_reentrant=False)

    return run
