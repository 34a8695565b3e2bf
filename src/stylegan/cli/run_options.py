"""The options of a run as options of a command line, read from `RunConfig`."""

import dataclasses
import re
import typing
from collections.abc import Sequence
from types import NoneType
from typing import Annotated, Any, Literal

import docstring_parser
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from stylegan.errors import ConfigError
from stylegan.training import fields
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
    *("precision", "seed", "init_from", "snapshot_kimg", "checkpoint_kimg", "on_bad"),
    *("device", "workers", "batch_gpu", "threads"),
)
"""Options that the help lists first, under their short names."""
_SET = "Option under its full name; the form of version 0.1. May be repeated."
_GROWTH = "none: train at the full resolution from the start, with networks that could grow."


def option_fields(start: RunConfig) -> list[tuple[str, Any, Any]]:
    """Return the options of a run as fields for `cli.command.parse`.

    Common options come first; the others are in one group for each section of `RunConfig`. Of the
    groups, only options that the command line gives are parsed.

    Args:
        start: options of the preset and the recipe, which the help shows as defaults.
    """
    types = option_types(start.family)
    common: dict[str, Any] = {}
    for name in _COMMON:
        targets = SHORT_NAMES.get(name, (name,))
        aliases = ["--kimg"] if name == "total_kimg" else []
        if len(targets) == 1 and "." in targets[0]:
            aliases.append(f"--{targets[0].replace('_', '-')}")
        common[name] = _option(start, targets[0], types[targets[0]], aliases)
        if len(targets) == 1:
            del types[targets[0]]
    common["growth"] = _annotated(Literal["none"], help=_GROWTH, help_behavior_hint="")
    del types["data.path"]  # an argument of `train`
    sections: dict[str, dict[str, Any]] = {}
    for name, kind in types.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = _option(start, name, kind, [])
    repeated = tyro.conf.UseAppendAction[tuple[str, ...]]
    return [
        (
            "set",
            _annotated(repeated, name="set", help=_SET, metavar="NAME=VALUE"),
            dataclasses.field(default=()),
        ),
        ("common", _annotated(_group("common", common), name=""), dataclasses.field()),
        *((name, _group(name, options), dataclasses.field()) for name, options in sections.items()),
    ]


def take_options(values: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a run out of what was parsed by `option_fields`."""
    options: dict[str, Any] = values.pop("common")
    for section in [name for name, value in values.items() if isinstance(value, dict)]:
        inner = values.pop(section)
        options = {f"{section}.{name}": value for name, value in inner.items()} | options
    return options | split_overrides(values.pop("set"))


def _annotated(hint: Any, *markers: Any, **argument: Any) -> Any:
    annotated: Any = Annotated
    return annotated[(hint, *markers, tyro.conf.arg(**argument))]


def _group(name: str, options: dict[str, Any]) -> Any:
    make: Any = typing.TypedDict
    return make(name, options, total=False)


def _option(start: RunConfig, name: str, kind: Any, aliases: Sequence[str]) -> Any:
    """Return the type of an option for tyro, with its help and its default."""
    section, _, key = name.rpartition(".")
    owner = (getattr(start, section) or GrowthConfig()) if section else start
    documented = docstring_parser.parse(type(owner).__doc__ or "").params
    (description,) = [entry.description or "" for entry in documented if entry.arg_name == key]
    value = getattr(owner, key)
    word = "auto" if name in (*BY_RULE, "runtime.threads") else "none"
    is_optional = NoneType in typing.get_args(kind)
    if kind is bool:
        default = "on" if value else "off"
    else:
        default = word if value is None or value == {} else f"{value}"
    argument = {
        "help": re.sub(r"\bNone\b", word, " ".join(description.split())),
        "aliases": tuple(aliases) or None,
        "help_behavior_hint": f"(default: {default})",
    }
    if kind is bool:
        return _annotated(bool, **argument)

    def parse(words: list[str]) -> Any:
        try:
            return fields.parse(words[0], kind, name)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    placeholder = _placeholder(kind) + (f"|{word}" if is_optional else "")
    spec: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
        nargs=1,
        metavar=placeholder,
        instance_from_str=parse,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )
    return _annotated(Any, spec, **argument)


def _placeholder(kind: Any) -> str:
    for option in (kind, *typing.get_args(kind)):
        if typing.get_origin(option) is Literal:
            return "|".join(map(str, typing.get_args(option)))
        if typing.get_origin(option) is dict:
            return "SIDE:VALUE,..."
        if option in (int, float, str):
            return str(option.__name__).upper()
    raise TypeError(f"no placeholder for {kind}")
