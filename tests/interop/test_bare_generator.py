"""The state dict of an official generator alone is read, wherever programs put it."""

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator, GeneratorConfig
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel


def generator(**options: object) -> Generator:
    sizes = {"resolution": 16, "channel_max": 12, "z_dim": 6, "w_dim": 5, "mapping_layers": 2}
    network = Generator(GeneratorConfig(**(sizes | options)))
    torch.nn.init.normal_(network.synthesis.b8.conv0.bias)
    torch.nn.init.normal_(network.mapping.w_avg)
    return network


def their_tensors(network: Generator) -> dict[str, torch.Tensor]:
    kernel = fir_kernel(RESAMPLE_TAPS)
    filters = {"synthesis.b8.resample_filter": kernel, "synthesis.b8.conv0.resample_filter": kernel}
    return dict(network.state_dict()) | filters


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda tensors: tensors, id="bare"),
        pytest.param(lambda tensors: {f"module.{k}": v for k, v in tensors.items()}, id="module"),
        pytest.param(lambda tensors: {"g_ema": tensors}, id="g_ema"),
        pytest.param(lambda tensors: {"state_dict": tensors, "epoch": 1}, id="state_dict"),
        pytest.param(
            lambda tensors: {
                "state_dict": {"encoder.a": torch.ones(1)}
                | {f"decoder.{k}": v for k, v in tensors.items()}
            },
            id="encoder",
        ),
    ],
)
@pytest.mark.parametrize("options", [{}, {"architecture": "resnet"}, {"c_dim": 2}], ids=str)
def test_its_images_are_those_of_the_same_tensors_in_our_format(tmp_path, wrap, options):
    network = generator(**options)
    torch.save(wrap(their_tensors(network)), tmp_path / "generator.pth")
    io.save(Networks(generator_ema=network), tmp_path / "native")
    z, c = torch.randn(2, 6), torch.eye(2) if options.get("c_dim") else None
    found = load(tmp_path / "generator.pth")
    assert torch.equal(found(z, c, 0.5), load(tmp_path / "native")(z, c, 0.5))
    assert load_networks(tmp_path / "generator.pth", only=["discriminator"]) == Networks()


def test_tensors_that_are_missing_are_named(tmp_path):
    tensors = their_tensors(generator())
    del tensors["synthesis.b8.conv1.bias"]
    torch.save(tensors, tmp_path / "generator.pth")
    with pytest.raises(WeightsError, match="lacks synthesis"):
        load(tmp_path / "generator.pth")
