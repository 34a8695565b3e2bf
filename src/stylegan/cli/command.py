"""A command line made from the signature and docstring of a public function."""

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import docstring_parser
from rich.console import Console

from stylegan import distributed
from stylegan.cli.parser import Option, Parser, wrapped
from stylegan.errors import did_you_mean
from stylegan.image_size import Resolution
from stylegan.progress import ProgressBar

_PLAIN = (str, int, float, bool, Path)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A public function as a command.

    The function's arguments are the options, with the same names and defaults; its docstring is the
    help. An argument whose type no text can give, such as a progress callback, is left out; of a
    union, such as `str | AbstractGenerator`, the command line takes the first type.

    Attributes:
        function: of the library; it prints nothing.
        present: prints what the function returned; may return an exit status other than 0. Its
            keyword-only arguments, such as `json`, are options of the command line as well.
        example: a command line for the end of the help.
        positional: arguments without a name on the command line.
        repeatable: options of several values that take one each time they are given.
        aliases: other names of options, with their dashes.
        metavars: placeholders of values in the help, such as "DIR", where the type says too little.
        on_result: prints one of many results as soon as the function has it; passed to the function
            as its argument of this name.
        transient: remove the progress bars at the end.
        required: options that the command line demands although the function has a default, such
            as the output file, without which the function only returns its result.
    """

    function: Callable[..., Any]
    present: Callable[..., int | None]
    example: str
    positional: Sequence[str] = ()
    repeatable: Sequence[str] = ()
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    metavars: Mapping[str, str] = field(default_factory=dict)
    on_result: Callable[[Any, Console], object] | None = None
    transient: bool = True
    required: Sequence[str] = ()

    def options(self) -> dict[str, inspect.Parameter]:
        """Return the function's arguments that are options, with their command-line types."""
        return _options(self.function)

    def display_options(self) -> dict[str, inspect.Parameter]:
        """Return the options that change only what is printed."""
        return {
            name: parameter
            for name, parameter in _options(self.present).items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }


def run(command: Command, arguments: Sequence[str], *, prog: str) -> int:
    """Parse arguments, call the command's function, print its result, return the exit status.

    Args:
        command: what to run.
        arguments: of the command line, without the command's name.
        prog: the name of the command in messages, such as "stylegan convert".

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    values = parser_of(command, prog=prog).values(arguments)
    display = {name: values.pop(name) for name in command.display_options()}
    has_progress = "progress" in inspect.signature(command.function).parameters
    with ProgressBar(
        transient=command.transient, disable=not distributed.reports_to_user()
    ) as progress:
        if has_progress:
            values["progress"] = progress
        if (on_result := command.on_result) is not None:
            values["on_result"] = lambda result: on_result(result, console())
        result = command.function(**values)
    return command.present(result, console(), **display) or 0


def run_group(commands: Mapping[str, Command], arguments: Sequence[str], *, prog: str) -> int:
    """Run the command that the first argument names, as `run` does.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    name, *rest = arguments or [""]
    if name in commands:
        return run(commands[name], rest, prog=f"{prog} {name}")
    width = max(map(len, commands))
    rows = [wrapped(f"  {name:{width}}  {summary(commands[name])}") + "\n" for name in commands]
    usage = f"usage: {prog} COMMAND ...\n\n`{prog} COMMAND --help` explains a command:\n\n"
    if name in ("help", "-h", "--help"):
        example = next(iter(commands.values())).example
        sys.stdout.write(f"{usage}{''.join(rows)}\nExample: {example}\n")
        return 0
    sys.stderr.write(unknown_command(prog, name, commands) if name else usage + "".join(rows))
    return 2


def unknown_command(prog: str, name: str, commands: Iterable[str]) -> str:
    """Return the error message for an unknown command, with the most similar one."""
    hint = did_you_mean(name, commands) or f"; see `{prog} --help`"
    return f"{prog}: there is no command {name!r}{hint}\n"


