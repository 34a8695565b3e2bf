"""Options as data: nested dataclasses to and from JSON, and values of their fields from text."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from stylegan.errors import ConfigError

TypesOf = Callable[[Any], dict[str, Any]]
"""Returns the types of a dataclass's fields, by name."""


def build(kind: Any, value: Any, *, types_of: TypesOf, path: str = "") -> Any:
    """Make a value of a field's type from plain JSON data.

    Args:
        kind: a dataclass, which may contain others, or the type of a field.
        value: what `dataclasses.asdict` and JSON made of the value.
        types_of: returns the types of a dataclass's fields.
        path: names of the enclosing fields, each followed by a dot, for error messages.

    Raises:
        ConfigError: if a field is unknown, missing or of another type, or a dataclass refuses its
            values.
    """
    section = section_of(kind)
    if section is not None and not (value is None and section is not kind):
        return section(**_items(section, value, types_of, path))
    return checked(value, kind, path.rstrip("."))


def checked(value: Any, kind: Any, name: str) -> Any:
    """Return a value of a field, converted from int to float or from a path to text if needed.

    Raises:
        ConfigError: if the value does not have the type.
    """
    types_allowed = _options(kind)
    if isinstance(value, Path) and str in types_allowed:
        value = str(value)
    if not _matches(value, kind):
        raise ConfigError(f"{name} must be {describe(kind)}, got {value!r}")
    for option in types_allowed:
        if typing.get_origin(option) is dict and isinstance(value, dict):
            return {
                key: checked(item, typing.get_args(option)[1], name) for key, item in value.items()
            }
    is_float = float in types_allowed and int not in types_allowed
    return float(value) if is_float and isinstance(value, int) else value


def parse(text: str, kind: Any, name: str) -> Any:
    """Return a value of a field from text.

    "none" and "auto" stand for None, or, with a dict, "none" for an empty one. A dict is written
    as pairs, such as "8:64,16:32".

    Raises:
        ConfigError: if the text is no value of the type.
    """
    text = text.strip()
    for option in _options(kind):
        if typing.get_origin(option) is dict and text.lower() != "auto":
            pairs = [pair.partition(":") for pair in text.split(",") if text.lower() != "none"]
            inner = typing.get_args(option)[1]
            if all(colon for _, colon, _ in pairs):
                return {key.strip(): parse(item, inner, name) for key, _, item in pairs}
        if option is types.NoneType and text.lower() in ("none", "auto"):
            return None
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if typing.get_origin(option) is Literal and text in typing.get_args(option):
            return text
        if option is str and not (types.NoneType in _options(kind) and text.lower() == "none"):
            return text
        if option in (int, float):
            try:
                return checked(option(text), option, name)
            except ValueError:
                continue
    raise ConfigError(f"{name} must be {describe(kind)}, got {text!r}")


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return JSON data without levels: {"optim.beta2": 0.99}."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def section_of(kind: Any) -> Any:
    """Return the dataclass that a field's type is or may be, or None for a plain value."""
    return next((option for option in _options(kind) if dataclasses.is_dataclass(option)), None)


def leaves(kind: Any, types_of: TypesOf, prefix: str = "") -> dict[str, Any]:
    """Return the types of all plain values in a dataclass, by dotted name."""
    found = {}
    for name, inner in types_of(kind).items():
        section = section_of(inner)
        if section is None:
            found[prefix + name] = inner
        else:
            found |= leaves(section, types_of, f"{prefix}{name}.")
    return found


def unknown(name: str, known: Iterable[str], *, what: str) -> ConfigError:
    """Return the error for a name that does not exist, with the most similar ones that do."""
    similar = difflib.get_close_matches(name, list(known), n=3, cutoff=0)
    return ConfigError(f"{what} {name!r} does not exist; the most similar are {', '.join(similar)}")


def describe(kind: Any) -> str:
    """Return what a value of a type is, for error messages."""
    if dataclasses.is_dataclass(kind):
        return "its fields, one by one"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is dict:
        return "pairs such as 8:64,16:32"
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    return names.get(kind, "none" if kind is types.NoneType else str(kind))


def _options(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _items(section: Any, value: Any, types_of: TypesOf, path: str) -> dict[str, Any]:
    known = types_of(section)
    where = path.rstrip(".") or "config"
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must have the fields {', '.join(known)}, got {value!r}")
    for key in value.keys() - known.keys():
        raise unknown(f"{path}{key}", [path + name for name in known], what="option")
    for entry in dataclasses.fields(section):
        has_default = not (
            entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        )
        if not has_default and entry.name not in value:
            raise ConfigError(f"{where} has no field {entry.name}")
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
