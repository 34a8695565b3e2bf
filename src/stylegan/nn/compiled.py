"""Blocks that `torch.compile` has compiled: fused, after a wait of minutes at first.

A compiled pass can be differentiated once. For a second time (R1, path lengths) it is left out.
"""

import re
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from stylegan.errors import ConfigError

# Kinds of blocks, sizes, with and without gradients: of each, torch compiles 8 by default.
_MAX_FORMS = 64


def compile_blocks(network: nn.Module) -> None:
    """Compile what the blocks of a network compute, each when it is first called.

    Args:
        network: has blocks called `b4`, `b8` and so on, which draw no random numbers.
    """
    import torch._dynamo  # takes seconds

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_FORMS)
    for name, block in network.named_children():
        if re.fullmatch(r"b\d+", name):
            block.compile(dynamic=False)


def uncompiled(is_needed: bool) -> AbstractContextManager[object]:
    """Return a context in which blocks run uncompiled if need be, for derivatives of any order."""
    return torch.compiler.set_stance("force_eager") if is_needed else nullcontext()


def check_compiler(device: torch.device) -> None:
    """Compile a sum.

    Raises:
        ConfigError: if that fails, as without a C++ compiler.
    """
    try:
        torch.compile(torch.add)(torch.ones(2, device=device), 1)
    except Exception as error:  # of many kinds: of the compiler, of the system, of Triton
        told = str(error).strip().splitlines()
        raise ConfigError(
            f"torch.compile does not work here ({told[0][:200] if told else type(error).__name__})",
            expected="a C++ compiler for the CPU, Triton for a GPU",
            fix="install it, or leave out runtime.compile",
        ) from error
