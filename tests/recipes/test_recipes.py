"""Every recipe is the command that its header shows, and is understood by the real one."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import tyro

from stylegan.cli.train import ImageSizes, Initial, Train, resolve, with_recipe
from stylegan.training.presets import PRESETS
from stylegan.training.schedule import stage_at

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
HEADER = ("command", "data", "hardware", "time", "FID", "license")


def header(path):
    """Return the entries of the comment at the top; a line that goes on is joined."""
    top = path.read_text(encoding="utf-8").partition("\n\n")[0]
    lines = re.sub(r"\n#( {12})", " ", top)
    return dict(re.findall(r"^# (\w+): +(.+)$", lines, re.MULTILINE))


def config_of(path):
    """Do what the command does with a recipe, on a set that has no images."""
    arguments = with_recipe(["--recipe", str(path), "--device", "cpu"])
    command = tyro.cli(Train, args=arguments)
    assert command.resolution is not None
    config, reasons = resolve(command, ImageSizes(resolution=command.resolution), Initial())
    return command, config, reasons


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_a_command_with_its_story(path):
    told = header(path)
    assert tuple(told) == HEADER
    assert told["command"] == f"stylegan train --recipe recipes/{path.name}"
    command, config, _ = config_of(path)
    assert command.out == Path("runs", path.stem)
    assert path.stem.endswith(command.preset)
    assert command.data.endswith(".zip")
    assert config.data.path == command.data
    assert config.output.total_kimg == command.total_kimg


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reaches_its_full_resolution(path):
    _, config, _ = config_of(path)
    last = stage_at(config, round(config.output.total_kimg * 1000) - config.batch)
    assert (last.lod, last.resolution) == (0, config.generator.resolution)
    assert last.batch == config.batch


def test_published_runs_have_the_published_values():  # spec, sections 3.5, 4.5, 5.3, 5.4
    configs = {path.stem: config_of(path)[1] for path in RECIPES}
    assert len(configs) >= 25
    gammas = {
        name: config.loss.gamma for name, config in configs.items() if not name.startswith("emoji")
    }
    tens = {name for name, gamma in gammas.items() if gamma == 10}
    assert {name for name, gamma in gammas.items() if gamma == 100} == {
        "ffhq1024-stylegan2-e", "lsun-church256-stylegan2-f", "lsun-horse256-stylegan2-f"
    }  # fmt: skip
    assert {name for name, gamma in gammas.items() if gamma == 0} == {
        "celebahq1024-progan", "celebahq1024-stylegan-f", "ffhq1024-stylegan-a"
    }  # fmt: skip
    assert len(tens) == len(gammas) - 6
    for name, config in configs.items():
        assert config.data.mirror == name.startswith(("ffhq", "celebahq"))
        if config.growth is not None and not name.startswith("emoji"):
            assert config.growth.fade_kimg == 600
    capped = configs["celebahq1024-stylegan-f"]
    assert capped.loss.adversarial == "wgan-gp"
    assert max(capped.growth.lrs.values()) == 0.002
    assert configs["lsun-horse256-stylegan2-f"].output.total_kimg == 100_000


def test_the_small_recipes_differ_in_their_family_only_where_they_must():
    emoji = {path.stem: config_of(path)[1] for path in RECIPES if path.stem.startswith("emoji")}
    assert len(emoji) == 6
    for part in (
        lambda config: config.output,
        lambda config: (config.batch, config.seed, config.data, config.ema),
        lambda config: config.generator.z_dim,
        lambda config: config.discriminator.channel_max,
    ):
        first, *others = [part(config) for config in emoji.values()]
        assert all(other == first for other in others)


def test_every_family_has_a_recipe():
    presets = {tomllib.loads(path.read_text("utf-8"))["preset"] for path in RECIPES}
    assert presets >= PRESETS.keys() - {"stylegan2-small"}


def test_the_line_wins_over_the_recipe(tmp_path):
    path = RECIPES[0]
    line = ["--recipe", str(path), "--out", "elsewhere", "--no-mirror", "--set", "ema.rampup=0.5"]
    command = tyro.cli(Train, args=with_recipe(line))
    assert (command.out, command.mirror) == (Path("elsewhere"), False)
    assert command.set[-1] == "ema.rampup=0.5"
    assert shlex.join(with_recipe(["--batch", "4"])) == "--batch 4"
