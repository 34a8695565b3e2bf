"""Compilation of blocks by `torch.compile`, which takes minutes at the first pass.

A compiled pass can be differentiated once. Passes that need second derivatives (R1, path lengths)
run uncompiled.
"""

import re
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from stylegan.errors import ConfigError

# Blocks differ in kind, size, and with or without gradients; torch's default limit is 8.
_MAX_VARIANTS = 64


def compile_blocks(network: nn.Module) -> None:
    """Compile the blocks of a network, each at its first call.

    Args:
        network: has blocks called `b4`, `b8` and so on, which draw no random numbers.
    """
    import torch._dynamo  # takes seconds

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_VARIANTS)
    for name, block in network.named_children():
        if re.fullmatch(r"b\d+", name):
            block.compile(dynamic=False)


def uncompiled(is_needed: bool) -> AbstractContextManager[object]:
    """Return a context in which blocks run uncompiled if `is_needed`, for second derivatives."""
    return torch.compiler.set_stance("force_eager") if is_needed else nullcontext()


def check_compiler(device: torch.device) -> None:
    """Compile a sum as a test.

    Raises:
        ConfigError: if that fails, for example without a C++ compiler.
    """
    try:
        torch.compile(torch.add)(torch.ones(2, device=device), 1)
    except Exception as error:  # the compiler, the system and Triton raise many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"torch.compile does not work here ({lines[0][:200]})",
            fix="install a C++ compiler (CPU) or Triton (GPU), or leave out runtime.compile",
        ) from error
