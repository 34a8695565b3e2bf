"""State dicts under the official names, out of and into files of torch.save."""

from pathlib import Path

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.convert import convert
from stylegan.interop.load import load, load_networks
from stylegan.interop.nvidia import state_dicts_of
from stylegan.interop.official_pickle import read_official_pickle
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

PARITY = Path(__file__).parents[1] / "parity"
STEMS = ["skip-resnet", "resnet-skip", "orig-orig", "skip-resnet-c5"]
SMALL = {"resolution": 16, "channel_base": 128, "channel_max": 12}


@pytest.mark.parametrize("stem", STEMS)
def test_official_networks_are_written_as_the_official_classes_save_them(tmp_path, stem):
    source, out = PARITY / f"stylegan2-torch-{stem}.pkl", tmp_path / "network.pt"
    convert(source, out, to="nvidia")
    content = torch.load(out, weights_only=True)
    modules = read_official_pickle(source)
    assert set(content) == {key + end for key in modules for end in ("", "_kwargs")}
    for key, module in modules.items():
        assert content[key].keys() == module.state_dict.keys()
        for name, tensor in module.state_dict.items():
            assert content[key][name].shape == tensor.shape, name
            torch.testing.assert_close(content[key][name], tensor, rtol=0, atol=1e-7)
        said = content[f"{key}_kwargs"]
        assert said.items() >= module.init_kwargs.items()


@pytest.mark.parametrize("stem", STEMS)
def test_what_was_written_is_read_again(tmp_path, stem):
    source, out = PARITY / f"stylegan2-torch-{stem}.pkl", tmp_path / "network.pt"
    convert(source, out, to="nvidia")
    before, after = load_networks(source), load_networks(out)
    for (name, expected), (again, found) in zip(before.items(), after.items(), strict=True):
        assert (name, expected.config) == (again, found.config)
        for key, tensor in expected.state_dict().items():
            assert torch.equal(found.state_dict()[key], tensor)


def test_arguments_come_back_that_no_tensor_shows(tmp_path):
    critic = Discriminator(DiscriminatorConfig(**SMALL, mbstd_group_size=8, c_dim=2))
    torch.save(state_dicts_of(Networks(discriminator=critic)), tmp_path / "network.pt")
    assert load_networks(tmp_path / "network.pt").discriminator.config == critic.config
    content = {"D": critic.state_dict()}  # without arguments and filters
    torch.save(content, tmp_path / "bare.pt")
    assert load_networks(tmp_path / "bare.pt").discriminator.config.mbstd_group_size == 4


@pytest.mark.parametrize(
    "options",
    [
        {"mbstd_group_size": None},
        {"conv_clamp": 256.0},
        {"c_dim": 2, "mapping_layers": 0},
        {"c_dim": 2, "mapping_layers": 3},
    ],
)
def test_discriminators_come_back_with_options_of_every_kind(tmp_path, options):
    critic = Discriminator(DiscriminatorConfig(**SMALL, **options))
    torch.save(state_dicts_of(Networks(discriminator=critic)), tmp_path / "network.pt")
    found = load_networks(tmp_path / "network.pt").discriminator
    assert found.config == critic.config
    c = torch.eye(4, 2) if critic.c_dim else None
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(found(images, c), critic(images, c))


def test_generators_come_back_with_their_clamp(tmp_path):
    network = Generator(GeneratorConfig(**SMALL, z_dim=6, w_dim=6, conv_clamp=256.0))
    torch.save(state_dicts_of(Networks(generator=network)), tmp_path / "network.pt")
    assert load_networks(tmp_path / "network.pt").generator.config == network.config


def test_only_the_average_is_built_for_use(tmp_path, monkeypatch):
    convert(PARITY / "stylegan2-torch-skip-resnet.pkl", tmp_path / "network.pt", to="nvidia")
    monkeypatch.setattr("stylegan.interop.nvidia.Discriminator", None)
    assert load(tmp_path / "network.pt").img_resolution == 16


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"architecture": "growing"}, "architecture growing"),
        ({"architecture": "mipmap"}, "architecture mipmap"),
        ({"mapping_width": 7}, "mapping_width 7"),
        ({"c_dim": 2, "label_norm": "joint"}, "label_norm joint"),
    ],
)
def test_generators_that_it_cannot_say_are_refused(options, found):
    network = Generator(GeneratorConfig(**SMALL, z_dim=6, w_dim=6, **options))
    with pytest.raises(WeightsError) as caught:
        state_dicts_of(Networks(generator_ema=network))
    assert f"generator_ema has {found}, which the official PyTorch code" in str(caught.value)


def test_discriminators_that_it_cannot_say_are_refused():
    critic = Discriminator(DiscriminatorConfig(**SMALL, c_dim=2, label_head="select"))
    with pytest.raises(WeightsError, match="label_head select"):
        state_dicts_of(Networks(discriminator=critic))


def test_arguments_that_contradict_the_tensors_are_refused(tmp_path):
    content = state_dicts_of(load_networks(PARITY / "stylegan2-torch-orig-orig.pkl"))
    content["G_ema_kwargs"]["w_dim"] = 3
    torch.save(content, tmp_path / "network.pt")
    with pytest.raises(WeightsError, match="says w_dim = 3, its tensors say 40"):
        load_networks(tmp_path / "network.pt")


def test_generators_without_noise_are_read(tmp_path):
    generator = Generator(GeneratorConfig(**SMALL, noise=False))
    torch.save({"G_ema": generator.state_dict()}, tmp_path / "bare.pt")
    assert load_networks(tmp_path / "bare.pt").generator_ema.config == generator.config
