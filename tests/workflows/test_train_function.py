"""`stylegan.train`: training from Python."""

import dataclasses
import json

import pytest
import torch

import stylegan
from stylegan.errors import CheckpointError, ConfigError
from stylegan.training.config import RunConfig
from stylegan.training.configure import configure

TINY = {
    "channel_base": 64,
    "channel_max": 6,
    "batch": 4,
    "device": "cpu",
    "output": {"samples": 4, "tick_kimg": 0.008},
}


def train(data, out, **options):
    options = {"preset": "stylegan2-small", "kimg": 0.016, "metrics": "none", **TINY, **options}
    return stylegan.train(data, out, **options)


def test_a_call_trains_and_the_same_call_continues(image_folder, tmp_path):
    first = train(image_folder, tmp_path / "run", max_minutes=0)
    assert (first.outcome.nimg, first.outcome.is_complete) == (4, False)
    assert first.snapshot == tmp_path / "run" / "snapshots" / "000000004"
    states, reports = [], []
    result = train(
        str(image_folder),
        str(tmp_path / "run"),
        observe=states.append,
    )
    assert [state.nimg for state in states] == [8, 12, 16]
    assert result.outcome.is_complete
    assert stylegan.load(result.snapshot).img_resolution == 16
    assert [record["nimg"] for record in result.log] == [8, 16]
    assert result.records == []
    longer = train(
        image_folder, tmp_path / "run", kimg=0.024, progress=lambda *state: reports.append(state)
    )
    assert reports[-1] == ("training, kimg", 0.024, 0.024)
    assert longer.snapshot.name == "000000024"
    assert str(longer) == f"{tmp_path / 'run'}: 0.0 kimg, complete"
    html = longer._repr_html_()
    assert "complete" in html
    assert '<img src="data:image/png;base64,' in html


def test_the_folder_alone_continues_a_run(image_folder, tmp_path):
    train(image_folder, tmp_path / "run", max_minutes=0)
    result = stylegan.train(out=tmp_path / "run")
    assert result.outcome.is_complete
    assert result.plan.config.loss.gamma == 1
    with pytest.raises(ConfigError, match="preset is missing"):
        stylegan.train(out=tmp_path / "other")


def test_a_run_from_other_weights_says_what_it_kept(image_folder, tmp_path, caplog):
    assert train(image_folder, tmp_path / "small", resolution=8, max_minutes=0).transfer is None
    options = {"init_from": tmp_path / "small", "max_minutes": 0}
    with caplog.at_level("INFO", logger="stylegan"):
        result = train(image_folder, tmp_path / "large", **options)
    table = result.transfer.networks["generator_ema"]
    assert table.new.names == ("synthesis.b16.*",)
    assert f"generator_ema: {table}" in caplog.text
    assert "8x8 images of the initial weights, upsampled" in result.transfer.notes[0]


def test_options_have_the_names_of_the_command_line(image_folder, tmp_path):
    plans = [
        train(image_folder, tmp_path / "run", dry_run=True, **options).plan
        for options in (
            {"gamma": 3, "mirror": True, "optim.beta2": 0.9},
            {"loss": {"gamma": 3}, "data.mirror": True, "optim": {"beta2": 0.9}},
        )
    ]
    assert plans[0].config == plans[1].config
    assert (plans[0].config.loss.gamma, plans[0].config.data.mirror) == (3, True)
    assert "loss.gamma = 3: chosen" in str(plans[0])
    assert not (tmp_path / "run").exists()


def test_a_config_can_be_given_in_place_of_a_preset(image_folder, tmp_path):
    options = {"channel_base": 64, "channel_max": 6, "batch": 4, "kimg": 0.008, "device": "cpu"}
    config, _ = configure("stylegan2-small", options, resolution=16)
    config = dataclasses.replace(config, seed=3)
    result = stylegan.train(image_folder, tmp_path / "run", config=config, metrics="none")
    assert result.outcome.is_complete
    assert result.plan.config.seed == 3
    written = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert RunConfig.from_json(written) == result.plan.config
    left = config.with_options({"gamma": None, "data": str(image_folder)})
    plan = stylegan.train(out=tmp_path / "other", config=left, dry_run=True).plan
    assert plan.config.loss.gamma == 0.0002 * 16**2 / 4


