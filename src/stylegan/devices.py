"""The choice of a device by name."""

import platform
from typing import Literal

import torch

from stylegan import distributed
from stylegan.errors import ConfigError
from stylegan.ops.precision import switch_off_tf32

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def resolve_device(name: DeviceName | str | torch.device) -> torch.device:
    """Return the device of that name; "auto" is the first available one of cuda, mps and cpu.

    Of several CUDA devices, each rank that `torchrun` starts on a machine takes its own. A
    `torch.device` is returned as it is. TF32 is switched off for the process, since PyTorch
    would round the inputs of float32 convolutions to it, unless `float32_precision` is open.

    Raises:
        ConfigError: if this machine, or this build of PyTorch, has no such device.
    """
    switch_off_tf32()
    if isinstance(name, torch.device):
        return name
    is_available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    available = [device for device, is_there in is_available.items() if is_there]
    device = available[0] if name == "auto" else name
    if device not in available:
        raise ConfigError(
            f"--device {name}: PyTorch {torch.__version__} finds no such device here",
            expected=f"one of {', '.join(available)}",
            fix="leave --device out, or install a build of PyTorch for that device",
        )
    index = distributed.cuda_index() if device == "cuda" else None
    return torch.device(device) if index is None else torch.device(device, index)


def device_name(device: torch.device) -> str:
    """Return the model of a GPU, or the kind of a CPU with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    capability = torch.backends.cpu.get_cpu_capability()
    num = torch.get_num_threads()
    threads = "1 thread" if num == 1 else f"{num} threads"
    return f"{platform.machine()} CPU, {threads}, {capability}"
