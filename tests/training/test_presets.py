import json
from dataclasses import replace

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.models.registry import create
from stylegan.training.config import FROM_IMAGES, RunConfig
from stylegan.training.configure import (
    GAMMA_RULE,
    configure,
    deviations,
    published_run,
)
from stylegan.training.presets import PRESETS
from stylegan.training.schedule import stage_at


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_config_that_json_keeps(name):
    config, _ = configure(name, resolution=64)
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert PRESETS[name].source


def test_the_published_settings_of_f():  # spec, section 5.4
    config, reasons = configure("stylegan2-f", resolution=1024)
    assert (config.batch, config.loss.gamma, config.ema.half_life_kimg) == (32, 10, 10)
    assert (config.optim.generator_lr, config.optim.discriminator_lr) == (0.002, 0.002)
    assert (config.loss.pl_weight, config.loss.pl_interval, config.loss.r1_interval) == (2, 4, 16)
    assert config.output.total_kimg == 25000
    assert "published" in reasons["loss.gamma"]


def test_e_has_gamma_100_and_half_the_channels():
    config, _ = configure("stylegan2-e", resolution=1024)
    assert config.loss.gamma == 100
    assert config.generator.channel_base == config.discriminator.channel_base == 16384


@pytest.mark.parametrize(
    ("resolution", "batch", "gamma"),
    [(128, 32, 0.1024), (128, 64, 0.0512), (256, 16, 0.8192), (512, 8, 6.5536)],  # spec, 17
)
def test_gamma_left_out_follows_the_published_rule(resolution, batch, gamma):
    config, reasons = configure("stylegan2-f", {"batch": batch}, resolution=resolution)
    assert config.loss.gamma == pytest.approx(gamma)
    assert reasons["loss.gamma"] == GAMMA_RULE


def test_the_letters_are_their_predecessor_and_a_difference():  # spec, sections 4.5 and 5.4
    configs = {}
    for name in PRESETS:
        configs[name], _ = configure(name, resolution=1024)
    for letter in "abcdef":
        optim = configs[f"stylegan2-{letter}"].optim
        assert optim.order == "generator-first"
        assert optim.generator_lr == (0.002 if letter in "ef" else 0.001)
    loss = {name: config.loss for name, config in configs.items()}
    assert [loss[f"stylegan2-{letter}"].gamma for letter in "abcdef"] == [10, 10, 10, 10, 100, 10]
    assert [loss[f"stylegan2-{letter}"].r1_interval for letter in "abcdef"] == [
        None, None, 16, 16, 16, 16
    ]  # fmt: skip
    assert [loss[f"stylegan2-{letter}"].pl_weight for letter in "abcdef"] == [0, 0, 0, 2, 2, 2]
    assert [loss[f"stylegan2-{letter}"].pl_interval for letter in "abcdef"] == [
        None, None, 4, 4, 4, 4
    ]  # fmt: skip
    assert {loss[f"stylegan2-{letter}"].mixing_prob for letter in "abcdef"} == {0.9}
    assert [loss[f"stylegan-{letter}"].mixing_prob for letter in "abcdef"] == [0, 0, 0, 0, 0, 0.9]
    for letter in "bcdef":
        config = configs[f"stylegan-{letter}"]
        assert (config.loss.gamma, config.loss.r1_interval, config.loss.pl_weight) == (10, None, 0)
        assert config.optim.order == "discriminator-first"
        assert config.output.total_kimg == 25000
        assert config.growth.initial_resolution == 8
    for name in ("progan", "stylegan-a"):
        config = configs[name]
        assert (config.loss.adversarial, config.loss.gamma) == ("wgan-gp", 0)
        assert (config.growth.initial_resolution, config.output.total_kimg) == (4, 12000)
        assert config.growth.batches == {"4": 512, "8": 256, "16": 128, "32": 64, "64": 32}
        assert config.ema.beta == 0.999
    growing = [name for name, config in configs.items() if config.growth is not None]
    assert len(growing) == 11
    for name in growing:
        growth = configs[name].growth
        assert (growth.train_kimg, growth.fade_kimg) == (600, 600)
        assert growth.lrs == {"128": 0.0015, "256": 0.002, "512": 0.003, "1024": 0.003}
    assert configs["msg-stylegan2"].loss == configs["stylegan2-e"].loss


