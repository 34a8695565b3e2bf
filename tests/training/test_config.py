import dataclasses
import json
from pathlib import Path

import pytest

import stylegan
from stylegan.errors import ConfigError
from stylegan.training.config import (
    BY_RULE,
    SHORT_NAMES,
    GrowthConfig,
    RunConfig,
    RuntimeConfig,
    check_processes,
    differences,
    group_of,
    option_types,
    undecided,
)
from stylegan.training.configure import resolve
from stylegan.training.log import read_log
from stylegan.training.loop import train


def test_json_round_trip_is_the_identity(run_config):
    assert RunConfig.from_json(json.loads(json.dumps(run_config.to_json()))) == run_config


def test_json_keeps_tables(growing_config):
    written = json.dumps(growing_config.to_json())
    assert RunConfig.from_json(json.loads(written)) == growing_config


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("batch=16", ["batch"], 16),
        ("optim.beta2=0.999", ["optim", "beta2"], 0.999),
        ("optim.generator_lr=1", ["optim", "generator_lr"], 1.0),
        ("data.mirror=false", ["data", "mirror"], False),
        ("ema.rampup=none", ["ema", "rampup"], None),
        ("ema.rampup=0.1", ["ema", "rampup"], 0.1),
        ("generator.architecture=resnet", ["generator", "architecture"], "resnet"),
        ("precision=bf16", ["precision"], "bf16"),
        ("data.path=a=b", ["data", "path"], "a=b"),
        ("loss.r1_interval=none", ["loss", "r1_interval"], None),
        ("optim.order=discriminator-first", ["optim", "order"], "discriminator-first"),
    ],
)
def test_overrides_are_typed_by_their_field(run_config, override, path, value):
    found = run_config.with_overrides(override)
    for name in path:
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch=many", "batch must be a whole number, got 'many'"),
        ("batch=1.5", "batch must be a whole number"),
        ("data.mirror=1", "data.mirror must be true or false"),
        (
            "optim.beta3=1",
            "option 'optim.beta3' does not exist; the most similar are optim.beta2",
        ),
        ("optim=1", "option 'optim' does not exist"),
        ("batch", "NAME=VALUE, got 'batch'"),
        ("precision=fp8", "one of fp32, tf32, bf16, fp16"),
        ("generator.resolution=48", "follows from the images"),
        ("generator.c_dim=5", "follows from the images"),
        ("optim.beta2=1.0", "from 0 to below 1"),
        ("loss.gamma=nan", "a finite number"),
        ("output.total_kimg=inf", "a finite number"),
        ("cond=true", "data.labels is True with a c_dim of 0"),
        ("discriminator.mbstd_num_channels=4", "a divisor of the 6 channels"),
        ("discriminator.mapping_layers=-1", "mapping_layers must be 0 or more, got -1"),
        ("ema.rampup=-1", "ema.rampup must be more than 0, got -1"),
        ("ema.w_avg_beta=2", "ema.w_avg_beta must be from 0 to 1, got 2"),
        ("ema.beta=2", "ema.beta must be from 0 to 1, got 2"),
        (
            "growth.initial_resolution=4",
            "growth needs networks that grow, got generator.architecture skip",
        ),
        ("growth=8", "growth must be its fields, one by one or none"),
        ("loss.adversarial=wgan-gp", "loss.adversarial wgan-gp"),
    ],
)
def test_wrong_overrides_say_what_was_expected(run_config, override, message):
    with pytest.raises(ConfigError, match=message):
        run_config.with_overrides(override)


def test_tables_by_resolution_are_written_as_pairs(growing_config):
    changed = growing_config.with_overrides("growth.batches=8:16, 16:4", "growth.lrs=4:1")
    assert changed.growth.batches == {"8": 16, "16": 4}
    assert changed.growth.lrs == {"4": 1.0}
    assert type(changed.growth.lrs["4"]) is float
    assert changed.with_overrides("growth.batches=none").growth.batches == {}
    assert differences(growing_config, changed) == [
        "growth.batches.16: None -> 4",
        "growth.batches.4: 16 -> None",
        "growth.batches.8: 4 -> 16",
        "growth.lrs.4: None -> 1.0",
        "growth.lrs.8: 0.001 -> None",
    ]


