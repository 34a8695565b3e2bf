"""`stylegan train`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from rich.console import Console

from stylegan import distributed
from stylegan.cli.command import Command, console, parser_of
from stylegan.cli.launch import check_gpus, launch, stop_with_launcher
from stylegan.cli.live import LiveLine
from stylegan.cli.parser import Option, Parser
from stylegan.cli.run_options import run_options, take_options
from stylegan.devices import resolve_device
from stylegan.progress import ProgressBar
from stylegan.training.config import RunConfig
from stylegan.training.presets import find_preset
from stylegan.workflows.recipe import Recipe, load_recipe
from stylegan.workflows.train import TrainPlan, TrainResult, run_to_continue, train

_GPUS = "Ranks on this machine, one per GPU, as torchrun starts them; also on CPUs."


def present(result: TrainResult, console: Console) -> int:
    """Print how the run ended, and return the exit status."""
    outcome = result.outcome
    if outcome is None:
        return 0
    console.print(str(result), markup=False)
    return 0 if outcome.signal is None else 128 + outcome.signal


COMMAND = Command(
    function=train,
    present=present,
    aliases={"metrics_fraction": ("--metrics-share",)},
    metavars={
        "data": "DATA",
        "out": "RUN",
        "preset": "NAME",
        "recipe": "FILE.toml",
        "resolution": "R",
        "metrics": "NAME,NAME",
        "weights_dir": "DIR",
    },
    required=("preset", "data", "out"),
    example="stylegan train --preset stylegan2-small --data photos/ --out runs/photos\n"
    "\nA run is continued by its folder alone, with other options where they may change:\n"
    "  stylegan train --out runs/photos --kimg 2000",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan train` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    call, options, gpus = understand(arguments)
    if gpus is not None and not distributed.is_launched():
        check_gpus(gpus, resolve_device(options.get("runtime.device") or "auto"))
        if gpus > 1:
            return launch(["train", *arguments], num=gpus)
    stop_with_launcher()
    with distributed.process_group():
        return run(call, options)


def run(call: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Train, show where the run is, and return the exit status."""
    out = console()
    with LiveLine(out) as line, ExitStack() as reading:
        bar = ProgressBar(transient=True, disable=not distributed.reports_to_user())
        reading.enter_context(bar)

        def on_plan(plan: TrainPlan) -> None:
            reading.close()
            if call["dry_run"]:
                out.print_json(json.dumps(plan.config.to_json()))
            out.print(str(plan), markup=False)

        result = train(**call, on_plan=on_plan, observe=line.update, progress=bar, **options)
    return present(result, out)


def parser(start: RunConfig, *, required: Sequence[str] = COMMAND.required) -> Parser:
    """Return the parser of `stylegan train`.

    Args:
        start: options of the preset, the recipe or the run, which the help shows as defaults.
        required: options that must be given.
    """
    gpus = Option(name="gpus", flags=["--gpus"], kind=int, metavar="N", help=_GPUS)
    command = replace(COMMAND, required=required)
    return parser_of(command, prog="stylegan train", more=[gpus, *run_options(start)])


def understand(
    arguments: Sequence[str],
) -> tuple[dict[str, Any], dict[str, Any], int | None]:
    """Return the call of `train`, the options of the run and the number of ranks.

    The options depend on the model family, so preset, recipe and run are read first.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--recipe", "--preset", "--out"):
        first.add_argument(flag, nargs="?")
    known, _ = first.parse_known_args(list(arguments))
    recipe = Recipe() if known.recipe is None else load_recipe(known.recipe, preset=known.preset)
    preset, out = (getattr(known, name) or recipe.arguments.get(name) for name in ("preset", "out"))
    run = run_to_continue(preset, out)
    start = find_preset(preset or "stylegan2-f").start if run is None else run.config
    start = start.with_options(recipe.options)
    is_known = {
        "preset": preset is not None or run is not None,
        "data": start.data.path != "",
        "out": out is not None,
    }
    required = [name for name in COMMAND.required if not is_known[name]]
    values = parser(start, required=required).values(arguments)
    options = take_options(values, run_options(start))
    num_ranks = values.pop("gpus") or recipe.arguments.get("gpus")
    return values, options, num_ranks