def test_a_recipe_can_be_given_and_arguments_replace_it(image_folder, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f"""
        preset = "stylegan2-d"
        data = "{image_folder}"
        out = "{tmp_path / "of_recipe"}"
        channel_base = 64
        channel_max = 6
        batch = 4
        device = "cpu"
        metrics = "none"
        [growth]
        batches = {{ 8 = 8 }}
        """
    )
    result = stylegan.train(recipe=recipe, out=tmp_path / "run", kimg=5, dry_run=True)
    assert result.out == tmp_path / "run"
    config = result.plan.config
    assert (config.preset, config.output.total_kimg) == ("stylegan2-d", 5)
    assert config.growth.batches == {"8": 8}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": None}, "preset is missing"),
        ({"out": None}, "out is missing"),
        ({"gama": 1}, "option 'gama' does not exist; the most similar are gamma"),
        ({"loss": {"gama": 1}}, "option 'loss.gama' does not exist"),
        ({"metrics_fraction": 2}, "metrics_fraction must be from 0 to 1, got 2"),
        ({"max_minutes": -1}, "max_minutes must be 0 or more, got -1"),
        ({"cond": True}, "--cond needs a label for each image"),
        ({"batch": "many"}, "batch must be a whole number, got 'many'"),
    ],
)
def test_mistakes_are_config_errors(image_folder, tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        train(image_folder, **{"out": tmp_path / "run", **arguments})


def test_a_run_keeps_the_precision_and_the_decay_that_it_was_started_with(
    image_folder, tmp_path, monkeypatch
):
    # as version 0.1 did on a machine that computes fast in bfloat16
    options = {"preset": "stylegan2-f", "generator": {"z_dim": 8, "w_dim": 8, "mapping_layers": 2}}
    old = {"precision": "bf16", "ema.w_avg_beta": 0.998}
    train(image_folder, tmp_path / "run", max_minutes=0, **options, **old)
    result = train(image_folder, tmp_path / "run", **options)
    assert result.outcome.is_complete
    assert (result.plan.config.precision, result.plan.config.ema.w_avg_beta) == ("bf16", 0.998)
    assert "precision = bf16: as the run was started" in str(result.plan)
    assert "precision = bf16 (published: fp32)" in str(result.plan)
    with pytest.raises(CheckpointError, match="precision: bf16 -> fp32"):
        train(image_folder, tmp_path / "run", precision="fp32", **options)


def test_a_published_recipe_is_compared_with_itself(tmp_path):
    recipe = "recipes/lsun-cat256-stylegan2-f.toml"
    published = {"recipe": recipe, "out": tmp_path, "dry_run": True, "device": "cpu"}
    assert stylegan.train(**published).plan.deviations == ()
    plan = stylegan.train(**published, gamma="auto", precision="bf16").plan
    assert plan.deviations == (
        "loss.gamma = 0.4096 (published: 10)",
        "precision = bf16 (published: fp32)",
    )
    assert "differs from the published run: loss.gamma = 0.4096 (published: 10)" in str(plan)


def test_training_from_python_equals_the_command(image_folder, tmp_path):
    from stylegan.cli.main import main

    train(image_folder, tmp_path / "python", mirror=True)
    line = ["--channel-base", "64", "--channel-max", "6", "--batch", "4", "--device", "cpu"]
    line += ["--output.samples", "4", "--output.tick-kimg", "0.008", "--mirror"]
    line += ["--kimg", "0.016", "--metrics", "none", "--data", str(image_folder)]
    out = ["--preset", "stylegan2-small", "--out", str(tmp_path / "command")]
    assert main(["train", *line, *out]) == 0
    states = [stylegan.load(tmp_path / name).state_dict() for name in ("python", "command")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
