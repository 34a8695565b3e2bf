"""The parser of command lines: its options, its help, and one line for each error of usage."""

import argparse
import re
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from stylegan import distributed
from stylegan.errors import ConfigError, did_you_mean
from stylegan.training import fields

MAX_WIDTH = 100
"""Columns of the help on a wide terminal."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a command line, or a positional argument.

    Attributes:
        name: key of its value.
        flags: its names, with dashes; empty for a positional argument.
        kind: type of a value: str, Path, or what `training.fields.parse` takes. bool makes a
            switch such as `--grid`, and `--no-grid`.
        many: "list" takes values separated by commas, "repeat" one value each time the option is
            given, "words" all positional arguments. None: one value.
        default: the value if the option is not given.
        is_required: whether it must be given.
        is_optional: leave it out of the result if it is not given.
        metavar: placeholder of a value in the help. None: that of the type.
        help: what the option does, without its default.
        default_text: the default in the help; empty for none.
        group: title above the option in the help.
    """

    name: str
    flags: Sequence[str] = ()
    kind: Any = str
    many: Literal["list", "repeat", "words"] | None = None
    default: Any = None
    is_required: bool = False
    is_optional: bool = False
    metavar: str | None = None
    help: str = ""
    default_text: str = ""
    group: str = "options"

    @property
    def negations(self) -> list[str]:
        """The flags that switch it off: `--no-data.mirror`; in version 0.1 `--data.no-mirror`."""
        if self.kind is not bool:
            return []
        names = [flag.removeprefix("--") for flag in self.flags]
        nested = [name.rpartition(".") for name in names if "." in name]
        old = [f"--{section}.no-{key}" for section, _, key in nested]
        return [*(f"--no-{name}" for name in names), *old]

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that are allowed, if there are few of them."""
        for kind in (self.kind, *typing.get_args(self.kind)):
            if typing.get_origin(kind) is Literal:
                return typing.get_args(kind)
        return ()

    @property
    def placeholder(self) -> str:
        """What stands for a value in the help, such as FLOAT."""
        if self.metavar is not None:
            return self.metavar
        if self.choices:
            return "{" + ",".join(self.choices) + "}"
        kinds = (self.kind, *typing.get_args(self.kind))
        name = next(kind.__name__ for kind in kinds if kind in (int, float, str, Path))
        return f"{name.upper()},..." if self.many == "list" else name.upper()


class Parser(argparse.ArgumentParser):
    """Parses the arguments of one command.

    Args:
        prog: the name of the command in messages, such as "stylegan convert".
        description: what `--help` prints above the options.
        options: of the command.
    """

    def __init__(self, prog: str, description: str, options: Sequence[Option]) -> None:
        positional = [option.placeholder for option in options if not option.flags]
        super().__init__(
            prog=prog,
            usage=" ".join([prog, *positional, "[OPTIONS]"]),
            description=wrapped(description),
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.color = False  # Python 3.14 colors the help by default
        self.options = options
        self._flags: dict[str, Option | None] = {"-h": None, "--help": None}
        groups = dict.fromkeys(option.group for option in options)
        for title in groups:
            group = self.add_argument_group(title)
            if title == "options":
                group.add_argument("-h", "--help", action="help", help="show this help and exit")
            for option in options:
                if option.group == title:
                    _add(option, group)
        for option in options:
            self._flags |= dict.fromkeys((*option.flags, *option.negations), option)

    def values(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the value of each option by name.

        Raises:
            SystemExit: with 2 for wrong usage, with 0 after `--help`.
        """
        parsed = vars(self.parse_args(self._joined(arguments)))
        given = {name: value for name, value in parsed.items() if value is not None and value != []}
        missing = [
            " ".join([*option.flags[:1], option.placeholder])
            for option in self.options
            if option.is_required and option.name not in given
        ]
        if len(missing) > 1:
            self.error(f"{', '.join(missing[:-1])} and {missing[-1]} are missing")
        if missing:
            self.error(f"{missing[0]} is missing")
        values = {}
        for option in self.options:
            if option.name in given:
                value = given[option.name]
                values[option.name] = tuple(value) if isinstance(value, list) else value
            elif not option.is_optional:
                values[option.name] = option.default
        return values

    def error(self, message: str) -> NoReturn:
        """Report wrong usage in one line and exit with 2."""
        for pattern, replacement in _WORDING:
            message = re.sub(pattern, replacement, message)
        if not message.endswith("?"):
            message += f"; see `{self.prog} --help`"
        if distributed.reports_to_user():
            sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(2)

    def _joined(self, arguments: Sequence[str]) -> list[str]:
        """Return options with their values as one word each, "--psi=-0.5", then positional words.

        argparse takes no value that begins with a minus sign otherwise. Lists may be given as
        several words, the form of version 0.1: `--psis 0 0.5 1`. Underscores count as dashes.

        Raises:
            SystemExit: with 2 for an option that does not exist.
        """
        result: list[str] = []
        positional: list[str] = []
        open_option: Option | None = None  # takes the next word
        for index, word in enumerate(arguments):
            if word == "--":
                positional += arguments[index + 1 :]
                break
            if re.match(r"-[^.\d]", word):
                name, equals, value = word.partition("=")
                flag = name if name in self._flags else name.replace("_", "-")
                if flag not in self._flags:
                    self.error(f"there is no option {name!r}{did_you_mean(flag, self._flags)}")
                result.append(flag + equals + value)
                option = self._flags[flag]
                open_option = None
                if option is not None and (option.many == "list" or not equals):
                    open_option = option if option.kind is not bool else None
            elif open_option is None:
                positional.append(word)
            else:
                result[-1] += ("," if "=" in result[-1] else "=") + word
                if open_option.many != "list":
                    open_option = None
        return [*result, "--", *positional] if positional else result


