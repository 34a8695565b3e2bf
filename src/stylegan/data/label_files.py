"""Reads labels from dataset.json, a CSV file, the names of folders, or the source's format."""

import codecs
import csv
import io
import json
import logging
import math
import posixpath
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from stylegan import distributed
from stylegan.data.labels import Label, Labels
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.files import LABELS_NAME, RECORD_NAME
from stylegan.errors import DataError

logger = logging.getLogger(__name__)

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # of Excel's "Unicode text"
_LAYOUT = '{"labels": null} or {"labels": [[name, integer or list of numbers], ...]}'


def read_labels(source: AbstractSource) -> Labels | None:
    """Return the labels of a source; None if there are none for its images.

    They are those of its dataset.json, else those that are part of its format. The file can be in
    the wrapping folder of all images, too, or in one other folder of images; images outside of that
    folder then have no label. Names are compared after normalization of slashes, `./`, surrounding
    spaces, Unicode form and, where that is unambiguous, case. If no name is that of an image, the
    folder that all names have in common, as in absolute paths, is removed first. Images whose label
    is null or NaN have no label.

    Raises:
        DataError: if the file is not in the official layout.
    """
    parents = ["", *_folders_of(wrapping_folder(source.images))]
    for prefix in (*parents, *_nested_labels(source, parents)):
        name = prefix + LABELS_NAME
        content = source.read_json(name)
        if content is None:
            continue
        origin = f"{name} in {source.path}"
        if not isinstance(content, dict):
            raise _bad_labels(origin, "no object at the top level")
        pairs = content.get("labels")
        if pairs is None:
            return None
        if isinstance(pairs, dict):
            pairs = list(pairs.items())
        if not isinstance(pairs, list):
            raise _bad_labels(origin, "labels that are not a list")
        values = dict(_parse_pair(pair, origin) for pair in pairs)
        labels = _match_images(values, source, origin, folder="" if prefix in parents else prefix)
        if labels is None:
            return None
        classes = content.get("classes") or _recorded_classes(source, prefix)
        return Labels(
            by_name=labels.by_name,
            classes=labels.classes or _texts(classes),
            attributes=_texts(content.get("attributes")),
        )
    return source.labels


def _nested_labels(source: AbstractSource, parents: Collection[str]) -> list[str]:
    """Return the folder of images that holds a dataset.json, unless a folder of all images does.

    It is empty, with a warning, if several folders hold one, as their classes may differ.

    Args:
        source: the images.
        parents: folders that all images are in, each with a slash at its end, or empty.
    """
    if any(source.read_json(folder + LABELS_NAME) is not None for folder in parents):
        return []
    every = {name.rpartition("/")[0] + "/" for name in source.images if "/" in name}
    folders = {folder for each in every for folder in _folders_of(each)}
    nested = [
        folder
        for folder in sorted(folders.difference(parents))
        if source.read_json(folder + LABELS_NAME) is not None
    ]
    if not nested:
        return []
    text = f"{source.path}: labels are read from {nested[0]}{LABELS_NAME}"
    num_outside = sum(not name.startswith(nested[0]) for name in source.images)
    note = f"{num_outside} images outside of that folder have no label"
    if len(nested) > 1:
        text = f"{source.path}: no labels are read, as {len(nested)} folders have a {LABELS_NAME}"
        note = f"{' and '.join(nested[:2])} are two of them; name one of the folders instead"
    if distributed.is_main_process():
        logger.warning("%s; %s", text, note)
    return nested if len(nested) == 1 else []


def _folders_of(folder: str) -> list[str]:
    """Return a folder and those that it is in, from the outermost; each ends in a slash."""
    return [folder[: match.end()] for match in re.finditer("/", folder)]


