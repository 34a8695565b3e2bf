import pytest
import torch

from stylegan.models.base import AbstractGenerator
from stylegan.models.stylegan2 import Generator, GeneratorConfig


@pytest.fixture(scope="session")
def generator() -> AbstractGenerator:
    """A small StyleGAN2 generator in which noise and truncation show."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Generator(
            GeneratorConfig(resolution=32, z_dim=16, w_dim=16, mapping_layers=2, channel_base=256)
        )
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.5)
            network.mapping.w_avg.copy_(torch.randn(16))
    return network.eval().requires_grad_(False)
