"""Options as data: nested dataclasses to and from JSON, and a field of them from text."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from stylegan.errors import ConfigError

TypesOf = Callable[[Any], dict[str, Any]]
"""Gives a dataclass the types of its fields, by name."""


def build(kind: Any, value: Any, *, types_of: TypesOf, path: str = "") -> Any:
    """Make a value of a field's type from plain JSON data.

    Args:
        kind: a dataclass, perhaps of dataclasses, or the type of one of their fields.
        value: what `dataclasses.asdict` and JSON made of it.
        types_of: the types of a dataclass's fields.
        path: where this is, for the errors: "optim.".

    Raises:
        ConfigError: if a field is unknown, missing or of another type, or its dataclass refuses it.
    """
    part = _part(kind)
    if part is not None and not (value is None and part is not kind):
        return part(**_items(part, value, types_of, path))
    if not _matches(value, kind):
        raise ConfigError(
            f"{path.rstrip('.')} = {value!r}", expected=_describe(kind), fix="correct the value"
        )
    if typing.get_origin(kind) is dict:
        of_value = typing.get_args(kind)[1]
        return {key: build(of_value, item, types_of=types_of) for key, item in value.items()}
    return float(value) if kind is float else value


def override(kind: Any, data: dict[str, Any], text: str, *, types_of: TypesOf) -> None:
    """Replace one field in the JSON data of a dataclass, as by "optim.beta2=0.999".

    Args:
        kind: the dataclass.
        data: changed in place. A part that is None is switched on by one of its fields.
        text: names joined by dots, "=", and the value.
        types_of: the types of a dataclass's fields.

    Raises:
        ConfigError: if there is no such field, or the value is not of its type.
    """
    key, found, value = text.partition("=")
    *parents, name = key.strip().split(".")
    here = kind
    for parent in parents:
        here = _part(types_of(here).get(parent)) if here is not None else None
        if here is not None:
            if data[parent] is None:
                data[parent] = {}
            data = data[parent]
    known = types_of(here) if here is not None else {}
    if not found or name not in known or dataclasses.is_dataclass(known[name]):
        leaves = _leaves(kind, types_of)
        similar = difflib.get_close_matches(key.strip(), leaves, n=3, cutoff=0) or leaves[:3]
        raise ConfigError(
            f"--set {text}",
            expected=f"FIELD=VALUE, with a field such as {', '.join(similar)}",
            fix="check the spelling; --dry-run shows every field",
        )
    data[name] = _parse(value.strip(), known[name], key)


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return JSON data without levels: {"optim.beta2": 0.99}."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def _part(kind: Any) -> Any:
    """Return the dataclass that a field's type is, or may be; None for a plain value."""
    options = (kind, *typing.get_args(kind))
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _leaves(kind: Any, types_of: TypesOf, prefix: str = "") -> list[str]:
    leaves = []
    for name, inner in types_of(kind).items():
        part = _part(inner)
        leaves += [prefix + name] if part is None else _leaves(part, types_of, f"{prefix}{name}.")
    return leaves


def _items(part: Any, value: Any, types_of: TypesOf, path: str) -> dict[str, Any]:
    known = types_of(part)
    required = {
        entry.name
        for entry in dataclasses.fields(part)
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    }
    if not isinstance(value, dict) or value.keys() - known.keys() or required - value.keys():
        found = sorted(value) if isinstance(value, dict) else value
        raise ConfigError(
            f"{path or 'config'} with {found}",
            expected=f"the fields {', '.join(known)}",
            fix="use a config that this version wrote",
        )
    return {
        key: build(known[key], item, types_of=types_of, path=f"{path}{key}.")
        for key, item in value.items()
    }


def _matches(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return value in typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, option) for option in typing.get_args(kind))
    if origin is dict:
        of_key, of_value = typing.get_args(kind)
        return isinstance(value, dict) and all(
            _matches(key, of_key) and _matches(item, of_value) for key, item in value.items()
        )
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _parse(text: str, kind: Any, key: str) -> Any:
    options = typing.get_args(kind) if typing.get_origin(kind) is types.UnionType else (kind,)
    for option in options:
        if typing.get_origin(option) is dict:
            pairs = [pair.partition(":") for pair in text.split(",") if text.lower() != "none"]
            inner = typing.get_args(option)[1]
            if all(colon for _, colon, _ in pairs):
                return {name.strip(): _parse(item.strip(), inner, key) for name, _, item in pairs}
        if option is types.NoneType and text.lower() == "none":
            return None
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if typing.get_origin(option) is Literal and text in typing.get_args(option):
            return text
        if option is str:
            return text
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
    raise ConfigError(
        f"--set {key}={text}", expected=_describe(kind), fix="give a value of that type"
    )


def _describe(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return "its fields, one by one"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is types.UnionType:
        return " or ".join(_describe(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is dict:
        return "pairs such as 8:64,16:32, or none"
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    return names.get(kind, "none" if kind is types.NoneType else str(kind))
