"""The command line that is made from a function's signature and docstring."""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

import stylegan
from stylegan.cli.command import Command, command_line_type, console, parser_of, run, run_group
from stylegan.cli.main import COMMANDS
from stylegan.progress import Progress


def draw(
    network: str | torch.nn.Module,
    out: Path | None = None,
    *,
    num: int = 4,
    names: Sequence[str] = (),
    scales: Sequence[float] = (1.0, -0.5),
    kind: Literal["small", "large"] = "small",
    width: int | None = None,
    filled: bool = True,
    title: str = "",
    model: torch.nn.Module | None = None,
    progress: Progress | None = None,
) -> tuple[object, ...]:
    """Draw things.

    Long text about it.

    Args:
        network: which network to load, as a source
            of any kind.
        out: where to write.
        num: how many things.
        names: one name for each.
        scales: how large.
        kind: of things.
        width: in 100 % of a line.
        filled: with color.
        title: above them.
        model: not on the command line.
        progress: called after each thing.

    Raises:
        ValueError: never.
    """
    assert progress is not None
    progress("things", num, num)
    return network, out, num, tuple(names), model


def command(present=lambda result, console: None):
    return Command(
        function=draw,
        present=present,
        positional=("out",),
        aliases={"num": ("--count",)},
        metavars={"network": "NET"},
        example="stylegan draw --network a.pkl",
    )


def test_a_function_is_called_with_the_options_of_the_line():
    results = []
    line = ["out", "--network", "a.pkl", "--count", "2", "--names", "x", "y"]
    assert run(command(lambda result, _: results.append(result)), line, prog="stylegan draw") == 0
    assert results == [("a.pkl", Path("out"), 2, ("x", "y"), None)]


def test_defaults_are_those_of_the_function():
    results = []
    run(command(lambda result, _: results.append(result)), ["--network", "a"], prog="draw")
    assert results == [("a", None, 4, (), None)]


def test_keyword_arguments_of_present_are_options_of_the_display():
    shown = []

    def present(result, console, *, json: bool = False) -> None:
        """Print it.

        Args:
            json: as JSON.
        """
        shown.append((result[2], json))

    run(command(present), ["--network", "a", "--json", "--num", "3"], prog="draw")
    run(command(present), ["--network", "a"], prog="draw")
    assert shown == [(3, True), (4, False)]


def test_a_repeatable_option_takes_one_value_each_time():
    results = []
    line = ["--network", "a", "--names", "x", "--names", "y", "out"]
    repeatable = dataclasses.replace(
        command(lambda result, _: results.append(result)), repeatable=("names",)
    )
    run(repeatable, line, prog="draw")
    assert results == [("a", Path("out"), 4, ("x", "y"), None)]


def test_results_are_printed_as_they_come(capsys):
    def count(num: int = 2, *, on_result: Callable[[int], None] | None = None) -> int:
        """Count.

        Args:
            num: how far.
            on_result: called with each number.
        """
        assert on_result is not None
        for number in range(num):
            on_result(number)
        return num

    counting = Command(
        function=count,
        present=lambda result, out: out.print(f"up to {result}"),
        on_result=lambda result, out: out.print(f"number {result}"),
        example="stylegan count",
    )
    assert run(counting, [], prog="stylegan count") == 0
    assert capsys.readouterr().out == "number 0\nnumber 1\nup to 2\n"


