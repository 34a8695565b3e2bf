"""A feature network and a generator that are quick, and real images on disk."""

import pytest
import torch
import torch.nn.functional as F
from metric_helpers import PlainDetector, plain_generator

from stylegan import images


@pytest.fixture
def detector():
    return PlainDetector()


@pytest.fixture
def generator():
    return plain_generator()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Statistics of real images go to a cache of the test."""
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def smooth_folder(tmp_path_factory):
    """150 smooth images, 16x16, in two chunks and a part of a third."""
    folder = tmp_path_factory.mktemp("smooth")
    stream = torch.Generator().manual_seed(3)
    for index in range(150):
        coarse = torch.rand([1, 3, 4, 4], generator=stream)
        fine = F.interpolate(coarse, size=16, mode="bilinear")[0]
        images.write((fine * 255).to(torch.uint8), folder / f"{index:03d}.png")
    return folder