def present_text(result: object, console: Console) -> None:
    """Print a result whose `str` is a report."""
    console.print(str(result), markup=False)


def console() -> Console:
    """Return the console for results: standard output as it is now; quiet on ranks above 0."""
    return Console(highlight=False, soft_wrap=True, quiet=not distributed.reports_to_user())


def summary(command: Command) -> str:
    """Return the first sentence of the command's help, without the full stop."""
    return (docstring_parser.parse(command.function.__doc__ or "").short_description or "").strip(
        "."
    )


def parser_of(command: Command, *, prog: str, more: Sequence[Option] = ()) -> Parser:
    """Return the parser of a command line.

    Args:
        command: whose options to parse.
        prog: the name of the command in messages.
        more: options beside those of the function's signature.
    """
    text = docstring_parser.parse(command.function.__doc__ or "")
    display_text = docstring_parser.parse(command.present.__doc__ or "")
    help_of = {
        entry.arg_name: " ".join((entry.description or "").split())
        for entry in (*display_text.params, *text.params)
    }
    options = [
        _option(command, name, parameter, help_of.get(name, ""))
        for name, parameter in (command.options() | command.display_options()).items()
    ]
    description = re.sub(r"(?<=\S)\n(?=\S)", " ", text.long_description or "")
    parts = [text.short_description, description, f"Example: {command.example}"]
    return Parser(prog, "\n\n".join(part for part in parts if part), [*options, *more])


def _option(command: Command, name: str, parameter: inspect.Parameter, text: str) -> Option:
    kind, default = parameter.annotation, parameter.default
    many: Literal["list", "repeat", "words"] | None = None
    if typing.get_origin(kind) in (tuple, list, Sequence):
        kind, many = typing.get_args(kind)[0], "list"
    if typing.get_origin(kind) in (Union, UnionType) and {str, Path} & {*typing.get_args(kind)}:
        parts = [part for part in typing.get_args(kind) if part is not NoneType]
        kind = parts[0] if len(parts) == 1 else Union[tuple(parts)]  # noqa: UP007
    if name in command.repeatable:
        many = "repeat"
    negation = f"; --no-{name.replace('_', '-')} switches it off" if default is True else ""
    is_positional = name in command.positional
    if is_positional and many is not None:
        many = "words"
    is_required = default is inspect.Parameter.empty or name in command.required
    is_unset = default in (None, (), "", inspect.Parameter.empty)
    flag = "--" + name.replace("_", "-")
    return Option(
        name=name,
        flags=() if is_positional else (*command.aliases.get(name, ()), flag),
        kind=kind,
        many=many,
        default=default,
        is_required=is_required,
        metavar=command.metavars.get(name) or (name.upper() if is_positional else None),
        help=text,
        default_text="" if is_unset else f"default: {default_text(default)}{negation}",
        group="arguments" if is_positional else "options",
    )


def default_text(default: Any) -> str:
    """Return the value of an option as its help shows it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple | list):
        return ",".join(map(default_text, default))
    return f"{default:g}" if isinstance(default, float) else f"{default}"


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    types = {name: command_line_type(hints.get(name)) for name in parameters}
    return {
        name: parameter.replace(annotation=types[name])
        for name, parameter in parameters.items()
        if types[name] is not None
    }


def command_line_type(hint: Any) -> Any:
    """Return the type that the command line reads for a function's argument, or None.

    Of a union it is the first type that text can give, beside None; of a resolution both types.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return command_line_type(inner[0])
    if origin in (Union, UnionType):
        if {*inner} - {NoneType} == {*typing.get_args(Resolution)}:
            return hint
        types = [command_line_type(each) for each in inner if each is not NoneType]
        first = next((each for each in types if each is not None), None)
        return first | None if first is not None and NoneType in inner else first
    if origin is Literal or hint in _PLAIN:
        return hint
    if origin in (tuple, list, Sequence):
        items = [each if each is Ellipsis else command_line_type(each) for each in inner]
        return None if None in items else origin[tuple(items)]
    return None
