"""Memory for time: a block keeps its input, and computes the rest again when a gradient asks."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module) -> Callable[..., Any]:
    """Return what does the same as a block, and keeps only its inputs for the backward pass.

    Gradients are the same, of any order; a first one costs another forward pass of the block.

    Args:
        block: draws no random numbers of its own.
    """
    return partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
