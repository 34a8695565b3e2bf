"""Every recipe is the command that its header shows, and is understood by the real one."""

import re
import tomllib
from pathlib import Path

import pytest

from stylegan.cli.train import understand
from stylegan.training.configure import configure, deviations, published_run
from stylegan.training.presets import PRESETS
from stylegan.training.schedule import stage_at
from stylegan.workflows.recipe import load_recipe

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
    recipe = load_recipe(path)
    options = recipe.options | {"device": "cpu"}
    resolution = recipe.arguments["resolution"]
    config, _ = configure(recipe.arguments["preset"], options, resolution=resolution)
    return recipe, config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_a_command_with_its_story(path):
    reported = header(path)
    assert tuple(reported) == HEADER
    assert reported["command"] == f"stylegan train --recipe recipes/{path.name}"
    recipe, config = config_of(path)
    assert recipe.arguments["out"] == f"runs/{path.stem}"
    assert path.stem.endswith(recipe.arguments["preset"])
    assert config.data.path.endswith(".zip")
    assert config.output.total_kimg == recipe.options["output.total_kimg"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reaches_its_full_resolution(path):
    _, config = config_of(path)
    last = stage_at(config, round(config.output.total_kimg * 1000) - config.batch)
    assert (last.lod, last.size) == (0, config.generator.size)
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


def test_the_line_wins_over_the_recipe():
    line = ["--out", "elsewhere", "--no-mirror", "--set", "ema.rampup=0.5", "--kimg", "7"]
    call, options, _ = understand(["--recipe", str(RECIPES[0]), *line])
    assert (call["out"], call["preset"], call["data"]) == ("elsewhere", None, None)
    assert options == {
        "mirror": False,
        "total_kimg": 7,
        "ema.rampup": "0.5",
    }


OURS = ("emoji", "lsun-car384x512")  # nobody has published these runs
PUBLISHED = [path for path in RECIPES if not path.stem.startswith(OURS)]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_recipes_of_published_runs_mean_these_runs(path):  # issue 16, section 7, fault 10
    recipe, config = config_of(path)
    assert recipe.source.startswith("Karras et al. ")
    assert config.precision == "fp32"
    if config.family != "progan":
        assert config.ema.w_avg_beta == 0.995
    for network in (config.generator, config.discriminator):
        assert getattr(network, "conv_clamp", None) is None
    if path.stem.startswith("lsun"):
        assert recipe.options["loss.gamma"] == config.loss.gamma


def test_the_small_recipes_say_that_they_are_not_the_published_runs():
    recipe, config = config_of(ROOT / "recipes" / "emoji-stylegan2-f.toml")
    assert recipe.source is None
    reported = deviations(config, published_run("stylegan2-f"))
    assert "batch = 8 (published: 32)" in reported
    assert "ema.w_avg_beta = 0.998 (published: 0.995)" in reported


def test_recipes_of_version_0_1_are_read(tmp_path):
    old = tmp_path / "old.toml"
    old.write_text(
        """
        preset = "stylegan2-d"
        total-kimg = 5
        on-bad = "fail"
        metrics-share = 0.1
        set = ["growth.batches=8:16", "ema.beta=none", "output.workers=0", "optim.beta2=0.9"]
        """
    )
    new = tmp_path / "new.toml"
    new.write_text(
        """
        preset = "stylegan2-d"
        total_kimg = 5
        on_bad = "fail"
        metrics_fraction = 0.1
        [growth]
        batches = { 8 = 16 }
        [ema]
        beta = "none"
        [runtime]
        workers = 0
        [optim]
        beta2 = 0.9
        """
    )
    recipes = [load_recipe(path) for path in (old, new)]
    assert recipes[0].arguments == recipes[1].arguments
    configs = [configure("stylegan2-d", recipe.options, resolution=64)[0] for recipe in recipes]
    assert configs[0] == configs[1]
    assert configs[0].growth.batches == {"8": 16}
    assert configs[0].runtime.workers == 0
