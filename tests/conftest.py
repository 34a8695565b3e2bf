"""What all tests share: fixed seeds, tiny networks, the GPU marker."""

import pytest
import torch

from stylegan.models.stylegan2 import DiscriminatorConfig, GeneratorConfig


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def generator_config():
    """Tiny options: 16x16, three blocks."""
    return GeneratorConfig(
        resolution=16, z_dim=8, w_dim=12, mapping_layers=2, channel_base=64, channel_max=6
    )


@pytest.fixture
def discriminator_config():
    return DiscriminatorConfig(resolution=16, channel_base=64, channel_max=6)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
