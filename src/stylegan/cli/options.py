"""What several commands share: the device, the console, the progress bar."""

from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stylegan.errors import ConfigError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Device = Annotated[
    DeviceName, tyro.conf.arg(help="auto takes a CUDA device, or Apple's, before the CPU.")
]
Seed = Annotated[int, tyro.conf.arg(help="Decides everything that is drawn at random.")]


def resolve_device(name: DeviceName) -> "torch.device":
    """Return the device of that name; "auto" is the first of cuda, mps and cpu that is there.

    Of several CUDA devices each process that `torchrun` starts on a machine takes its own.
    Switches TF32 off for the process.

    Raises:
        ConfigError: if this machine, or this build of PyTorch, has no such device.
    """
    import torch

    from stylegan import dist

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    # float32 means float32: PyTorch would round the inputs of convolutions to TF32
    torch.backends.cudnn.allow_tf32 = False
    found = [device for device, is_there in available.items() if is_there]
    chosen = found[0] if name == "auto" else name
    if chosen not in found:
        raise ConfigError(
            f"--device {name}: PyTorch {torch.__version__} finds no such device here",
            expected=f"one of {', '.join(found)}",
            fix="leave --device out, or install a build of PyTorch for that device",
        )
    index = dist.cuda_index() if chosen == "cuda" else None
    return torch.device(chosen) if index is None else torch.device(chosen, index)


def console() -> Console:
    """Return the console that commands print to: standard output as it is now.

    Of several processes one prints, and the others are quiet.
    """
    from stylegan import dist

    return Console(highlight=False, soft_wrap=True, quiet=not dist.speaks())


def progress(*, transient: bool = False, silent: bool = False) -> Progress:
    """Return a progress bar with count and time left, on standard error.

    Where that is no terminal, it leaves one line when it ends. A transient one leaves nothing, and
    a silent one shows nothing at all.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=silent or (transient and not console.is_terminal),
    )
