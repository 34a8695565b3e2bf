"""The options of a run as options of a command line, read from `RunConfig`."""

import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import docstring_parser

from stylegan.cli.command import default_text
from stylegan.cli.parser import Option
from stylegan.training.config import (
    BY_RULE,
    SHORT_NAMES,
    GrowthConfig,
    RunConfig,
    option_types,
    split_overrides,
)

_COMMON = (
    *("mirror", "cond", "batch", "total_kimg", "gamma", "channel_base", "channel_max"),
    *("augment", "augment_set", "augment_target", "augment_kimg"),
    *("precision", "seed", "init_from", "snapshot_kimg", "checkpoint_kimg", "on_bad"),
    *("device", "workers", "batch_gpu", "threads"),
)
"""Options that the help lists first, under their short names."""
_SET = "Option under its full name; the form of version 0.1. May be repeated."
_GROWTH = "none: train at the full resolution from the start, with networks that could grow."


_MAX_CHOICES = 40  # characters; the help names longer choices


def run_options(start: RunConfig) -> list[Option]:
    """Return the options of a run for `cli.command.parser_of`.

    Common options come first; the others are in one group for each section of `RunConfig`. Only
    options that the command line gives have a value.

    Args:
        start: options of the preset and the recipe, which the help shows as defaults.
    """
    types = option_types(start.family)
    common: dict[str, Option] = {}
    for name in _COMMON:
        targets = SHORT_NAMES.get(name, (name,))
        flags = ["--kimg"] if name == "total_kimg" else []
        if len(targets) == 1 and "." in targets[0]:
            flags.append(_flag(targets[0]))
        common[name] = _option(start, name, targets[0], types[targets[0]], flags, "options")
        if len(targets) == 1:
            del types[targets[0]]
    common["growth"] = Option(
        name="growth", flags=["--growth"], kind=Literal["none"], help=_GROWTH, is_optional=True
    )
    common["set"] = Option(
        name="set",
        flags=["--set"],
        many="repeat",
        help=_SET,
        metavar="NAME=VALUE",
        is_optional=True,
    )
    del types["data.path"]  # an argument of `train`
    short = {
        targets[0]: [_flag(name)] for name, targets in SHORT_NAMES.items() if len(targets) == 1
    }
    return [
        *common.values(),
        *(
            _option(
                start, name, name, kind, short.get(name, []), name.rpartition(".")[0] or "options"
            )
            for name, kind in types.items()
        ),
    ]


def take_options(values: dict[str, Any], options: Sequence[Option]) -> dict[str, Any]:
    """Take the values of the options of a run out of what was parsed."""
    taken = {option.name: values.pop(option.name) for option in options if option.name in values}
    return taken | split_overrides(taken.pop("set", ()))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option(
    start: RunConfig, name: str, target: str, kind: Any, flags: Sequence[str], group: str
) -> Option:
    """Return an option with its help and its default."""
    section, _, key = target.rpartition(".")
    owner = (getattr(start, section) or GrowthConfig()) if section else start
    documented = docstring_parser.parse(type(owner).__doc__ or "").params
    (description,) = [entry.description or "" for entry in documented if entry.arg_name == key]
    value = getattr(owner, key)
    word = "auto" if target in (*BY_RULE, "runtime.threads") else "none"
    default = word if value is None or value == {} else default_text(value)
    is_switch = kind is bool
    return Option(
        name=name,
        flags=[*flags, _flag(name)],
        kind=kind,
        metavar=None if is_switch else _placeholder(kind, word),
        help=re.sub(r"\bNone\b", word, " ".join(description.split())),
        default_text=f"default: {default}",
        is_optional=True,
        group=group,
    )


def _placeholder(kind: Any, word: str) -> str:
    """Return the placeholder of a value; `word` stands for None."""
    ending = f"|{word}" if NoneType in get_args(kind) else ""
    for option in (kind, *get_args(kind)):
        if get_origin(option) is Literal:
            choices = "|".join(map(str, get_args(option))) + ending
            return choices if len(choices) <= _MAX_CHOICES else "NAME"
        if get_origin(option) is dict:
            return f"SIDE:VALUE,...{ending}"
        if option in (int, float, str):
            return str(option.__name__).upper() + ending
    raise TypeError(f"no placeholder for {kind}")