def test_a_shorter_run_grows_faster_and_reports_more_often():
    config, _ = configure("stylegan2-d", {"total_kimg": 2500}, resolution=64)
    assert (config.growth.train_kimg, config.growth.fade_kimg) == (60, 60)
    assert (config.output.tick_kimg, config.output.snapshot_kimg) == (4, 125)
    assert config.output.checkpoint_kimg == 125
    assert config.ema.half_life_kimg == 10
    assert config.growth.lrs == {}  # of resolutions that it does not reach
    config, _ = configure("stylegan2-d", {"total_kimg": 100}, resolution=64)
    assert (config.output.tick_kimg, config.output.snapshot_kimg) == (0.5, 5)
    config, _ = configure("stylegan2-small", {"total_kimg": 1}, resolution=64)
    assert (config.output.tick_kimg, config.output.snapshot_kimg) == (0.08, 0.5)


def test_a_longer_run_grows_as_published():
    config, _ = configure("stylegan2-d", {"total_kimg": 88000}, resolution=256)
    assert (config.growth.train_kimg, config.growth.fade_kimg) == (600, 600)
    assert (config.output.tick_kimg, config.output.snapshot_kimg) == (4, 200)


@pytest.mark.parametrize(
    ("batch", "batches"),
    [
        (32, {"8": 256, "16": 128, "32": 64}),
        (16, {"8": 128, "16": 64, "32": 32}),
        (4, {"8": 32, "16": 16, "32": 8}),
        (6, None),
        (2, {"8": 16, "16": 8, "32": 4}),
    ],
)
def test_batches_of_smaller_resolutions_follow_the_batch(batch, batches):
    if batches is None:
        with pytest.raises(
            ConfigError,
            match=r"batch must be a multiple of discriminator.mbstd_group_size 4, got 6",
        ):
            configure("stylegan2-d", {"batch": batch}, resolution=64)
    else:
        config, _ = configure("stylegan2-d", {"batch": batch}, resolution=64)
        assert config.growth.batches == batches
        odd, _ = configure("stylegan2-d", {"batch": 12}, resolution=64)
        assert odd.growth.batches == {"8": 96, "16": 48, "32": 24}


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("preset", ["progan", "stylegan-f", "stylegan2-b"])
def test_the_batch_is_that_of_the_full_resolution(preset, resolution):
    config, _ = configure(preset, {"batch": 16}, resolution=resolution)
    assert stage_at(config, 10**9).batch == 16


def test_an_average_by_iterations_keeps_its_half_life_in_images():
    whole, _ = configure("progan", resolution=64)
    quarter, _ = configure("progan", {"batch": 8}, resolution=64)
    assert whole.ema.beta == 0.999
    assert quarter.ema.beta**4 == pytest.approx(0.999)


def test_a_run_from_weights_that_still_grow_goes_on_from_their_size():
    with torch.device("meta"):
        networks = create("stylegan2-d", 64)
    initial = [networks.generator.config, networks.discriminator.config]
    config, _ = configure("stylegan2-d", resolution=64, initial=initial, grown_to=16)
    assert config.growth.initial_resolution == 16


def test_what_the_initial_weights_change_in_a_preset_is_reported():
    with torch.device("meta"):
        networks = create("stylegan2-e", 64, architecture="orig")
    initial = [networks.generator.config, networks.discriminator.config]
    _, reasons = configure("msg-stylegan2", resolution=64, initial=initial)
    assert reasons["generator.architecture"] == "that of the initial weights"
    assert "generator.z_dim" not in reasons


def test_a_run_from_weights_does_not_grow_again():
    with torch.device("meta"):
        networks = create("stylegan2-d", 64, channel_max=24)
    initial = [networks.generator.config, networks.discriminator.config]
    config, reasons = configure("stylegan2-d", resolution=64, initial=initial)
    assert config.growth.initial_resolution == 64
    assert "have grown" in reasons["growth.initial_resolution"]


