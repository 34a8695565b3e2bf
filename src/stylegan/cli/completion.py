"""`stylegan completion`: the script that completes commands, options and values in a shell."""

import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence

from stylegan.cli import main as program
from stylegan.cli import train
from stylegan.cli.command import Command, parser_of, unknown_command
from stylegan.cli.parser import Option
from stylegan.training.presets import PRESETS, find_preset

USAGE = """usage: stylegan completion bash|zsh|fish

Print the script with which a shell completes commands, options and values.

Example: stylegan completion bash > ~/.local/share/bash-completion/completions/stylegan
  stylegan completion zsh >> ~/.zshrc
  stylegan completion fish > ~/.config/fish/completions/stylegan.fish
"""


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan completion`."""
    scripts = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
    if list(arguments) in (["-h"], ["--help"], ["help"]):
        sys.stdout.write(USAGE)
        return 0
    if len(arguments) == 1 and arguments[0] in scripts:
        sys.stdout.write(scripts[arguments[0]]())
        return 0
    shell = " ".join(arguments)
    sys.stderr.write(unknown_command("stylegan completion", shell, scripts) if arguments else USAGE)
    return 2


def bash_script() -> str:
    """Return a script for bash; where it has no words, bash completes names of files."""
    commands = list(_commands())
    groups = {words[0] for words, _ in commands if len(words) == 2}
    first = sorted({words[0] for words, _ in commands} | {"help", "version"})
    lines = [
        "_stylegan() {",
        '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"',
        '    local command="${COMP_WORDS[1]}" words=""',
        '    case "$command" in',
        f'        {"|".join(sorted(groups))}) command="$command ${{COMP_WORDS[2]}}" ;;',
        "    esac",
        '    case "$COMP_CWORD $command $previous" in',
        f'        "1 "*|"2 help "*) words="{" ".join(first)}" ;;',
        '        "2 completion "*) words="bash zsh fish" ;;',
    ]
    for group in sorted(groups):
        names = " ".join(words[1] for words, _ in commands if words[0] == group)
        lines.append(f'        "2 {group} "*) words="{names}" ;;')
    for words, options in commands:
        for option in options:
            if choices := _choices(option):
                patterns = "|".join(f'*" {" ".join(words)} {flag}"' for flag in option.flags)
                lines.append(f'        {patterns}) words="{" ".join(choices)}" ;;')
    lines += ['        *) case "$current/$command" in']
    for words, options in commands:
        flags = " ".join(["--help", *(flag for option in options for flag in option.flags)])
        lines.append(f'            -*/"{" ".join(words)}") words="{flags}" ;;')
    lines += [
        "        esac ;;",
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        "complete -o bashdefault -o default -F _stylegan stylegan",
    ]
    return "\n".join(lines) + "\n"


def zsh_script() -> str:
    """Return a script for zsh, which runs that of bash."""
    start = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
    return start + bash_script()


def fish_script() -> str:
    """Return a script for fish."""
    about = {name: text for name, (_, text) in program.COMMANDS.items()}
    about |= {"help": "print the help of a command", "version": "print the version"}
    lines = [
        f"complete -c stylegan -n __fish_use_subcommand -f -a {name} -d {shlex.quote(text)}"
        for name, text in about.items()
    ]
    commands = list(_commands())
    for words, _ in commands:
        if len(words) == 2:
            names = " ".join(other[1] for other, _ in commands if other[0] == words[0])
            condition = (
                f"__fish_seen_subcommand_from {words[0]}; "
                f"and not __fish_seen_subcommand_from {names}"
            )
            lines.append(f"complete -c stylegan -n '{condition}' -f -a {words[1]}")
    for words, options in commands:
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
        for option in options:
            names = " ".join(f"-l {flag.removeprefix('--')}" for flag in option.flags)
            value = "" if option.kind is bool else " -r"
            if choices := _choices(option):
                value = f" -x -a '{' '.join(choices)}'"
            text = shlex.quote(option.help.partition(". ")[0].strip("."))
            if option.flags:
                lines.append(f"complete -c stylegan -n '{condition}' {names}{value} -d {text}")
    return "\n".join(lines) + "\n"


def _commands() -> Iterator[tuple[tuple[str, ...], list[Option]]]:
    """Yield the words of each command, such as ("data", "check"), with its options."""
    for name, (module_name, _) in program.COMMANDS.items():
        module = importlib.import_module(module_name)
        for part, command in getattr(module, "COMMANDS", {}).items():
            yield (name, part), _options(command)
        if module is train:
            yield (name,), list(train.parser(find_preset("stylegan2-f").start).options)
        elif not hasattr(module, "COMMANDS"):
            members = [member for member in vars(module).values() if isinstance(member, Command)]
            options = [option for member in members for option in _options(member)]
            unique = {option.flags: option for option in options}
            yield (name,), list(unique.values())


def _options(command: Command) -> list[Option]:
    return list(parser_of(command, prog="stylegan").options)


def _choices(option: Option) -> Sequence[str]:
    return list(PRESETS) if option.name == "preset" else option.choices