def test_ranks_above_0_print_nothing(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run(command(lambda result, out: out.print("done")), ["--network", "a"], prog="draw")
    assert capsys.readouterr() == ("", "")


def test_the_command_line_demands_what_python_may_leave_out(capsys):
    results = []
    original = command(lambda result, _: results.append(result))
    demanding = replace(original, positional=(), required=("out",))
    with pytest.raises(SystemExit) as stop:
        run(demanding, ["--network", "a"], prog="draw")
    assert stop.value.code == 2
    run(demanding, ["--network", "a", "--out", "None"], prog="draw")
    assert results == [("a", Path("None"), 4, (), None)]  # a name like any other


def test_what_present_returns_is_the_exit_status():
    assert run(command(lambda *_: 1), ["--network", "a"], prog="draw") == 1


def test_the_help_is_the_docstring(capsys):
    with pytest.raises(SystemExit) as stop:
        run(command(), ["--help"], prog="stylegan draw")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", "").split())
    for part in ("Draw things.", "Long text about it.", "Example: stylegan draw --network a.pkl"):
        assert part in text
    assert "--network NET which network to load, as a source of any kind. (required)" in text
    assert "--count, --num INT how many things. (default: 4)" in text
    assert "--scales FLOAT,... how large. (default: 1,-0.5)" in text
    assert "--width INT in 100 % of a line." in text
    assert "--filled with color. (default: on; --no-filled switches it off)" in text
    assert "Raises" not in text
    assert "progress" not in text
    assert "model" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_into_80_columns_except_for_command_lines(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    module = importlib.import_module(COMMANDS[name][0])
    for words in ([], *([part] for part in getattr(module, "COMMANDS", {}))):
        with contextlib.suppress(SystemExit):
            module.main([*words, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    to_paste = ("Example: ", "stylegan ", "torchrun ")
    long = [line for line in lines if len(line) > 80 and not line.strip().startswith(to_paste)]
    assert long == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--netwrk a", "there is no option '--netwrk'; did you mean --network?"),
        ("--network a --wrong 1", "there is no option '--wrong'; see `draw --help`"),
        ("out", "--network NET is missing; see `draw --help`"),
        ("--num", "--count/--num needs a value; see `draw --help`"),
        ("--network --num 3", "--network needs a value; see `draw --help`"),
        ("--num 1.5", "--count/--num must be a whole number, got '1.5'; see `draw --help`"),
        ("--kind lage", "--kind must be one of small, large, got 'lage'; did you mean large?"),
        ("--width x", "--width must be a whole number or none, got 'x'; see `draw --help`"),
        ("--scales 1,a", "--scales must be a finite number, got 'a'; see `draw --help`"),
        ("--network a b c d", "these words belong to no option: c d; see `draw --help`"),
        ("--filled=1", "--filled takes no value, got '1'; see `draw --help`"),
    ],
)
def test_wrong_usage_is_one_line_and_status_two(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command(), words.split(), prog="draw")
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"draw: {message}\n")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--scales -1,0.5", "scales", (-1.0, 0.5)),
        ("--scales=-1,.5", "scales", (-1.0, 0.5)),
        ("--scales -1 .5 --num 3", "scales", (-1.0, 0.5)),
        ("--names a,b", "names", ("a", "b")),
        ("--num -3", "num", -3),
        ("--filled", "filled", True),
        ("--no-filled", "filled", False),
        ("--", "filled", True),
        ("-- -x.png", "out", Path("-x.png")),
        ("--width none", "width", None),
        ("--kind=large", "kind", "large"),
    ],
)
def test_values_and_lists_are_read(words, name, value):
    values = parser_of(command(), prog="draw").values(["--network", "a", *words.split()])
    assert values[name] == value


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str | torch.Tensor, str),
        (torch.Tensor | str | None, str | None),
        (str | Sequence[int], str),
        (Sequence[str], Sequence[str]),
        (tuple[Path, ...], tuple[Path, ...]),
        (Sequence[str | torch.Tensor] | torch.Tensor, Sequence[str]),
        (Sequence[torch.Tensor], None),
        (torch.Tensor | None, None),
        (Progress | None, None),
    ],
)
def test_the_first_type_that_text_can_give_is_taken(hint, expected):
    assert command_line_type(hint) == expected


def test_the_console_writes_to_standard_output_without_wrapping(capsys):
    console().print("a" * 300)
    assert capsys.readouterr().out == "a" * 300 + "\n"


def test_a_group_lists_its_commands(capsys):
    commands = {"draw": command()}
    assert run_group(commands, ["--help"], prog="stylegan group") == 0
    assert "  draw  Draw things\n" in capsys.readouterr().out
    assert run_group(commands, ["wrong"], prog="stylegan group") == 2
    assert "stylegan group: there is no command 'wrong'" in capsys.readouterr().err
    assert run_group(commands, ["draw", "--network", "a"], prog="stylegan group") == 0


def all_commands():
    """Yield the words of each command, and the command."""
    for name, (module_name, _) in COMMANDS.items():
        module = importlib.import_module(module_name)
        if hasattr(module, "COMMAND"):
            yield name, module.COMMAND
        for part, member in getattr(module, "COMMANDS", {}).items():
            yield f"{name} {part}", member


@pytest.mark.parametrize(
    ("words", "member"), [pytest.param(*pair, id=pair[0]) for pair in all_commands()]
)
def test_each_command_has_its_function_in_the_public_api(words, member):
    home = stylegan
    for word in words.removeprefix("data ").replace("-", "_").split():
        home = getattr(home, word)
    assert home is member.function


@pytest.mark.parametrize(
    ("words", "member"), [pytest.param(*pair, id=pair[0]) for pair in all_commands()]
)
def test_each_command_explains_every_option_and_gives_an_example(words, member, capsys):
    with pytest.raises(SystemExit) as stop:
        run(member, ["--help"], prog=f"stylegan {words}")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"Example: stylegan {words} " in text
    lines = " ".join(text.replace("│", "").split())
    for name in member.options():
        documented = (member.function.__doc__ or "").partition("Args:")[2]
        assert f" {name}: " in documented, f"{name} has no help"
        if name not in member.positional:
            assert f"--{name.replace('_', '-')}" in lines


@pytest.mark.parametrize(
    ("words", "member"), [pytest.param(*pair, id=pair[0]) for pair in all_commands()]
)
def test_names_that_a_command_gives_to_options_are_theirs(words, member):
    named = {*member.positional, *member.aliases, *member.metavars}
    assert named <= member.options().keys()


def test_optional_values_have_a_plain_placeholder_and_no_default(capsys):
    with pytest.raises(SystemExit):
        run(command(), ["--help"], prog="stylegan draw")
    text = capsys.readouterr().out
    assert "\n  OUT               where to write.\n" in text
    assert "None" not in text
    assert "default: )" not in text
