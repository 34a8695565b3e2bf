"""Activation checkpointing: less memory for more time."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, is_enabled: bool = True) -> Callable[..., Any]:
    """Return a function that computes a block, but stores only its inputs for the backward pass.

    The backward pass computes the block once more. Gradients of any order stay the same.

    Args:
        block: must not draw random numbers.
        is_enabled: False returns the block itself.
    """
    if not is_enabled:
        return block
    return partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
