"""Reports on image sets: which files cannot be trained on, and what a set holds."""

import collections
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from stylegan import images
from stylegan.data.check import (
    Entry,
    Selection,
    duplicates,
    examine,
    fingerprint,
    first_names,
    formats_of,
    previous_power_of_two,
    read_record,
    reading_of_record,
    select,
    suggested_resolution,
)
from stylegan.data.label_files import read_labels
from stylegan.data.labels import Labels
from stylegan.data.prepare import PrepareOptions, fit, fit_stored
from stylegan.data.readers import Reading, map_in_order, num_threads, read_raster
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.files import RECORD_NAME
from stylegan.data.sources.open import open_source
from stylegan.errors import command_line
from stylegan.files import printable_name
from stylegan.image_size import ImageSize, Resolution
from stylegan.notebook import TextResult, picture_html
from stylegan.progress import Counter

_SHEET_COLUMNS, _SHEET_ROWS = 16, 8
_MAX_TILE = 128  # pixels
_MAX_BARS = 8
_WIDTH = 80  # columns of a terminal
_GROUPS_SHOWN = 20  # of duplicates
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class CheckReport(TextResult):
    """Which files of a source can be trained on, and what to do about the others.

    Attributes:
        num_usable: images that can be trained on.
        resolution: size that they can be trained at, a side in pixels or "HEIGHTxWIDTH"; 0 if there
            are none.
        bad: name and reason of each file that cannot be trained on.
        advice: what to do, one line for each kind of problem.
        pixels: channels and depth of the images, such as "RGB" or "L uint16".
        duplicates: groups of names of images with equal pixels.
    """

    num_usable: int
    resolution: Resolution
    bad: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]
    pixels: str = ""
    duplicates: tuple[tuple[str, ...], ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether there are usable images, and no other files."""
        return self.num_usable > 0 and not self.bad

    def __str__(self) -> str:
        """Return one line for each bad file, then the counts, the advice and the duplicates."""
        lines = [f"{printable_name(name)}: {reason}" for name, reason in self.bad]
        if self.num_usable:
            size = ImageSize.of(self.resolution)
            kind = "" if self.pixels in ("", "L", "RGB") else f", {self.pixels}"
            lines.append(f"{self.num_usable} images can be trained on at {size}{kind}.")
        else:
            lines.append("No image can be trained on.")
        if self.bad:
            lines.append(f"{len(self.bad)} files cannot, and training skips them. What to do:")
        lines += [f"  {line}" for line in self.advice]
        if groups := self.duplicates:
            num = sum(len(group) - 1 for group in groups)
            noun = "1 image is a copy" if num == 1 else f"{num} images are copies"
            lines.append(f"{noun} of another, with the same pixels:")
            lines += [f"  {first_names(group)}" for group in groups[:_GROUPS_SHOWN]]
            if len(groups) > _GROUPS_SHOWN:
                lines.append(f"  and {len(groups) - _GROUPS_SHOWN} more groups")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class SetInfo(TextResult):
    """What an image set holds.

    Attributes:
        path: the folder or zip.
        num_usable: images that can be trained on.
        num_bad: files that cannot.
        sizes: number of images of each (width, height) in pixels, the most common first.
        modes: number of images of each of Pillow's modes, the most common first.
        pixels: channels and depth of the set, such as "RGB" or "L uint16".
        formats: number of images in each file format, the most common first.
        labels: a description of the labels.
        fingerprint: SHA-256 over names, sizes, checksums and labels of the usable images.
        history: how `prepare` made the set; empty for other sets.
        sheet_path: the contact sheet that was written; None if no image can be decoded.
        sheet: the contact sheet, uint8 [3, H, W].
    """

    path: str
    num_usable: int
    num_bad: int
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    pixels: str
    formats: Mapping[str, int]
    labels: str
    fingerprint: str
    history: Mapping[str, str]
    sheet_path: Path | None
    sheet: Tensor | None = field(repr=False)

    def __str__(self) -> str:
        """Return the facts, each with its name, in lines of 80 columns."""
        sizes = {f"{width}x{height}": num for (width, height), num in self.sizes.items()}
        rows = {
            "images": f"{self.num_usable} can be trained on, {self.num_bad} files cannot",
            "sizes": _histogram(sizes),
            "modes": _histogram(self.modes),
            "pixels": self.pixels,
            "formats": _histogram(self.formats),
            "labels": self.labels,
            "fingerprint": self.fingerprint,
            **self.history,
        }
        if self.sheet_path is not None:
            rows["sheet"] = str(self.sheet_path)
        lines = [line for key, value in rows.items() for line in _wrapped(key, value)]
        if self.num_bad:
            check = command_line("data", "check", self.path)
            lines.append(f"See {check} for the files that cannot.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the facts and the contact sheet for a notebook."""
        return super()._repr_html_() + ("" if self.sheet is None else picture_html(self.sheet))


def check(
    path: str | Path,
    *,
    resolution: Resolution | None = None,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: Counter | None = None,
) -> CheckReport:
    """Decode every image, and report the files that cannot be trained on."""
    source = open_source(path)
    entries = examine(
        source,
        reading=reading_of_record(source, reading),
        workers=workers,
        progress=progress,
        trusts_record=False,
        with_digests=True,
    )
    selection = select(source, entries, resolution=resolution)
    return CheckReport(
        num_usable=len(selection.usable),
        resolution=_trained_size(selection, resolution),
        pixels=str(selection.pixels) if selection.usable else "",
        bad=selection.bad,
        advice=tuple(_advice(Path(path), entries, selection, resolution=resolution)),
        duplicates=tuple(duplicates(entries)),
    )


def _trained_size(selection: Selection, resolution: Resolution | None) -> Resolution:
    """Return the size that the images of a selection can be trained at; 0 if there are none."""
    if selection.size is None or not selection.usable:
        return 0
    return (selection.size if resolution is None else ImageSize.of(resolution)).stored


def info(
    path: str | Path,
    *,
    out: Path | None = None,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: Counter | None = None,
) -> SetInfo:
    """Describe a set, and write its contact sheet; see `stylegan.info`."""
    source = open_source(path)
    reading = reading_of_record(source, reading)
    entries = examine(source, reading=reading, workers=workers, progress=progress)
    selection = select(source, entries)
    labels = read_labels(source)
    by_name = None if labels is None else labels.by_name
    decodable = [entry for entry in entries if entry.reason is None]
    sheet = sheet_path = None
    if decodable:
        sheet = _contact_sheet(source, decodable, reading=reading, workers=workers)
        sheet_path = out or Path(f"{Path(path).resolve().stem}-sheet.png")
        images.write_grid(sheet, sheet_path)
    return SetInfo(
        path=str(path),
        num_usable=len(selection.usable),
        num_bad=len(selection.bad),
        sizes=_counts(entry.size for entry in decodable),
        modes=_counts(entry.stored_mode for entry in decodable),
        pixels=str(selection.pixels) if selection.usable else "none",
        formats=formats_of(decodable),
        labels=_describe_labels(labels, selection),
        fingerprint=fingerprint(selection.usable, by_name),
        history=preparation_facts(source),
        sheet_path=sheet_path,
        sheet=sheet,
    )


def _wrapped(key: str, value: str) -> list[str]:
    return textwrap.wrap(
        printable_name(f"{key:<12} {value}"),
        _WIDTH,
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _counts(values: Iterable[_Value]) -> dict[_Value, int]:
    return dict(collections.Counter(values).most_common())


def _histogram(counts: Mapping[str, int]) -> str:
    bars = [f"{value} ({num})" for value, num in counts.items()]
    if len(bars) > _MAX_BARS:
        bars[_MAX_BARS:] = [f"and {len(bars) - _MAX_BARS} others"]
    return ", ".join(bars) or "none"


def _describe_labels(known: Labels | None, selection: Selection) -> str:
    if known is None:
        return "none"
    by_name = known.by_name
    labels = [by_name[entry.name] for entry in selection.usable if entry.name in by_name]
    if not labels:
        return f"none of {len(selection.usable)} images has one"
    of_images = f"for {len(labels)} of {len(selection.usable)} images"
    classes = [label for label in labels if isinstance(label, int)]
    if len(classes) == len(labels):
        names = dict(enumerate(known.classes))
        histogram = _histogram(_counts(names.get(number, str(number)) for number in classes))
        return f"{max(classes) + 1} classes, {of_images}: {histogram}"
    lengths = {1 if isinstance(label, int) else len(label) for label in labels}
    return f"vectors of {' or '.join(map(str, sorted(lengths)))} numbers, {of_images}"


def preparation_facts(source: AbstractSource) -> dict[str, str]:
    """Return how `prepare` made a zip, by name; nothing for other sets."""
    record = source.read_json(RECORD_NAME)
    if read_record(source) is None or not isinstance(record, dict):
        return {}
    options = ", ".join(
        f"{key} {value}" for key, value in record["options"].items() if value is not None
    )
    steps = (step for image in record["images"] for step in image.get("steps", []))
    return {
        "prepared by": f"{record.get('made_by')} with Pillow {record.get('pillow')}",
        "from": str(record.get("source")),
        "options": options,
        "steps": _histogram(_counts(steps)),
        "left out": f"{len(record.get('skipped', []))} files",
    }


def _contact_sheet(
    source: AbstractSource, entries: Sequence[Entry], *, reading: Reading, workers: int | None
) -> Tensor:
    """Draw evenly spaced images of the set, uint8 [3, H, W]."""
    num_drawn = min(len(entries), _SHEET_COLUMNS * _SHEET_ROWS)
    drawn = [entries[index * len(entries) // num_drawn] for index in range(num_drawn)]
    options = PrepareOptions(resolution=_tile_size(drawn).stored)

    def draw(entry: Entry) -> Tensor:
        raster = read_raster(source.read(entry.name), reading)
        if raster.pixels.has_alpha:
            stored, _ = fit_stored(raster.stored, raster.pixels, options=options)
            return images.over_checkerboard(raster.pixels.shown_stored(stored))
        picture = images.pil_image(raster.pixels.shown_stored(raster.stored))
        image, _ = fit(picture, options=options)
        return images.from_pil(image.convert("RGB"))

    tiles = list(map_in_order(draw, drawn, workers=num_threads(workers)))
    return images.grid(torch.stack(tiles), columns=min(_SHEET_COLUMNS, num_drawn), padding=2)


def _tile_size(entries: Sequence[Entry]) -> ImageSize:
    """Return the size of the images in the contact sheet: square if there are several sizes."""
    side = min(_MAX_TILE, *(min(entry.size) for entry in entries))
    tile = ImageSize.of(previous_power_of_two(side))
    (width, height), *others = {entry.size for entry in entries}
    size = ImageSize(height, width)
    if not others and size.is_native:
        tile = size
        while max(tile.height, tile.width) > _MAX_TILE and tile.doublings > 0:
            tile = tile.reduced(2)
    return tile


def _advice(
    path: Path, entries: Sequence[Entry], selection: Selection, *, resolution: Resolution | None
) -> Iterator[str]:
    """Yield what to do, one line for each kind of problem."""
    reasons = [reason for _, reason in selection.bad]

    def any_is(*kinds: str) -> bool:
        return any(reason.startswith(kinds) for reason in reasons)

    if any_is("empty", "truncated", "unreadable"):
        yield "empty, truncated, unreadable: copy or download the files again, or remove them."
    if any_is("not an image"):
        yield "not an image: remove the files, or save them as PNG or JPEG."
    if any_is("a grid"):
        yield "a grid: it shows several images; it is left out, and can stay."
    if any_is("too large"):
        yield "too large: reduce the images, or remove them."
    if any_is("wrong size", "wrong mode"):
        side = suggested_resolution(entries) if resolution is None else resolution
        prepared = f"{path.resolve().stem}{side}.zip"
        prepare = command_line("data", "prepare", path, prepared, "--resolution", side)
        yield f"wrong size, wrong mode: make a set of one size and mode with {prepare}."
    if not entries:
        yield "There are no images: check the path."
