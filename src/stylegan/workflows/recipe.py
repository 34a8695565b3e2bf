"""Recipes: files with the options of a run."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylegan.errors import ConfigError
from stylegan.training.config import canonical, split_overrides
from stylegan.training.presets import find_preset

ARGUMENTS = (
    "preset",
    "out",
    "resolution",
    "metrics",
    "metrics_fraction",
    "weights_dir",
    "max_minutes",
    "gpus",
    "dry_run",
)
"""Keys of a recipe that belong to a call of `train`, not to the options of its run."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The content of a recipe.

    Attributes:
        arguments: those of `ARGUMENTS` that it has.
        options: options of the run, by full name.
        source: where the run was published; None for other recipes.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    source: str | None = None


def load_recipe(path: str | Path, *, preset: str | None = None) -> Recipe:
    """Read a recipe: a TOML file of options.

    Its keys are those of `ARGUMENTS`, `source`, and options of the run under their short or full
    names or in sections, such as `gamma = 10`, or `[loss]` with `gamma = 10`. Recipes of version
    0.1 have a list `set` of texts, such as "loss.gamma=10".

    Args:
        path: of the file.
        preset: used in place of the preset of the recipe.

    Raises:
        ConfigError: if the file cannot be read, or a key is no option.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--recipe {path}: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no text
        message = " ".join(str(error).split())[:120]
        raise ConfigError(f"--recipe {path} cannot be read as TOML ({message})") from error
    arguments: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in content.items():
        name = {"metrics_share": "metrics_fraction"}.get(key.replace("-", "_"), key)
        name = name.replace("-", "_")
        if name in ARGUMENTS and not isinstance(value, dict):
            arguments[name] = value
        elif name == "set" and isinstance(value, list):
            options |= split_overrides(value)
        elif name != "source":
            options[name] = value
    family = find_preset(preset or arguments.get("preset", "stylegan2-f")).run.family
    try:
        options = canonical(options, family)
    except ConfigError as error:
        raise ConfigError(f"--recipe {path}: {error}") from error
    return Recipe(arguments=arguments, options=options, source=content.get("source"))
