"""`stylegan train-classifier`: attribute classifiers, for the metric of linear separability."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from stylegan.cli import options
from stylegan.data.check import require_power_of_two
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError
from stylegan.training.attributes import find_attributes
from stylegan.training.classifier import (
    ClassifierConfig,
    ClassifiersOutcome,
    Fitting,
    Tested,
    train_classifiers,
)

_TRAIN = """Train a classifier for each attribute of a labeled set, as linear separability needs.

The same line goes on where it stopped; finished classifiers are left alone. Each goes to a folder
of its own in OUT. A tenth of the images is held out, and tells how good it is.

Example:
    stylegan train-classifier --data celeba.zip --out classifiers --names celeba
    stylegan train-classifier --data set.zip --out some --attributes smiling,eyeglasses,10-19
"""


@dataclass(frozen=True, kw_only=True)
class TrainClassifier:
    """Options of `stylegan train-classifier`.

    Attributes:
        data: Folder or zip of images with labels: classes, or lists of 0 and 1 or -1 and 1.
        out: Folder of the classifiers' folders.
        attributes: Names, numbers, ranges such as 0-9, with commas. Default: all.
        names: Of all attributes, with commas, in the labels' order; or celeba for its forty.
        kimg: Length of the training of each, in thousands of images shown.
        batch: Images in a step.
        lr: Learning rate.
        resolution: Side of the images, in pixels; larger ones are reduced, smaller taken as are.
        mirror: Show each image flipped as well.
        channel_base: A block at resolution r has this divided by r channels.
        channel_max: Most channels of a block.
        max_minutes: Save and stop, with exit status 0, after so many minutes.
        device: Where to compute.
        seed: Of everything random, and of the images to hold out.
    """

    data: str
    out: Path
    attributes: str | None = None
    names: str | None = None
    kimg: float = 150.0
    batch: int = 8
    lr: float = 1e-3
    resolution: int = 256
    mirror: bool = False
    channel_base: int = 16384
    channel_max: int = 512
    max_minutes: float | None = None
    device: options.Device = "auto"
    seed: options.Seed = 0


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command = tyro.cli(
        TrainClassifier, prog="stylegan train-classifier", description=_TRAIN, args=arguments
    )
    minutes = command.max_minutes
    if minutes is not None and not 0 <= minutes < math.inf:
        raise ConfigError(
            f"--max-minutes {minutes:g}", expected="0 or more", fix="leave it out for no limit"
        )
    device = options.resolve_device(command.device)
    dataset = open_dataset(command)
    attributes = find_attributes(
        dataset, path=command.data, names=command.names, wanted=command.attributes
    )
    config = ClassifierConfig(
        resolution=dataset.resolution,
        kimg=command.kimg,
        batch=command.batch,
        lr=command.lr,
        mirror=command.mirror,
        channel_base=command.channel_base,
        channel_max=command.channel_max,
        seed=command.seed,
    )
    out = options.console()
    out.print(
        f"{len(attributes)} attributes of {len(dataset.image_names)} images at "
        f"{dataset.resolution}x{dataset.resolution}, {command.kimg:g} kimg each, on {device.type}",
        markup=False,
    )
    with options.progress(transient=True) as bar:
        task: TaskID | None = None
        shown = -1

        def observe(fitting: Fitting) -> None:
            nonlocal task, shown
            if fitting.attribute.index != shown:
                if task is not None:
                    bar.remove_task(task)
                task, shown = bar.add_task("", total=fitting.total_nimg), fitting.attribute.index
            assert task is not None
            loss = "" if math.isnan(fitting.loss) else f"  loss {fitting.loss:.3f}"
            bar.update(task, description=f"{fitting.attribute.slug}{loss}", completed=fitting.nimg)

        outcome = train_classifiers(
            attributes,
            dataset,
            command.out,
            config,
            device=device,
            observe=observe,
            max_minutes=command.max_minutes,
        )
    if outcome.tested:
        out.print(_table(outcome.tested))
    out.print(f"{command.out}: {_ending(outcome, len(attributes))}", markup=False)
    return 0 if outcome.signal is None else 128 + outcome.signal


def open_dataset(command: TrainClassifier) -> ImageDataset:
    """Open the images at the resolution of the classifiers: that of the set where it is smaller."""
    require_power_of_two(command.resolution)
    with options.progress(transient=True) as bar:
        task = bar.add_task("reading images", total=None)

        def move(num_done: float, num_all: float | None) -> None:
            bar.update(task, completed=num_done, total=num_all)

        def opened(resolution: int | None) -> ImageDataset:
            return ImageDataset(
                command.data, resolution=resolution, mirror=command.mirror, progress=move
            )

        dataset = opened(None)
        return dataset if dataset.resolution <= command.resolution else opened(command.resolution)


def _table(tested: Sequence[Tested]) -> Table:
    """Set the finished classifiers one below the other."""
    table = Table("", "attribute", "have it", "held out", "accuracy", "AUC")
    for column in table.columns[2:]:
        column.justify = "right"
    for one in tested:
        table.add_row(
            f"{one.index}",
            Text(one.name),  # it comes from a file, and may look like markup
            f"{100 * one.num_with / one.num_images:.1f} %",
            f"{one.num_held_out:,}",
            f"{100 * one.accuracy:.2f} %",
            f"{one.auc:.4f}",
        )
    return table


def _ending(outcome: ClassifiersOutcome, num: int) -> str:
    if outcome.is_complete:
        return f"{num} classifiers, complete"
    why = "time is over" if outcome.signal is None else f"stopped by {outcome.signal.name}"
    return f"{len(outcome.tested)} of {num} classifiers, {why}, saved; the same line goes on"
