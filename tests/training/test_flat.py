"""Memory over 2,000 steps."""

import gc
from pathlib import Path

import pytest
import torch

from stylegan.training.state import TrainState
from stylegan.training.step import train_step

STATM = Path("/proc/self/statm")
STEPS, WARM_UP = 2000, 400


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="no /proc here")
@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_memory_is_flat(run_config, name):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device(name)
    state = TrainState(run_config, device)
    used = []
    for step in range(STEPS):
        train_step(state, torch.randn(8, 3, 16, 16).to(device))
        if step % 50 == 0:
            state.averages.report()
        if step in (WARM_UP, STEPS - 1):
            state.averages.report()  # forgets what it holds on the device
            gc.collect()
            resident = int(STATM.read_text().split()[1]) * 4096
            used.append((resident, torch.cuda.memory_allocated() if name == "cuda" else 0))
    (before, before_device), (after, after_device) = used
    assert after - before < 8e6  # 5 kB a step would be seen
    assert after_device == before_device