def read_csv_labels(path: Path, source: AbstractSource) -> Labels:
    """Return the labels of a source's images from a CSV file.

    The first column names the image. A second column is the class, as a whole number or a name;
    several columns are a vector, and their headings are the names of its positions. A first row
    that names no image holds the headings. A first column without a heading, such as the
    index that pandas writes, is ignored. Images whose class is empty or NaN have no label.

    Raises:
        DataError: if the file cannot be read or names none of the images.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); --labels-from takes json, folders or a CSV "
            "file"
        ) from error
    except UnicodeError as error:
        raise DataError(
            f"{path} cannot be read ({error})", fix="save it in UTF-8, as `CSV UTF-8` of Excel"
        ) from error
    values, headings = _parse_csv(text, path, source)
    labels = _match_images(values, source, str(path))
    if labels is None:
        raise DataError(f"{path} names none of the images of {source.path}")
    return Labels(by_name=labels.by_name, classes=labels.classes, attributes=tuple(headings))


def labels_by_folder(source: AbstractSource) -> Labels:
    """Return the class of each image by the folder that it is in, below the wrapping folder.

    Classes are numbered in the natural order of the folders' names: 1, 2, 10. Images outside any
    folder have none.
    """
    prefix = wrapping_folder(source.images)
    if not any("/" in name.removeprefix(prefix) for name in source.images):
        prefix = prefix.rstrip("/").rpartition("/")[0]  # one class: its folder wraps all images
        prefix = f"{prefix}/" if prefix else ""
    folder_of = {
        name: name.removeprefix(prefix).split("/")[0]
        for name in source.images
        if "/" in name.removeprefix(prefix)
    }
    classes = sorted(set(folder_of.values()), key=natural_key)
    numbers = {name: number for number, name in enumerate(classes)}
    by_name = {name: numbers[folder] for name, folder in folder_of.items()}
    return Labels(by_name=by_name, classes=tuple(classes))


def wrapping_folder(names: Sequence[str]) -> str:
    """Return the folder that all files are in, with a slash at its end; empty if there is none."""
    folders = {name.rpartition("/")[0].lstrip("/") for name in names}
    common = posixpath.commonpath(folders) if folders else ""
    return f"{common}/" if common else ""


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts numbers within names by their value: 1, 2, 10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple(
        (0, int(part), part) if part[0] in "0123456789" else (1, 0, part.casefold())
        for part in parts
    )


def _parse_pair(pair: object, origin: str) -> tuple[str, Label | str | None]:
    match pair:
        case [str(name), label] | (str(name), label):
            return name, _parse_label(label, pair, origin)
    raise _bad_labels(origin, f"the entry {json.dumps(pair)[:80]}")


def _parse_label(label: object, pair: object, origin: str) -> Label | str | None:
    match label:
        case bool():
            return int(label)
        case int() | str() | None:
            return label
        case float() if math.isnan(label):
            return None
        case float() if label.is_integer():
            return int(label)
        case [*values] if all(isinstance(value, int | float) for value in values):
            return tuple(value for value in values if isinstance(value, int | float))
    raise _bad_labels(origin, f"the entry {json.dumps(pair)[:80]}")


def _parse_csv(
    text: str, path: Path, source: AbstractSource
) -> tuple[dict[str, Label | str | None], Sequence[str]]:
    """Return the labels by name, and the headings of the columns of vectors."""
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:10_000], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=None), dialect) if any(row)]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error})") from error
    widths = {len(row) for row in rows}
    if not rows or len(widths) != 1 or widths == {1}:
        raise DataError(
            f"{path} must have a name and the same number of labels in each row, separated by "
            "commas"
        )
    find = _NameIndex(source.images, [row[0] for row in rows[1:]])
    if len(rows[0]) > 2 and not rows[0][0] and not any(find(row[0]) for row in rows):
        rows = [row[1:] for row in rows]
        find = _NameIndex(source.images, [row[0] for row in rows[1:]])
    is_vector = len(rows[0]) > 2
    headings = rows.pop(0) if find(rows[0][0]) is None else []
    values: dict[str, Label | str | None] = {}
    for name, *columns in rows:
        numbers = [_number(column) for column in columns]
        if is_vector:
            if None in numbers:
                raise DataError(f"{path} has a label of {name} that is not a number")
            values[name] = tuple(number for number in numbers if number is not None)
        else:
            values[name] = _parse_class(columns[0])
    return values, headings[1:] if is_vector else ()


def _parse_class(text: str) -> int | str | None:
    number = _number(text)
    if not text.strip() or (number is not None and math.isnan(number)):
        return None
    return int(number) if number is not None and number.is_integer() else text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _match_images(
    values: Mapping[str, Label | str | None],
    source: AbstractSource,
    origin: str,
    *,
    folder: str = "",
) -> Labels | None:
    """Return labels by the names of the images; None, with a warning, if none is named.

    Args:
        values: the labels by names.
        source: the images.
        origin: the label file, for messages.
        folder: only images in this folder have labels; empty for all.
    """
    images = [name for name in source.images if name.startswith(folder)]
    find = _NameIndex(images, values)
    by_image = {image: label for name, label in values.items() if (image := find(name)) is not None}
    if values and images and not by_image:
        if distributed.is_main_process():
            logger.warning(
                "%s names none of the images, such as %r where the images have names such as %r: "
                "no image has a label",
                origin,
                next(iter(values)),
                images[0],
            )
        return None
    if find.folder and distributed.is_main_process():
        logger.info("%s: names are compared without their folder %r", origin, find.folder)
    named = {image: label for image, label in by_image.items() if label is not None}
    numeric = {name: label for name, label in named.items() if not isinstance(label, str)}
    if len(numeric) == len(named):
        return Labels(by_name=numeric)
    classes = sorted({str(label) for label in named.values()}, key=natural_key)
    numbers = {name: number for number, name in enumerate(classes)}
    by_name = {name: numbers[str(label)] for name, label in named.items()}
    return Labels(by_name=by_name, classes=tuple(classes))


class _NameIndex:
    """Looks up image names as a label file writes them; None if unknown or ambiguous.

    Args:
        images: names of the images.
        names: all names of the label file.

    Attributes:
        folder: of all names of the label file, if they are images only without it; else empty.
    """

    def __init__(self, images: Sequence[str], names: Iterable[str]) -> None:
        self._exact = frozenset(images)
        self._indexes = [(form, _index(images, form)) for form in (_normal, _folded)]
        self.folder = ""
        if not any(self(name) for name in names):
            self.folder = wrapping_folder([_normal(name) for name in names])

    def __call__(self, name: str) -> str | None:
        if name in self._exact:
            return name
        if self.folder:
            name = _normal(name).removeprefix(self.folder)
        for form, index in self._indexes:
            found = index.get(form(name), ())
            if len(found) == 1:
                return found[0]
        return None


def _index(images: Sequence[str], form: Callable[[str], str]) -> dict[str, list[str]]:
    """Return the images by their names, with and without wrapping folders."""
    prefixes = ["", *_folders_of(wrapping_folder(images))]
    index: dict[str, list[str]] = {}
    for image in images:
        for key in {form(image.removeprefix(prefix)) for prefix in prefixes}:
            index.setdefault(key, []).append(image)
    return index


def _normal(name: str) -> str:
    name = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    return posixpath.normpath(name).lstrip("/")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", _normal(name).casefold())


def _recorded_classes(source: AbstractSource, prefix: str) -> object:
    record = source.read_json(prefix + RECORD_NAME)
    return record.get("classes") if isinstance(record, dict) else None


def _texts(values: object) -> tuple[str, ...]:
    return tuple(map(str, values)) if isinstance(values, list) else ()


def _bad_labels(origin: str, problem: str) -> DataError:
    return DataError(f"{origin} has {problem}", expected=_LAYOUT)
