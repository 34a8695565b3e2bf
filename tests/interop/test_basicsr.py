"""BasicSR's StyleGAN2 and GFPGAN's decoder make the images of the same tensors in our format."""

import logging

import pytest
import torch
from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator, GeneratorConfig

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
KERNEL = TAPS.outer(TAPS) / 64


def generator(**options: object) -> Generator:
    """Make a generator with another value for every number."""
    sizes = {"resolution": 16, "channel_max": 12, "z_dim": 6, "w_dim": 6, "mapping_layers": 3}
    network = Generator(GeneratorConfig(**(sizes | options)))
    with torch.no_grad():
        for index, tensor in enumerate(network.state_dict().values()):
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)))
    return network


def their_tensors(network: Generator, gain: float = 4.0) -> dict[str, Tensor]:
    """Write a generator under the names of the program."""
    ours, theirs = network.state_dict(), {}
    for index in range(network.config.mapping_layers):
        theirs[f"style_mlp.{index + 1}.weight"] = ours[f"mapping.fc{index}.weight"]
        theirs[f"style_mlp.{index + 1}.bias"] = ours[f"mapping.fc{index}.bias"]

    def conv(there: str, here: str) -> None:
        theirs[f"{there}.modulated_conv.weight"] = ours[f"{here}.weight"][None]
        for kind in ("weight", "bias"):
            name = f"{there}.modulated_conv.modulation.{kind}"
            theirs[name] = ours[f"{here}.affine.{kind}"]

    def layer(there: str, here: str, noise: int) -> None:
        conv(there, here)
        theirs[f"{there}.weight"] = ours[f"{here}.noise_strength"][None]
        theirs[f"{there}.activate.bias"] = ours[f"{here}.bias"]
        theirs[f"noises.noise{noise}"] = ours[f"{here}.noise_const"][None, None]

    def rgb(there: str, here: str) -> None:
        conv(there, here)
        theirs[f"{there}.bias"] = ours[f"{here}.bias"].reshape(1, -1, 1, 1)

    theirs["constant_input.weight"] = ours["synthesis.b4.const"][None]
    layer("style_conv1", "synthesis.b4.conv1", 0)
    rgb("to_rgb1", "synthesis.b4.torgb")
    for k, side in enumerate(network.synthesis.resolutions[1:]):
        layer(f"style_convs.{2 * k}", f"synthesis.b{side}.conv0", 2 * k + 1)
        layer(f"style_convs.{2 * k + 1}", f"synthesis.b{side}.conv1", 2 * k + 2)
        rgb(f"to_rgbs.{k}", f"synthesis.b{side}.torgb")
        theirs[f"style_convs.{2 * k}.modulated_conv.smooth.kernel"] = KERNEL * gain
        theirs[f"to_rgbs.{k}.upsample.kernel"] = KERNEL * gain
    return theirs


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
    torch.save(wrap(their_tensors(network, gain)), tmp_path / "net_g.pth")
    with caplog.at_level(logging.INFO):
        found = load(tmp_path / "net_g.pth")
    assert caplog.text.count("holds no mean of w; computed from 10,000 latents") == 1
    io.save(Networks(generator_ema=network), tmp_path / "native")
    z = torch.randn(2, 6)
    assert torch.equal(found(z), load(tmp_path / "native")(z))
    assert found.config == network.config


@pytest.mark.parametrize("options", [{"resolution": 8}, {"resolution": 64}, {"mapping_layers": 8}])
def test_each_size_comes_back(tmp_path, options):
    network = generator(**options)
    torch.save({"params_ema": their_tensors(network)}, tmp_path / "net_g.pth")
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
        tensors = their_tensors(generator())
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change
        torch.save({"params_ema": tensors}, path)
        with pytest.raises(WeightsError, match=message):
            load_networks(path)
