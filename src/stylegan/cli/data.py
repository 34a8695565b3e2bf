"""`stylegan data prepare | check | info | shard`: make, check, describe and shard image sets."""

import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from stylegan import images
from stylegan.cli import options
from stylegan.data.check import Entry, Verdict, examine, fingerprint, judge, read_record
from stylegan.data.dataset import ImageDataset
from stylegan.data.prepare import PrepareOptions, fit, prepare
from stylegan.data.readers import (
    RECORD_NAME,
    AbstractSource,
    Label,
    Progress,
    decode,
    map_in_order,
    num_threads,
    open_source,
)
from stylegan.data.shards import write_shards
from stylegan.errors import check_positive

_SHEET_COLUMNS, _SHEET_ROWS = 16, 8
_SHEET_TILE = 128  # at most, in pixels

_PREPARE = """Pack a folder of images (with its subfolders) or a zip into a zip to train on.

Rotation by EXIF is applied, every color mode is brought to 8-bit RGB (or grey, if all images
are). The zip records how each image was made, in prepare.json. Files that cannot be used are
named and counted.

Example: stylegan data prepare photos photos256.zip --resolution 256"""

_CHECK = """List every file that cannot be trained on, with the reason; exit with 1 if there is one.

Example: stylegan data check photos --resolution 256"""

_INFO = """Print count, sizes, modes, labels, fingerprint and history, and draw a contact sheet.

Example: stylegan data info photos256.zip --out sheet.png"""

_SHARD = """Write a set as tar shards in the WebDataset layout, for sets larger than a disk.

Training reads them from the folder, or from wherever it is copied to: a web server or an object
store. The images are shuffled, so that reading in order is reading at random.

Example: stylegan data shard photos256.zip shards/ --shard-mb 128"""