def test_options_win_over_the_preset():
    options = {
        "batch": 8,
        "kimg": 7,
        "gamma": 3,
        "channel_base": 2048,
        "channel_max": 64,
        "mirror": True,
        "snapshot_kimg": 2,
        "checkpoint_kimg": 1,
        "seed": 5,
        "precision": "bf16",
        "optim.beta2": "0.9",
    }
    config, reasons = configure("stylegan2-small", options, resolution=64)
    assert (config.batch, config.seed, config.precision) == (8, 5, "bf16")
    assert config.generator.channel_base == config.discriminator.channel_base == 2048
    assert config.generator.channel_max == config.discriminator.channel_max == 64
    assert config.data.mirror
    assert (config.output.total_kimg, config.output.snapshot_kimg) == (7, 2)
    assert config.output.checkpoint_kimg == 1
    assert (config.loss.gamma, config.optim.beta2) == (3, 0.9)
    assert reasons["loss.gamma"] == "chosen"
    assert config.ema.half_life_kimg == 2.5  # 10 kimg for a batch of 32


def test_initial_networks_bring_their_architecture():
    with torch.device("meta"):
        networks = create("stylegan2-e", 32, channel_max=24, mapping_layers=3, architecture="orig")
    initial = [networks.generator.config, networks.discriminator.config]
    config, _ = configure("stylegan2-small", resolution=64, initial=initial)
    assert config.ema.rampup is None  # a ramp would throw the source's average away
    config, _ = configure("stylegan2-f", resolution=64, initial=initial)
    assert config.generator.resolution == 64
    assert (config.generator.channel_max, config.generator.mapping_layers) == (24, 3)
    assert config.discriminator.architecture == "orig"
    config, _ = configure("stylegan2-f", {"channel_max": 48}, resolution=64, initial=initial)
    assert config.generator.channel_max == config.discriminator.channel_max == 48


def test_unknown_presets_are_refused_with_a_list():
    with pytest.raises(
        ConfigError, match=r"preset must be one of .*stylegan2-f.*, got 'stylegan3'"
    ):
        configure("stylegan3", resolution=64)


def test_initial_networks_of_another_family_are_refused():
    with torch.device("meta"):
        networks = create("stylegan2-e", 32)
    with pytest.raises(ConfigError, match="family stylegan2, but preset progan is of"):
        configure("progan", resolution=32, initial=[networks.generator.config])


def test_initial_networks_may_have_other_labels_than_the_run():
    with torch.device("meta"):
        networks = create("stylegan2-e", 32, c_dim=5)
    initial = [networks.generator.config, networks.discriminator.config]
    for label_dim in (5, 0, 3):
        config, _ = configure("stylegan2-f", resolution=32, label_dim=label_dim, initial=initial)
        assert config.data.labels == (label_dim > 0)
        expected = [replace(network, c_dim=label_dim) for network in initial]
        assert [config.generator, config.discriminator] == expected


@pytest.mark.parametrize("name", PRESETS)
def test_labels_enter_both_networks_of_every_preset(name):
    config, _ = configure(name, resolution=16, label_dim=3)
    assert (config.generator.c_dim, config.discriminator.c_dim, config.data.labels) == (3, 3, True)
    config, _ = configure(name, resolution=16)
    assert (config.generator.c_dim, config.discriminator.c_dim, config.data.labels) == (0, 0, False)


def test_what_follows_from_the_images_is_no_option():
    for name in FROM_IMAGES:
        with pytest.raises(ConfigError, match=f"option {name} follows from the images"):
            configure("stylegan2-f", {name: 1}, resolution=32)


def test_zero_is_a_choice_and_is_refused():
    for option in ("snapshot_kimg", "checkpoint_kimg", "total_kimg", "batch"):
        with pytest.raises(ConfigError, match=f"{option} must be more than 0, got 0"):
            configure("stylegan2-f", {option: 0}, resolution=32)


