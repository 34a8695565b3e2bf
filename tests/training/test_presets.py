import json

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.models.registry import create
from stylegan.training.config import RunConfig
from stylegan.training.presets import GAMMA_RULE, OPTIONS, PRESETS, Choices, configure


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_config_that_json_keeps(name):
    config, _ = configure(name, "data", Choices(resolution=64))
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert PRESETS[name].source


def test_the_published_settings_of_f():  # spec, section 5.4
    config, reasons = configure("stylegan2-f", "data", Choices(resolution=1024))
    assert (config.batch, config.loss.gamma, config.ema.half_life_kimg) == (32, 10, 10)
    assert (config.optim.generator_lr, config.optim.discriminator_lr) == (0.002, 0.002)
    assert (config.loss.pl_weight, config.loss.pl_interval, config.loss.r1_interval) == (2, 4, 16)
    assert config.output.total_kimg == 25000
    assert "published" in reasons["loss.gamma"]


def test_e_has_gamma_100_and_half_the_channels():
    config, _ = configure("stylegan2-e", "data", Choices(resolution=1024))
    assert config.loss.gamma == 100
    assert config.generator.channel_base == config.discriminator.channel_base == 16384


@pytest.mark.parametrize(
    ("resolution", "batch", "gamma"),
    [(128, 32, 0.1024), (128, 64, 0.0512), (256, 16, 0.8192), (512, 8, 6.5536)],  # spec, 17
)
def test_gamma_left_out_follows_the_published_rule(resolution, batch, gamma):
    choices = Choices(resolution=resolution, batch=batch)
    config, reasons = configure("stylegan2-f", "data", choices)
    assert config.loss.gamma == pytest.approx(gamma)
    assert reasons["loss.gamma"] == GAMMA_RULE


def test_choices_and_overrides_win_over_the_preset():
    choices = Choices(
        resolution=64,
        batch=8,
        total_kimg=7,
        gamma=3,
        channel_base=2048,
        channel_max=64,
        mirror=True,
        snapshot_kimg=2,
        checkpoint_kimg=1,
        seed=5,
        precision="bf16",
        overrides=["optim.beta2=0.9"],
    )
    config, reasons = configure("stylegan2-small", "data", choices)
    assert (config.batch, config.seed, config.precision) == (8, 5, "bf16")
    assert config.generator.channel_base == config.discriminator.channel_base == 2048
    assert config.generator.channel_max == config.discriminator.channel_max == 64
    assert config.data.mirror
    assert (config.output.total_kimg, config.output.snapshot_kimg) == (7, 2)
    assert config.output.checkpoint_kimg == 1
    assert (config.loss.gamma, config.optim.beta2) == (3, 0.9)
    assert reasons["loss.gamma"] == "chosen with --gamma"
    assert config.ema.half_life_kimg == 2.5  # 10 kimg for a batch of 32


def test_initial_networks_bring_their_architecture():
    with torch.device("meta"):
        networks = create("stylegan2-e", 32, channel_max=24, mapping_layers=3, architecture="orig")
    initial = [networks.generator.config, networks.discriminator.config]
    config, _ = configure("stylegan2-small", "data", Choices(resolution=64), initial=initial)
    assert config.ema.rampup is None  # a ramp would throw the source's average away
    config, _ = configure("stylegan2-f", "data", Choices(resolution=64), initial=initial)
    assert config.generator.resolution == 64
    assert (config.generator.channel_max, config.generator.mapping_layers) == (24, 3)
    assert config.discriminator.architecture == "orig"
    wider = Choices(resolution=64, channel_max=48)
    config, _ = configure("stylegan2-f", "data", wider, initial=initial)
    assert config.generator.channel_max == config.discriminator.channel_max == 48


def test_unknown_presets_are_refused_with_a_list():
    with pytest.raises(ConfigError, match="preset 'stylegan3'; expected one of .*stylegan2-f"):
        configure("stylegan3", "data", Choices(resolution=64))


def test_initial_networks_with_labels_are_refused():
    with torch.device("meta"):
        networks = create("stylegan2-e", 32, c_dim=5)
    with pytest.raises(ConfigError, match="a network with labels"):
        configure(
            "stylegan2-f", "data", Choices(resolution=32), initial=[networks.generator.config]
        )


@pytest.mark.parametrize("field", OPTIONS)
def test_fields_with_an_option_of_their_own_are_not_set(field):
    with pytest.raises(ConfigError, match=f"expected the option {OPTIONS[field]}"):
        configure("stylegan2-f", "data", Choices(resolution=32, overrides=[f"{field}=1"]))


def test_zero_is_a_choice_and_is_refused():
    for choice in ("snapshot_kimg", "checkpoint_kimg", "total_kimg", "batch"):
        with pytest.raises(ConfigError, match=" 0"):
            configure("stylegan2-f", "data", Choices(resolution=32, **{choice: 0}))