Source = Annotated[
    tyro.conf.Positional[Path], tyro.conf.arg(metavar="SRC", help="A folder or a zip of images.")
]
Workers = Annotated[
    int | None,
    tyro.conf.arg(metavar="N", help="Threads; left out: one per processor core."),
]


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Options of `stylegan data prepare`."""

    source: Source
    destination: Annotated[
        tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST.zip", help="The zip to write.")
    ]
    resolution: Annotated[
        int, tyro.conf.arg(metavar="R", help="Side of the images in pixels, a power of two.")
    ]
    crop: Annotated[
        Literal["center", "wide", "none"],
        tyro.conf.arg(
            help="center: the central square. wide: central rows at full width, on a black "
            "square. none: the whole image, resized to a square, which changes its aspect."
        ),
    ] = "center"
    wide_height: Annotated[
        int | None,
        tyro.conf.arg(metavar="H", help="Rows of the picture of --crop wide; left out: 3/4 of R."),
    ] = None
    filter: Annotated[Literal["lanczos", "box"], tyro.conf.arg(help="For resizing.")] = "lanczos"
    background: Annotated[
        str,
        tyro.conf.arg(
            metavar="COLOR", help="Shows through transparent pixels: a name, or #rrggbb."
        ),
    ] = "white"
    compress_level: Annotated[
        int, tyro.conf.arg(metavar="0..9", help="Of the PNG files: 0 is large, 9 is slow to make.")
    ] = 6
    labels_from: Annotated[
        Literal["json", "folders"],
        tyro.conf.arg(
            help="json: carry over those of dataset.json, if it has some. folders: number the top "
            "folders by name."
        ),
    ] = "json"
    on_bad: Annotated[
        Literal["skip", "fail"], tyro.conf.arg(help="What to do about files that cannot be used.")
    ] = "skip"
    workers: Workers = None
    overwrite: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="Replace DST.zip if it exists.")
    ] = False

    def run(self) -> int:
        """Make the zip and tell what is in it."""
        with _bar("Preparing") as progress:
            prepared = prepare(
                self.source,
                self.destination,
                options=PrepareOptions(
                    resolution=self.resolution,
                    crop=self.crop,
                    wide_height=self.wide_height,
                    filter=self.filter,
                    background=self.background,
                    compress_level=self.compress_level,
                    labels_from=self.labels_from,
                    on_bad=self.on_bad,
                ),
                overwrite=self.overwrite,
                workers=self.workers,
                progress=progress,
            )
        _print(
            f"{self.destination}: {prepared.num_images} images, {self.resolution}x"
            f"{self.resolution} {prepared.mode}, {prepared.num_bytes / 1e6:.1f} MB; "
            f"{len(prepared.skipped)} files skipped"
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class Check:
    """Options of `stylegan data check`."""

    source: Source
    resolution: Annotated[
        int | None,
        tyro.conf.arg(metavar="R", help="To train at; left out: the images' own size."),
    ] = None
    workers: Workers = None

    def run(self) -> int:
        """List the offenders and tell what to do about them."""
        source = open_source(self.source)
        with _bar("Checking") as progress:
            entries = examine(source, workers=self.workers, progress=progress, trusts_record=False)
        verdict = judge(source, entries, resolution=self.resolution)
        for name, reason in verdict.bad:
            _print(f"{name}: {reason}")
        side = self.resolution or verdict.side
        if verdict.usable:
            _print(f"{len(verdict.usable)} images can be trained on at {side}x{side}.")
        else:
            _print("No image can be trained on.")
        if not verdict.bad and verdict.usable:
            return 0
        if verdict.bad:
            _print(f"{len(verdict.bad)} files cannot, and are skipped in training. What to do:")
        for line in _advice(self.source, entries, verdict, resolution=self.resolution):
            _print(f"  {line}")
        return 1


@dataclass(frozen=True, kw_only=True)
class Info:
    """Options of `stylegan data info`."""

    source: Source
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="SHEET.png", help="The contact sheet; left out: NAME-sheet.png, here."
        ),
    ] = None
    workers: Workers = None

    def run(self) -> int:
        """Describe the set, and draw some of it."""
        source = open_source(self.source)
        with _bar("Reading") as progress:
            entries = examine(source, workers=self.workers, progress=progress)
        verdict = judge(source, entries)
        labels = source.read_labels()
        good = [entry for entry in entries if entry.reason is None]
        rows = {
            "images": f"{len(verdict.usable)} can be trained on, {len(verdict.bad)} files cannot",
            "sizes": _histogram("{}x{}".format(*entry.size) for entry in good),
            "modes": _histogram(entry.stored_mode for entry in good),
            "labels": _describe_labels(labels, verdict),
            "fingerprint": fingerprint(verdict.usable, labels),
        }
        rows |= _history(source)
        if good:
            out = self.out or Path(f"{self.source.resolve().stem}-sheet.png")
            images.write(_contact_sheet(source, good, workers=self.workers), out)
            rows["sheet"] = str(out)
        for key, value in rows.items():
            _print(f"{key:<12} {value}")
        if verdict.bad:
            _print(f"See `stylegan data check {self.source}` for the files that cannot.")
        return 0


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Options of `stylegan data shard`."""

    source: Source
    destination: Annotated[
        tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST", help="A new or empty folder.")
    ]
    resolution: Annotated[
        int | None,
        tyro.conf.arg(metavar="R", help="Of the images; left out: their own."),
    ] = None
    shard_mb: Annotated[
        float, tyro.conf.arg(metavar="MB", help="Size of a shard, which is held in memory.")
    ] = 128.0
    workers: Workers = None
    seed: Annotated[int, tyro.conf.arg(help="Decides the order of the images.")] = 0

    def run(self) -> int:
        """Write the shards and tell what they are."""
        check_positive("--shard-mb", self.shard_mb)
        dataset = ImageDataset(self.source, resolution=self.resolution, workers=self.workers)
        with _bar("Sharding") as progress:
            index = write_shards(
                dataset,
                self.destination,
                shard_bytes=round(min(self.shard_mb * 1e6, sys.maxsize)),
                seed=self.seed,
                workers=self.workers,
                progress=progress,
            )
        _print(
            f"{self.destination}: {len(dataset)} images, {index.resolution}x{index.resolution}, "
            f"in {len(index.shards)} shards"
        )
        return 0


