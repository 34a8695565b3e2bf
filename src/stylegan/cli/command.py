"""A command line made from the signature and docstring of a public function."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import re
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TextIO, Union

import docstring_parser
import tyro
from rich.console import Console

from stylegan import distributed
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
    values = parse(command, arguments, prog=prog)
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
    rows = [f"  {name:{width}}  {summary(commands[name])}\n" for name in commands]
    usage = f"usage: {prog} COMMAND ...   (`{prog} COMMAND --help` explains one)\n\n"
    if name in ("help", "-h", "--help"):
        example = next(iter(commands.values())).example
        sys.stdout.write(f"{usage}{''.join(rows)}\nExample: {example}\n")
        return 0
    sys.stderr.write(unknown_command(prog, name, commands) if name else usage + "".join(rows))
    return 2


def unknown_command(prog: str, name: str, commands: Iterable[str]) -> str:
    """Return the error message for an unknown command, with the most similar one."""
    close = difflib.get_close_matches(name, commands, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; see `{prog} --help`"
    return f"{prog}: no command {name!r}{hint}\n"


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


def parse(
    command: Command,
    arguments: Sequence[str],
    *,
    prog: str,
    more: Sequence[tuple[str, Any, Any]] = (),
) -> dict[str, Any]:
    """Return the function's and the display's options from a command line.

    Args:
        command: whose options to parse.
        arguments: of the command line, without the command's name.
        prog: the name of the command in messages.
        more: options beside those of the function's signature: name, type and dataclass field.

    Raises:
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    text = docstring_parser.parse(command.function.__doc__ or "")
    display_text = docstring_parser.parse(command.present.__doc__ or "")
    help_of = {param.arg_name: param.description or "" for param in text.params}
    help_of |= {param.arg_name: param.description or "" for param in display_text.params}
    options = command.options() | command.display_options()
    annotated: Any = Annotated
    fields: list[tuple[str, Any, Any]] = []
    for name, parameter in options.items():
        is_unset = parameter.default is None or parameter.default == ()
        argument = tyro.conf.arg(
            help=" ".join(help_of.get(name, "").split()),
            metavar=command.metavars.get(name) or _optional_metavar(parameter.annotation),
            help_behavior_hint="" if is_unset and name not in command.required else None,
            aliases=tuple(command.aliases.get(name, ())) or None,
        )
        markers: list[Any] = [argument]
        if name in command.positional:
            markers.append(tyro.conf.Positional)
        if name in command.repeatable:
            markers.append(tyro.conf.UseAppendAction)
        default = parameter.default
        is_required = default is inspect.Parameter.empty or name in command.required
        hint = parameter.annotation
        if name in command.required:  # the type without None
            (hint,) = (part for part in typing.get_args(hint) if part is not NoneType)
        fields.append(
            (
                name,
                annotated[(hint, *markers)],
                dataclasses.field() if is_required else dataclasses.field(default=default),
            )
        )
    fields += more
    option_class = dataclasses.make_dataclass("Options", fields, kw_only=True)
    # Join the lines of each paragraph: tyro keeps line breaks before non-letters.
    description = re.sub(r"(?<=\S)\n(?=\S)", " ", text.long_description or "")
    parts = [text.short_description, description, f"Example: {command.example}"]
    help_text = _HelpText(sys.stdout)
    try:
        with contextlib.redirect_stdout(help_text):
            values: Any = tyro.cli(
                option_class,
                prog=prog,
                description="\n\n".join(part for part in parts if part),
                args=list(arguments),
            )
    except SystemExit:
        sys.stdout.write(_wrapped(help_text.getvalue(), shutil.get_terminal_size().columns))
        raise
    return {name: getattr(values, name) for name, *_ in fields}


class _HelpText(io.TextIOWrapper):
    """Captures a help text, formatted for the encoding and the terminal of the real output."""

    def __init__(self, output: TextIO) -> None:
        super().__init__(io.BytesIO(), encoding=output.encoding, errors="backslashreplace")
        self._output = output

    def isatty(self) -> bool:
        return self._output.isatty()

    def getvalue(self) -> str:
        self.seek(0)
        return self.read()


def _wrapped(text: str, width: int) -> str:
    """Wrap the paragraphs of a help text, except tables and command lines.

    tyro wraps only the boxes of options.
    """
    return "\n".join(
        textwrap.fill(line, width, break_on_hyphens=False)
        if line[:1].isalpha() and not line.startswith("Example: ")
        else line
        for line in text.split("\n")
    )


def _optional_metavar(hint: Any) -> str | None:
    """Return the placeholder of an optional value without tyro's `{None}|`; else None."""
    types = [part for part in typing.get_args(hint) if part is not NoneType]
    if NoneType not in typing.get_args(hint) or len(types) > 1:
        return None
    if typing.get_origin(types[0]) is Literal:
        return "{" + ",".join(map(str, typing.get_args(types[0]))) + "}"
    return types[0].__name__.upper() if types[0] in _PLAIN else None


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

    Of a union it is the first type that text can give, beside None.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return command_line_type(inner[0])
    if origin in (Union, UnionType):
        types = [command_line_type(each) for each in inner if each is not NoneType]
        first = next((each for each in types if each is not None), None)
        return first | None if first is not None and NoneType in inner else first
    if origin is Literal or hint in _PLAIN:
        return hint
    if origin in (tuple, list, Sequence):
        items = [each if each is Ellipsis else command_line_type(each) for each in inner]
        return None if None in items else origin[tuple(items)]
    return None
