import pytest
import torch

import processes
from distributed.runs import train_line
from stylegan import images


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    stream = torch.Generator().manual_seed(0)
    for index in range(24):
        image = torch.randint(0, 256, [3, 16, 16], generator=stream).to(torch.uint8)
        images.write(image, folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def undisturbed(data, tmp_path_factory):
    """The folder of a run of 0.16 kimg on two ranks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    words = train_line(data, folder / "run", kimg=0.16)
    processes.run(processes.command, words, folder=folder, num=2)
    return folder / "run"