_Command = (
    Annotated[Prepare, tyro.conf.subcommand("prepare", description=_PREPARE)]
    | Annotated[Check, tyro.conf.subcommand("check", description=_CHECK)]
    | Annotated[Info, tyro.conf.subcommand("info", description=_INFO)]
    | Annotated[ShardOptions, tyro.conf.subcommand("shard", description=_SHARD)]
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan data` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command: Prepare | Check | Info | ShardOptions = tyro.cli(
        _Command,
        prog="stylegan data",
        description="Make, check, describe and shard image sets.",
        args=arguments,
    )
    return command.run()


def _print(line: str) -> None:
    options.console().print(line, markup=False)


@contextmanager
def _bar(description: str) -> Iterator[Progress]:
    """Show a progress bar with the time left, and give the function that moves it."""
    with options.progress() as bar:
        task = bar.add_task(description, total=None)

        def move(num_done: int, num_all: int) -> None:
            bar.update(task, completed=num_done, total=num_all)

        yield move


def _histogram(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    shown = [f"{value} ({count})" for value, count in counts[:8]]
    if len(counts) > 8:
        shown.append(f"and {len(counts) - 8} others")
    return ", ".join(shown) or "none"


def _describe_labels(labels: Mapping[str, Label] | None, verdict: Verdict) -> str:
    if labels is None:
        return "none"
    found = [labels[entry.name] for entry in verdict.usable if entry.name in labels]
    if not found:
        return f"none of {len(verdict.usable)} images has one"
    of_images = f"for {len(found)} of {len(verdict.usable)} images"
    classes = [label for label in found if isinstance(label, int)]
    if len(classes) == len(found):
        return f"{max(classes) + 1} classes, {of_images}: {_histogram(map(str, classes))}"
    lengths = {1 if isinstance(label, int) else len(label) for label in found}
    return f"vectors of {' or '.join(map(str, sorted(lengths)))} numbers, {of_images}"


def _history(source: AbstractSource) -> dict[str, str]:
    """Tell how a prepared zip was made."""
    record = source.read_json(RECORD_NAME)
    if read_record(source) is None or not isinstance(record, dict):
        return {}
    chosen = ", ".join(f"{key} {value}" for key, value in record["options"].items())
    steps = (step for image in record["images"] for step in image.get("steps", []))
    classes = {"classes": ", ".join(record["classes"])} if record.get("classes") else {}
    return {
        "prepared by": f"{record.get('made_by')} with Pillow {record.get('pillow')}",
        "from": str(record.get("source")),
        "options": chosen,
        "steps": _histogram(steps),
        "left out": f"{len(record.get('skipped', []))} files",
        **classes,
    }


def _contact_sheet(
    source: AbstractSource, entries: Sequence[Entry], *, workers: int | None
) -> torch.Tensor:
    """Draw images from evenly spaced places of the set, uint8 [3, H, W]."""
    num_shown = min(len(entries), _SHEET_COLUMNS * _SHEET_ROWS)
    shown = [entries[index * len(entries) // num_shown] for index in range(num_shown)]
    side = min(_SHEET_TILE, *(min(entry.size) for entry in shown))
    tile = PrepareOptions(resolution=max(4, 1 << (side.bit_length() - 1)))

    def draw(entry: Entry) -> torch.Tensor:
        image, _ = fit(decode(source.read(entry.name)).image, options=tile)
        return images.from_pil(image.convert("RGB"))

    tiles = list(map_in_order(draw, shown, workers=num_threads(workers)))
    return images.grid(torch.stack(tiles), columns=min(_SHEET_COLUMNS, num_shown), padding=2)


def _advice(
    path: Path, entries: Sequence[Entry], verdict: Verdict, *, resolution: int | None
) -> Iterator[str]:
    """Say what to do, a line for each kind of offender that there is."""
    reasons = [reason for _, reason in verdict.bad]

    def any_is(*kinds: str) -> bool:
        return any(reason.startswith(kinds) for reason in reasons)

    if any_is("empty", "truncated", "unreadable"):
        yield "empty, truncated, unreadable: copy or download the files again, or remove them."
    if any_is("not an image"):
        yield "not an image: remove the files, or save them as PNG or JPEG."
    if any_is("too large"):
        yield "too large: reduce the images, or remove them."
    sides = [min(entry.size) for entry in entries if entry.reason is None]
    if any_is("wrong size", "wrong mode") and sides:
        side = resolution or max(4, 1 << (int(statistics.median(sides)).bit_length() - 1))
        yield (
            "wrong size, wrong mode: make a set of one size and mode by "
            f"`stylegan data prepare {path} {path.resolve().stem}{side}.zip --resolution {side}`."
        )
    if not entries:
        yield "there is no image at all: check the path."
