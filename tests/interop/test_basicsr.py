"""BasicSR's StyleGAN2 and GFPGAN's decoder make the images of the same tensors in our format."""

import logging

import pytest
import torch
from interop_files import basicsr_tensors
from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator, GeneratorConfig


def generator(**options: object) -> Generator:
    """Make a generator with another value for every number."""
    sizes = {"resolution": 16, "channel_max": 12, "z_dim": 6, "w_dim": 6, "mapping_layers": 3}
    network = Generator(GeneratorConfig(**(sizes | options)))
    with torch.no_grad():
        for index, tensor in enumerate(network.state_dict().values()):
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)))
    return network


def in_gfpgan(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put a decoder among the tensors of GFPGAN."""
    others = {"conv_body_first.0.weight": torch.ones(2), "condition_scale.0.0.bias": torch.ones(2)}
    return others | {f"stylegan_decoder.{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda tensors: {"params_ema": tensors, "params": {}}, id="params_ema"),
        pytest.param(lambda tensors: {"params": tensors}, id="params"),
        pytest.param(lambda tensors: tensors, id="bare"),
        pytest.param(lambda tensors: {f"module.{k}": v for k, v in tensors.items()}, id="module"),
        pytest.param(lambda tensors: {"params_ema": in_gfpgan(tensors)}, id="gfpgan"),
    ],
)
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_its_images_are_those_of_the_same_tensors_in_our_format(tmp_path, wrap, gain, caplog):
    network = generator()
    torch.save(wrap(basicsr_tensors(network, gain)), tmp_path / "net_g.pth")
    with caplog.at_level(logging.INFO):
        found = load(tmp_path / "net_g.pth")
    assert caplog.text.count("lacks the mean of w (computed from 10,000 latents)") == 1
    io.save(Networks(generator_ema=network), tmp_path / "native")
    z = torch.randn(2, 6)
    assert torch.equal(found(z), load(tmp_path / "native")(z))
    assert found.config == network.config


@pytest.mark.parametrize("options", [{"resolution": 8}, {"resolution": 64}, {"mapping_layers": 8}])
def test_each_size_comes_back(tmp_path, options):
    network = generator(**options)
    torch.save({"params_ema": basicsr_tensors(network)}, tmp_path / "net_g.pth")
    found = load_networks(tmp_path / "net_g.pth").generator_ema.state_dict()
    for name, tensor in network.state_dict().items():
        assert name == "mapping.w_avg" or torch.equal(found[name], tensor), name


def test_tensors_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "net_g.pth"
    for name, change, message in (
        ("style_conv1.activate.bias", None, "lacks conv1.activate.bias"),
        ("style_convs.9.surprise", torch.ones(1), "unexpected tensors, style_convs.9.surprise"),
        ("to_rgbs.0.upsample.kernel", torch.eye(4), "another filter at 'to_rgbs.0.upsample.kern"),
        ("to_rgbs.0.upsample.kernel", torch.zeros(4, 4), "another filter"),
        ("style_mlp.1.weight", torch.ones(6, 6, 1), "'style.1.weight'|shapes"),
    ):
        tensors = basicsr_tensors(generator())
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change
        torch.save({"params_ema": tensors}, path)
        with pytest.raises(WeightsError, match=message):
            load_networks(path)