def test_growing_is_switched_off_and_on(growing_config):
    off = growing_config.with_overrides("growth=none")
    assert off.growth is None
    on = off.with_overrides("growth.initial_resolution=4")
    assert on.growth == GrowthConfig(initial_resolution=4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("growth.batches=8:many", "a whole number"),
        ("growth.batches=8", "pairs such as 8:64,16:32"),
        ("growth.batches=12:8", "growth.batches must be pairs of a resolution .* got the key '12'"),
        (
            "growth.batches=8:6",
            "growth.batches 8 must be a multiple of discriminator.mbstd_group_size 4, got 6",
        ),
        ("growth.lrs=8:0", "growth.lrs at 8 must be more than 0, got 0"),
        (
            "growth.initial_resolution=32",
            "initial_resolution must be at most the resolution, 16, got 32",
        ),
        (
            "growth.initial_resolution=6",
            "growth.initial_resolution must be a power of two from 4, got 6",
        ),
        ("growth.fade_kimg=0", "growth.fade_kimg must be more than 0, got 0"),
        ("generator.architecture=skip", "got generator.architecture skip"),
    ],
)
def test_growth_that_cannot_work_is_refused(growing_config, override, message):
    with pytest.raises(ConfigError, match=message):
        growing_config.with_overrides(override)


def test_wgan_gp_with_mipmaps_is_refused(run_config):
    with pytest.raises(ConfigError, match="wgan-gp does not support architecture mipmap"):
        run_config.with_overrides(
            "loss.adversarial=wgan-gp",
            "loss.gamma=0",
            "generator.architecture=mipmap",
            "discriminator.architecture=mipmap",
        )


def test_an_unknown_family_is_refused(run_config):
    with pytest.raises(ConfigError, match=r"family must be one of .* got 'stylegan9'"):
        RunConfig.from_json({**run_config.to_json(), "family": "stylegan9"})
    with pytest.raises(ConfigError, match="family"):
        dataclasses.replace(run_config, family="stylegan9")


def test_unknown_missing_and_mistyped_fields_are_refused(run_config):
    data = run_config.to_json()
    with pytest.raises(ConfigError, match="option 'surprise' does not exist"):
        RunConfig.from_json({**data, "surprise": 1})
    with pytest.raises(ConfigError, match="config has no field data"):
        RunConfig.from_json({key: value for key, value in data.items() if key != "data"})
    with pytest.raises(ConfigError, match="batch must be a whole number, got '8'"):
        RunConfig.from_json({**data, "batch": "8"})


def test_differences_name_what_changes_the_result_and_pass_over_the_rest(run_config):
    changed = run_config.with_overrides("optim.beta2=0.9", "output.total_kimg=5", "seed=1")
    assert differences(run_config, changed) == ["optim.beta2: 0.99 -> 0.9", "seed: 0 -> 1"]


def test_parts_must_fit_each_other(run_config):
    with pytest.raises(
        ConfigError, match=r"batch must be a multiple of discriminator\.mbstd_group_size 4, got 6"
    ):
        run_config.with_overrides("batch=6")
    generator = dataclasses.replace(run_config.generator, resolution=32)
    with pytest.raises(ConfigError, match=r"must be equal, got 32 and 16"):
        dataclasses.replace(run_config, generator=generator).check()
    with pytest.raises(ConfigError, match="pl_batch_shrink"):
        run_config.with_overrides("loss.pl_batch_shrink=3")


def test_every_field_is_documented(growing_config):
    def parts(config):
        yield type(config)
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                yield from parts(value)

    for part in parts(growing_config):
        for field in dataclasses.fields(part):
            assert f"\n        {field.name}: " in part.__doc__ or (
                f"\n    {field.name}: " in part.__doc__
            ), f"{part.__name__}.{field.name}"


def test_without_a_group_size_the_whole_batch_stays_together(run_config):
    config = run_config.with_overrides("batch=8", "discriminator.mbstd_group_size=none")
    assert group_of(config, 8) == 8
    with pytest.raises(ConfigError, match="batch 8 in groups of 8"):
        check_processes(config, 2)