def test_options_of_rules_can_be_given_back_to_them():
    options = {"gamma": 3, "output.tick_kimg": 1}
    ruled, _ = configure("stylegan2-f", resolution=64)
    config, _ = configure("stylegan2-f", options | {"loss": {"gamma": "auto"}}, resolution=64)
    assert config.loss.gamma == ruled.loss.gamma
    assert config.output.tick_kimg == 1


def test_growing_follows_its_own_options_before_those_of_the_preset():
    growth = {"train_kimg": 5, "batches": {"8": 12}}
    config, _ = configure("stylegan2-d", {"growth": growth, "kimg": 2500}, resolution=64)
    assert (config.growth.train_kimg, config.growth.fade_kimg) == (5, 60)
    assert config.growth.batches == {"8": 12}
    config, _ = configure("stylegan2-d", {"growth": "none"}, resolution=64)
    assert config.growth is None


# What the papers' names mean: issue 16, section 7, fault 10.
LETTERS = [name for name in PRESETS if name not in ("stylegan2-small", "msg-stylegan2")]


@pytest.fixture
def fast_bf16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)


@pytest.mark.usefixtures("fast_bf16")
@pytest.mark.parametrize("name", LETTERS)
def test_the_letters_of_the_papers_train_in_float32_on_any_machine(name):
    config, reasons = configure(name, {"device": "cpu"}, resolution=64)
    assert config.precision == "fp32"
    assert reasons["precision"] == "the preset's"
    fast, _ = configure(name, {"device": "cpu", "precision": "auto"}, resolution=64)
    assert fast.precision == "bf16"


@pytest.mark.usefixtures("fast_bf16")
def test_the_small_preset_takes_bfloat16_where_it_is_fast():
    config, reasons = configure("stylegan2-small", {"device": "cpu"}, resolution=64)
    assert config.precision == "bf16"
    assert "AMX" in reasons["precision"]


@pytest.mark.parametrize("name", LETTERS)
def test_the_mean_of_w_decays_as_in_the_code_of_the_papers(name):  # spec, section 1.7
    config, _ = configure(name, resolution=64)
    if config.family != "progan":  # which has no w
        assert config.ema.w_avg_beta == 0.995


@pytest.mark.parametrize("name", LETTERS)
def test_the_letters_of_the_papers_do_not_clamp(name):
    config, _ = configure(name, resolution=1024)
    for network in (config.generator, config.discriminator):
        assert getattr(network, "conv_clamp", None) is None


@pytest.mark.parametrize("name", LETTERS)
def test_a_published_run_has_no_deviations(name):
    config, _ = configure(name, {"mirror": True, "seed": 3}, resolution=1024)
    assert deviations(config, published_run(name)) == []


def test_fast_choices_are_listed_as_deviations_from_the_published_run():
    options = {"precision": "bf16", "batch": 16, "channel_base": 16384, "kimg": 5000}
    config, _ = configure("stylegan2-f", options, resolution=256)
    assert deviations(config, published_run("stylegan2-f")) == [
        "generator.resolution = 256 (published: 1024)",
        "generator.channel_base = 16384 (published: 32768)",
        "discriminator.channel_base = 16384 (published: 32768)",
        "loss.gamma = 0.8192 (published: 10)",
        "batch = 16 (published: 32)",
        "precision = bf16 (published: fp32)",
        "output.total_kimg = 5000 (published: 25000)",
    ]
    assert published_run("stylegan2-small") is None


@pytest.mark.parametrize(
    ("option", "value", "reported"),
    [
        ("generator.conv_clamp", 256, "generator.conv_clamp = 256 (published: None)"),
        ("discriminator.conv_clamp", 256, "discriminator.conv_clamp = 256 (published: None)"),
        ("ema.w_avg_beta", 0.998, "ema.w_avg_beta = 0.998 (published: 0.995)"),
        ("gamma", "auto", None),
        ("device", "cpu", None),
        ("threads", 3, None),
    ],
)
def test_one_other_option_is_one_deviation(option, value, reported):
    config, _ = configure("stylegan2-f", {option: value}, resolution=1024)
    expected = [] if reported is None else [reported]
    assert deviations(config, published_run("stylegan2-f")) == expected
