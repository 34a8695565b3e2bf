"""`stylegan train`: start a run, and with the same line go on with it."""

import argparse
import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.live import Live
from rich.text import Text

from stylegan import distributed
from stylegan.cli import options
from stylegan.cli.initial import Initial, find_initial
from stylegan.cli.launch import check_gpus, launch, stop_with_launcher
from stylegan.data.dataset import ImageDataset
from stylegan.data.shards import ShardSet, is_shards
from stylegan.errors import ConfigError, check_fraction, decided
from stylegan.profiling.estimate import estimate
from stylegan.training.config import (
    SHORT_NAMES,
    Precision,
    RunConfig,
    check_processes,
    split_overrides,
)
from stylegan.training.configure import configure
from stylegan.training.evaluation import Evaluator
from stylegan.training.loop import Outcome, Progress, train
from stylegan.workflows.training_metrics import evaluator_for

_TRAIN = """Train on a folder or zip of images. The same line goes on with the run.

Example:
    stylegan train --preset stylegan2-small --data photos/ --out runs/photos --resolution 64
    stylegan train --recipe recipes/ffhq1024-stylegan2-f.toml --data ffhq.zip --out runs/ffhq
"""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Options of `stylegan train`.

    Attributes:
        recipe: Take the options that are not given from this file of them, in TOML.
        preset: A row of the preset table, such as stylegan2-f, stylegan-f, progan, stylegan2-small.
        data: Folder (searched recursively) or zip of images, or folder or URL of shards.
        out: Folder of the run.
        resolution: Side of the images, in pixels; larger ones are reduced. Default: theirs.
        batch: Images in an iteration. Growing presets scale those of smaller resolutions too.
        batch_gpu: Images that a process computes with at once; the rest of its share follows.
        gpus: Processes on this machine, one a GPU, as torchrun starts them; also on CPUs.
        total_kimg: Length of the run, in thousands of images shown. A shorter one grows faster.
        gamma: Weight of R1. Default: the published rule, which is printed.
        channel_base: A block at resolution r has this divided by r channels.
        channel_max: Most channels of a block.
        mirror: Show each image flipped as well.
        cond: Train on the labels of the set as well.
        on_bad: What to do with images that cannot be used.
        checkpoint_kimg: Distance of two checkpoints. Default: that of the snapshots.
        snapshot_kimg: Distance of two snapshots, each with a sheet of samples.
        init_from: Start from these weights: all that `stylegan convert` reads, or a run.
        metrics: Of snapshots, as of `stylegan evaluate`; auto is a cheap one, none leaves them out.
        metrics_share: How much of the time they may take; the first and the last always have it.
        weights_dir: Where weights of feature networks lie, put there by hand.
        max_minutes: Save and stop, with exit status 0, after so many minutes.
        precision: Of the convolutions. Default: bf16 where the device is fast in it.
        workers: Processes that decode images where they do not fit in memory.
        set: Any field of the configuration, as in loss.pl_weight=0. May be repeated.
        dry_run: Print configuration, sizes and memory, and stop.
        device: Where to compute.
        seed: Of everything random.
    """

    recipe: Path | None = None
    preset: str
    data: str
    out: Path
    resolution: int | None = None
    batch: int | None = None
    batch_gpu: int | None = None
    gpus: int | None = None
    total_kimg: Annotated[float | None, tyro.conf.arg(aliases=("--kimg",))] = None
    gamma: float | None = None
    channel_base: int | None = None
    channel_max: int | None = None
    mirror: bool = False
    cond: bool = False
    on_bad: Literal["skip", "fail"] = "skip"
    checkpoint_kimg: float | None = None
    snapshot_kimg: float | None = None
    init_from: str | None = None
    metrics: str = "auto"
    metrics_share: float = 0.05
    weights_dir: Path | None = None
    max_minutes: float | None = None
    precision: Precision | None = None
    workers: int = 2
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set")] = ()
    dry_run: bool = False
    device: options.Device = "auto"
    seed: options.Seed = 0


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan train` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    arguments = with_recipe(arguments)
    command = tyro.cli(Train, prog="stylegan train", description=_TRAIN, args=arguments)
    minutes = command.max_minutes
    if minutes is not None and not 0 <= minutes < math.inf:
        raise ConfigError(
            f"--max-minutes {minutes:g}", expected="0 or more", fix="leave it out for no limit"
        )
    check_fraction("--metrics-share", command.metrics_share)
    if command.gpus is not None and not distributed.is_launched():
        check_gpus(command.gpus, options.resolve_device(command.device))
    if (command.gpus or 1) > 1 and not distributed.is_launched():
        return launch(["train", *arguments], num=command.gpus or 1)
    stop_with_launcher()
    with distributed.process_group():
        return run(command)


def run(command: Train) -> int:
    """Train as a command line says, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
    """
    is_plan = command.dry_run and command.resolution is not None and not Path(command.data).exists()
    with distributed.keep_others_waiting():
        dataset = None if is_plan else open_dataset(command)
    initial = find_initial(command.init_from, command.out)
    config, reasons = resolve(command, sizes_of(dataset, command), initial)
    check_processes(config, distributed.world_size())
    out = options.console()
    if command.dry_run:
        out.print_json(json.dumps(config.to_json()))
    print_sizes(out, config, reasons)
    if command.dry_run:
        return 0
    with distributed.keep_others_waiting():
        evaluate = make_evaluate(command, config, dataset)
    with LiveLine(out) as line:
        outcome = train(
            config,
            command.out,
            dataset=dataset,
            initial=initial.networks,
            observe=line.update,
            max_minutes=command.max_minutes,
            evaluate=evaluate,
            evaluate_share=command.metrics_share,
        )
    out.print(f"{command.out}: {outcome.nimg / 1000:.1f} kimg, {_ending(outcome)}", markup=False)
    return 0 if outcome.signal is None else 128 + outcome.signal


def make_evaluate(
    command: Train, config: RunConfig, dataset: ImageDataset | ShardSet | None
) -> Evaluator | None:
    """Return what measures the snapshots of a run; None where nothing does.

    What a metric needs is loaded here, so that what lacks is told before anything is trained.

    Raises:
        StyleganError: if a metric does not exist, or lacks weights.
    """
    assert dataset is not None  # only a plan has none, and a plan is not trained
    if isinstance(dataset, ShardSet):
        if command.metrics in ("auto", "none"):
            return None
        raise ConfigError(
            f"--metrics {command.metrics} with a set in shards",
            expected="images that can be looked up, as in a zip",
            fix="leave it out, and measure snapshots by `stylegan evaluate --data`",
        )
    return evaluator_for(
        command.metrics,
        dataset,
        seed=config.seed,
        device=torch.device(decided(config.runtime.device, "runtime.device")),
        mirror=config.data.mirror,
        weights_dir=command.weights_dir,
    )


def with_recipe(arguments: Sequence[str]) -> list[str]:
    """Put the options of the file that `--recipe` names before those of the line, which win.

    A recipe is a TOML file whose keys are options of this command, without the dashes in front:
    `total-kimg = 25000`; true and false stand for an option and its `--no-`; a list repeats it.

    Raises:
        ConfigError: if there is no such file, it is not TOML, or a key is no option.
    """
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--recipe")
    path = before.parse_known_args(list(arguments))[0].recipe
    if path is None:
        return list(arguments)
    try:
        recipe = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"--recipe {path}: {error.strerror}", expected="a file", fix="check the path"
        ) from error
    except ValueError as error:  # no TOML, or no text
        raise ConfigError(
            f"--recipe {path} cannot be read ({' '.join(str(error).split())[:120]})",
            expected="a TOML file of options, such as total-kimg = 25000",
            fix="correct it",
        ) from error
    known = {field.name.replace("_", "-") for field in dataclasses.fields(Train)} - {"recipe"}
    words = []
    for key, value in recipe.items():
        if key not in known or isinstance(value, dict):
            raise ConfigError(
                f"--recipe {path} with {key!r}",
                expected="options of `stylegan train`, without the dashes in front",
                fix="check the spelling",
            )
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        else:
            each = value if isinstance(value, list) else [value]
            words += [word for item in each for word in (f"--{key}", str(item))]
    return [*words, *arguments]


def open_dataset(command: Train) -> ImageDataset | ShardSet:
    """Open the images of a command line, with a progress bar where that takes time."""
    if is_shards(command.data):
        return ShardSet(command.data, resolution=command.resolution, mirror=command.mirror)
    with options.progress(transient=True) as bar:
        task = bar.add_task("reading images", total=None)

        def move(num_done: float, num_all: float | None) -> None:
            bar.update(task, completed=num_done, total=num_all)

        return ImageDataset(
            command.data,
            resolution=command.resolution,
            mirror=command.mirror,
            on_bad=command.on_bad,
            progress=move,
        )


@dataclass(frozen=True, kw_only=True)
class ImageSizes:
    """What the options of a run need to know of its images.

    Attributes:
        resolution: side, in pixels.
        num_channels: 1 for grey images, 3 for RGB.
        label_dim: width of the labels that the run learns, 0 for none.
    """

    resolution: int
    num_channels: int = 3
    label_dim: int = 0


def sizes_of(dataset: ImageDataset | ShardSet | None, command: Train) -> ImageSizes:
    """Return the sizes of a set; without one, those of the RGB images that a plan is made for.

    Raises:
        ConfigError: if the run is to learn labels and there are none.
    """
    if command.cond and (dataset is None or dataset.label_table is None):
        raise ConfigError(
            f"--cond with {command.data}, which has no labels",
            expected="a label of each image in dataset.json",
            fix="make them by `stylegan data prepare --labels-from folders`, or leave it out",
        )
    if dataset is None:
        assert command.resolution is not None
        return ImageSizes(resolution=command.resolution)
    return ImageSizes(
        resolution=dataset.resolution,
        num_channels=dataset.num_channels,
        label_dim=dataset.label_dim if command.cond else 0,
    )


def resolve(
    command: Train, sizes: ImageSizes, initial: Initial
) -> tuple[RunConfig, dict[str, str]]:
    """Turn a command line into the options of a run.

    Sizes that are not given come from the images, the architecture from the initial weights.

    Returns:
        The config, and for each value that a rule chose, its reason.

    Raises:
        ConfigError: if a name is unknown or a value cannot work.
    """
    names = [
        name for name in (*SHORT_NAMES, "batch", "seed", "precision", "init_from") if name != "kimg"
    ]
    chosen = {name: getattr(command, name) for name in names}
    chosen |= {"cond": None, "device": options.resolve_device(command.device).type}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return configure(
        command.preset,
        chosen | split_overrides(command.set),
        resolution=sizes.resolution,
        img_channels=sizes.num_channels,
        label_dim=sizes.label_dim,
        initial=initial.architectures,
        grown_to=initial.grown_to,
    )


def print_sizes(out: Console, config: RunConfig, reasons: Mapping[str, str]) -> None:
    """Print what the run is, what it needs, and why rules chose what they chose."""
    sizes = estimate(config)
    side = config.generator.resolution
    flat = config.to_json()
    of_each = " of each process" if distributed.world_size() > 1 else ""
    lines = [
        f"{config.preset} at {side}x{side}, batch {config.batch}, on {config.runtime.device}: "
        f"G {sizes.generator_parameters:,} and D {sizes.discriminator_parameters:,} parameters",
        f"memory{of_each}: about {sizes.total_bytes / 1e9:.1f} GB "
        f"({sizes.state_bytes / 1e9:.2f} weights and optimizers, "
        f"{sizes.activation_bytes / 1e9:.2f} activations)",
    ]
    for key, reason in reasons.items():
        value: Any = flat
        for part in key.split("."):
            value = value[part]
        is_number = isinstance(value, float | int) and not isinstance(value, bool)
        shown = f"{value:g}" if is_number else value
        lines.append(f"{key} = {shown}: {reason}")
    out.print("\n".join(lines), markup=False)


class LiveLine:
    """Shows where a run is: one live line on a terminal, else a plain line per log record.

    Args:
        out: the console.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = Live(console=out, refresh_per_second=2) if out.is_terminal else None
        self._terms = ""

    def __enter__(self) -> "LiveLine":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show the progress after an iteration."""
        if progress.record is not None:
            self._terms = describe(progress.record)
        line = (
            f"kimg {progress.nimg / 1000:.1f}/{progress.total_nimg / 1000:g}  "
            f"{progress.images_per_second:.1f} img/s  left {_duration(progress.seconds_left)}"
        )
        if self._live is not None:
            self._live.update(Text(f"{line}\n{self._terms}"))
        elif progress.record is not None:
            self._out.print(f"{line}  {self._terms}", markup=False)


def describe(record: Mapping[str, Any]) -> str:
    """Say in a line what a record of the log holds: level, losses, regularizers, norms, times."""
    terms, shares = record["terms"], record["time"]["share"]
    growth = record.get("growth")
    where = []
    if growth is not None:
        side, batch = growth["resolution"], growth["batch"]
        where = [f"{side}x{side} lod {growth['lod']:.2f} batch {batch}"]
    names = {
        "loss/G": "G",
        "loss/D": "D",
        "r1/penalty": "R1",
        "gradient_penalty": "penalty",
        "label_loss/real": "labels",
        "path_length/mean": "path length",
        "grad_norm/G": "|grad G|",
        "grad_norm/D": "|grad D|",
    }
    shown = [f"{label} {terms[name]:.3g}" for name, label in names.items() if name in terms]
    times = [f"{kind} {100 * share:.0f}%" for kind, share in shares.items()]
    skipped = [f"skipped {record['skipped']}"] if record["skipped"] else []
    return "  ".join([*where, *shown, *skipped, "| " + " ".join(times)])


def _ending(outcome: Outcome) -> str:
    if outcome.is_complete:
        return "complete"
    if outcome.signal is not None:
        return f"stopped by {outcome.signal.name}, saved; the same line goes on"
    return "time is over, saved; the same line goes on"


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{int(seconds) % 60:02d}"