_WORDING = (
    (r"^argument (\S+): expected one argument$", r"\1 needs a value"),
    (r"^argument (\S+): must ", r"\1 must "),
    (r"^argument (\S+): ignored explicit argument (.*)$", r"\1 takes no value, got \2"),
    (r"^unrecognized arguments: (.*)$", r"these words belong to no option: \1"),
)
"""Messages of argparse, and what they are replaced by."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=20, width=_width())

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Show the value once, after all names, as Python 3.13 does."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def _width() -> int:
    return min(shutil.get_terminal_size().columns, MAX_WIDTH)


def wrapped(text: str) -> str:
    """Wrap paragraphs and rows of tables to the terminal, but no command lines."""
    return "\n".join(map(_wrapped_line, text.split("\n")))


def _wrapped_line(line: str) -> str:
    if line.lstrip().startswith(("Example: ", "stylegan ", "torchrun ")):
        return line
    row = re.match(r" +\S+ {2,}(?=\S)", line)  # the first column
    indent = " " * row.end() if row else ""
    return textwrap.fill(line, _width(), subsequent_indent=indent, break_on_hyphens=False)


def _add(option: Option, group: Any) -> None:
    note = "required" if option.is_required else option.default_text
    text = " ".join([option.help, *([f"({note})"] if note else [])])
    settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if option.kind is bool:
        settings["action"] = "store_true"
        off = {"action": "store_false", "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        group.add_argument(*option.negations, dest=option.name, **off)
    else:
        settings |= {"metavar": option.placeholder, "type": _converter(option)}
        if option.many == "repeat":
            settings["action"] = "append"
    if option.flags:
        group.add_argument(*option.flags, dest=option.name, **settings)
    else:
        settings |= {"nargs": "*" if option.many == "words" else "?", "default": None}
        group.add_argument(option.name, **settings)


def _converter(option: Option) -> Callable[[str], Any]:
    """Return what makes the value of an option from one word."""

    def convert(text: str) -> Any:
        if option.kind in (str, Path):
            return option.kind(text)
        try:
            return fields.parse(text, option.kind, option.name)
        except ConfigError as error:
            hint = did_you_mean(text, option.choices)
            raise argparse.ArgumentTypeError(
                f"must be {fields.describe(option.kind)}, got {text!r}{hint}"
            ) from error

    if option.many == "list":
        return lambda text: tuple(convert(part) for part in text.split(","))
    return convert