@pytest.mark.parametrize(
    ("overrides", "reported"),
    [
        (["batch=8"], "batch 8 in groups of 4"),
        (["batch=16", "loss.pl_batch_shrink=8"], "path lengths of 2 images in groups of 1"),
        (
            ["batch=4", "discriminator.mbstd_group_size=1"],
            "path lengths of 2 images in groups of 1",
        ),
    ],
)
def test_each_process_gets_a_share_of_each_phase(run_config, overrides, reported):
    config = run_config.with_overrides(*overrides)
    with pytest.raises(ConfigError, match=reported):
        check_processes(config, 4)
    check_processes(config, 2)
    without = config.with_overrides("loss.pl_weight=0")
    if reported.startswith("path"):
        check_processes(without, 4)


def test_a_config_that_version_0_1_wrote_is_read():
    written = json.loads((Path(__file__).parent / "files" / "config-0.1.json").read_text())
    config = RunConfig.from_json(written["config"])
    assert config.runtime == RuntimeConfig(
        device="cpu", workers=1, batch_gpu=4, activation_checkpointing=True
    )
    assert (config.output.tick_kimg, config.output.samples) == (0.008, 4)
    assert config.growth.batches == {"8": 32}
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_run_of_version_0_1_goes_on(run_config, tmp_path):
    run = tmp_path / "run"
    train(run_config, run, max_minutes=0)
    written = json.loads((run / "config.json").read_text())
    runtime = written["config"].pop("runtime")
    runtime["recompute"] = runtime.pop("activation_checkpointing")
    del runtime["threads"]  # a later option
    written["config"]["output"] |= runtime
    (run / "config.json").write_text(json.dumps(written))
    outcome = train(run_config.with_overrides("output.total_kimg=0.016"), run)
    assert outcome.is_complete
    assert [record["nimg"] for record in read_log(run)] == [16]
    assert "runtime" in json.loads((run / "config.json").read_text())["config"]


def test_a_run_before_version_0_3_keeps_its_rules_about_pixels(run_config, tmp_path):
    run = tmp_path / "run"
    train(run_config, run, max_minutes=0)
    written = json.loads((run / "config.json").read_text())
    for name in ("background", "range", "alpha", "depth"):
        del written["config"]["data"][name]
    (run / "config.json").write_text(json.dumps(written))
    data = RunConfig.from_json(written["config"]).data
    assert (data.background, data.depth) == ("white", "uint8")
    result = stylegan.train(out=run, kimg=0.008, metrics="none")
    assert result.outcome.is_complete
    assert result.plan.config.data == data


def test_names_of_version_0_1_are_understood(run_config):
    config = run_config.with_overrides("output.recompute=true", "output.cache_gb=1")
    assert config.runtime.activation_checkpointing
    assert config.runtime.cache_gb == 1


def test_options_have_full_names_short_names_and_sections(run_config):
    for options in (
        {"loss.gamma": 3, "batch": 4, "data.mirror": False},
        {"gamma": 3, "batch": "4", "mirror": "false"},
        {"loss": {"gamma": 3}, "batch": 4, "data": {"mirror": False}},
        {"loss": dataclasses.replace(run_config.loss, gamma=3), "batch": 4, "mirror": False},
    ):
        config = run_config.with_options(options)
        assert (config.loss.gamma, config.batch, config.data.mirror) == (3, 4, False)
    config = run_config.with_options({"channel-base": 128, "data": "elsewhere"})
    assert config.generator.channel_base == config.discriminator.channel_base == 128
    assert config.data.path == "elsewhere"


def test_a_run_needs_every_option_decided(run_config, tmp_path):
    config = run_config.with_options({"gamma": None, "growth.lrs": "auto"})
    assert undecided(config) == ["loss.gamma", "growth.lrs"]
    with pytest.raises(ConfigError, match=r"loss.gamma, growth.lrs must be decided first"):
        train(config, tmp_path / "run")


def test_every_option_of_a_rule_can_be_left_to_it(growing_config):
    left = growing_config.with_options({"augment": "ada"} | dict.fromkeys(BY_RULE))
    assert undecided(left) == list(BY_RULE)
    config, _ = resolve(left, resolution=32)
    assert undecided(config) == []


def test_short_names_are_options(run_config):
    known = option_types(run_config.family)
    for names in SHORT_NAMES.values():
        assert known.keys() >= set(names)
