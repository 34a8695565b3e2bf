"""From images of any size and mode to a zip that can be trained on."""

import contextlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import PIL
from PIL import Image

from stylegan import __version__, images
from stylegan.data.check import require_power_of_two
from stylegan.data.readers import (
    LABELS_NAME,
    RECORD_NAME,
    AbstractSource,
    Color,
    Label,
    Mode,
    Progress,
    decode,
    final_mode,
    map_in_order,
    num_threads,
    open_image,
    open_source,
    parse_color,
)
from stylegan.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How images are made to fit.

    Attributes:
        resolution: side of the images, in pixels, a power of two from 4.
        crop: "center" takes the central square. "wide" takes central rows at full width, as the
            official tool does for LSUN Car, and centers the picture on a black square. "none"
            resizes the whole image to a square, which changes its aspect.
        wide_height: rows of the picture of crop "wide", in pixels; None is three quarters of
            the resolution.
        filter: for resizing.
        background: what shows through transparent pixels: a name, or #rrggbb.
        compress_level: of the PNG files: 0 is large and fast, 9 small and slow to make.
        labels_from: "json" carries over the labels of the source's `dataset.json`, if it has some;
            "folders" numbers the top folders by their sorted names. An image without a label
            among labelled ones cannot be used.
        on_bad: "skip" leaves out files that cannot be used, "fail" raises an error instead.

    Raises:
        ConfigError: if a value cannot work.
    """

    resolution: int
    crop: Literal["center", "wide", "none"] = "center"
    wide_height: int | None = None
    filter: Literal["lanczos", "box"] = "lanczos"
    background: str = "white"
    compress_level: int = 6
    labels_from: Literal["json", "folders"] = "json"
    on_bad: Literal["skip", "fail"] = "skip"

    def __post_init__(self) -> None:
        """Check the values."""
        require_power_of_two(self.resolution)
        parse_color(self.background)
        if not 0 <= self.compress_level <= 9:
            raise ConfigError(
                f"compress level {self.compress_level}", expected="0 to 9", fix="change it"
            )
        if self.wide_height is not None and not 1 <= self.wide_height <= self.resolution:
            raise ConfigError(
                f"wide height {self.wide_height}",
                expected=f"1 to the resolution {self.resolution}",
                fix="change it",
            )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        num_images: in the zip.
        num_enlarged: how many of them were smaller than the resolution before.
        mode: L if all are grey, else RGB.
        skipped: name and reason of each file that was left out.
        num_bytes: size of the zip.
    """

    num_images: int
    num_enlarged: int
    mode: Mode
    skipped: tuple[tuple[str, str], ...]
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Made:
    png: bytes
    size: tuple[int, int]
    mode: str
    steps: tuple[str, ...]
    is_enlarged: bool


def prepare(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    options: PrepareOptions,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Pack the images of a folder or a zip into a zip in the official layout.

    Beside the images and `dataset.json`, whose labels are carried over, the zip holds
    `prepare.json`, a record of how each image was made. The same images and options give the
    same bytes, whatever `workers` is. The zip appears under its name once it is whole. If any
    image has color, all are stored as RGB, else as L. Each skipped file is named in a warning.

    Source: the layout is the data set format of the official StyleGAN2-ADA implementation.

    Args:
        source: a folder (recursively) or a zip.
        destination: the zip to write.
        options: how images are made to fit.
        overwrite: replace `destination` if it exists.
        workers: number of threads; None takes one per processor core.
        progress: is told how many files are done, and of how many.

    Raises:
        ConfigError: if `destination` exists and `overwrite` is not set, or is not named `.zip`.
        DataError: if there is no usable image, the zip cannot be written, or, with
            on_bad="fail", a file cannot be used.
    """
    destination = Path(destination)
    if destination.suffix.lower() != ".zip":
        raise ConfigError(
            f"destination {destination}", expected="a name ending in .zip", fix="rename it"
        )
    if destination.exists() and not overwrite:
        raise ConfigError(
            f"{destination} exists",
            expected="a new file",
            fix="choose another name, or pass --overwrite",
        )
    opened = open_source(source)
    classes = sorted({name.split("/")[0] for name in opened.images if "/" in name})
    labels: Mapping[str, Label] | None
    names: dict[str, object] = {}  # of the places of labels that are lists
    if options.labels_from == "folders":
        labels = _labels_by_folder(opened.images, classes)
    else:
        classes, labels = [], opened.read_labels()
        content = opened.read_json(LABELS_NAME)
        if labels is not None and isinstance(content, dict) and "attributes" in content:
            names = {"attributes": content["attributes"]}
    mode = _mode_of_set(opened, background=parse_color(options.background))
    skipped = [(name, "not an image (by the name's ending)") for name in opened.strangers]
    if skipped and options.on_bad == "fail":
        raise _refusal(*skipped[0])

    def make(name: str) -> _Made | str:
        if labels is not None and name not in labels:
            return "no label"
        try:
            return _make(opened.read(name), options=options, mode=mode)
        except DataError as error:
            return error.found

    records: list[dict[str, object]] = []
    new_labels: list[tuple[str, Label]] = []
    num_enlarged = 0
    with _zip_in_place(destination) as archive:
        made = map_in_order(make, opened.images, workers=num_threads(workers))
        for num_done, (name, result) in enumerate(zip(opened.images, made, strict=True), 1):
            if isinstance(result, str):
                if options.on_bad == "fail":
                    raise _refusal(name, result)
                skipped.append((name, result))
            else:
                new_name = f"{len(records) // 1000:05d}/img{len(records):08d}.png"
                _add(archive, new_name, result.png)
                num_enlarged += result.is_enlarged
                records.append(
                    {
                        "name": new_name,
                        "source": name,
                        "size": result.size,
                        "mode": result.mode,
                        "steps": result.steps,
                        "crc32": f"{zlib.crc32(result.png):08x}",
                    }
                )
                if labels is not None:
                    new_labels.append((new_name, labels[name]))
            if progress is not None:
                progress(num_done, len(opened.images))
        skipped.sort()
        for name, reason in skipped:
            logger.warning("skipped %s: %s", name, reason)
        if not records:
            raise DataError(
                f"no usable image among the {len(skipped)} files of {opened.path}",
                expected="at least one image",
                fix="check the path",
            )
        if num_enlarged:
            logger.warning("%d images were below the resolution: enlarged", num_enlarged)
        new_content = {"labels": new_labels if labels is not None else None, **names}
        _add(archive, LABELS_NAME, _json(new_content))
        record: dict[str, object] = {
            "made_by": f"stylegan {__version__}",
            "pillow": PIL.__version__,
            "source": opened.path.resolve().name,
            "options": asdict(options),
            "mode": mode,
            "classes": classes,
            "images": records,
            "skipped": [{"source": name, "reason": reason} for name, reason in skipped],
        }
        _add(archive, RECORD_NAME, _json(record))
    return Prepared(
        num_images=len(records),
        num_enlarged=num_enlarged,
        mode=mode,
        skipped=tuple(skipped),
        num_bytes=destination.stat().st_size,
    )


def fit(image: Image.Image, *, options: PrepareOptions) -> tuple[Image.Image, tuple[str, ...]]:
    """Crop and resize an L or RGB image to a square of `options.resolution` pixels.

    Returns:
        The image, and what was done to it.

    Raises:
        DataError: if the image is too small for crop "wide"; `found` is the reason.
    """
    side, steps = options.resolution, []
    box = _crop_box(image.size, options=options)
    if box != (0, 0, *image.size):
        image = image.crop(box)
        steps.append("cropped to {2}x{3} at ({0}, {1})".format(*_corner_and_size(box)))
    height = _picture_height(options)
    if image.size != (side, height):
        steps.append(f"resized {image.width}x{image.height} to {side}x{height} ({options.filter})")
        image = image.resize((side, height), _FILTERS[options.filter])
    if height != side:
        canvas = Image.new(image.mode, (side, side))
        canvas.paste(image, (0, (side - height) // 2))
        image = canvas
        steps.append(f"centered on a black {side}x{side} square")
    return image, tuple(steps)


def _make(data: bytes, *, options: PrepareOptions, mode: Mode) -> _Made:
    decoded = decode(data, background=parse_color(options.background))
    image, steps = fit(decoded.image, options=options)
    if image.mode != mode:
        image = image.convert(mode)
        steps = (*steps, "converted grey to RGB")
    left, top, right, bottom = _crop_box(decoded.image.size, options=options)
    is_enlarged = right - left < options.resolution or bottom - top < _picture_height(options)
    return _Made(
        png=images.png_bytes(images.from_pil(image), compress_level=options.compress_level),
        size=decoded.size,
        mode=decoded.mode,
        steps=(*decoded.steps, *steps),
        is_enlarged=is_enlarged,
    )


def _picture_height(options: PrepareOptions) -> int:
    if options.crop != "wide":
        return options.resolution
    return options.wide_height or options.resolution * 3 // 4


def _crop_box(size: tuple[int, int], *, options: PrepareOptions) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the part that is kept, in pixels."""
    width, height = size
    if options.crop == "none":
        return 0, 0, width, height
    if options.crop == "center":
        side = min(size)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side
    # The official rule: as many rows as the image has once its width is the target's, but taken
    # at full width. So the aspect changes, unless width and height are the target's already.
    num_rows = round(options.resolution * height / width)
    if width < options.resolution or num_rows < _picture_height(options):
        raise DataError(
            f"wrong size {width}x{height} (too small for crop wide)",
            expected=f"a width of {options.resolution}, and the height in proportion",
            fix="choose another crop or a lower resolution",
        )
    top = (height - num_rows) // 2
    return 0, top, width, top + num_rows


def _corner_and_size(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    return left, top, right - left, bottom - top


def _mode_of_set(source: AbstractSource, *, background: Color) -> Mode:
    """Return RGB as soon as one header tells of color; mostly that is the first."""
    for name in source.images:
        try:
            if final_mode(open_image(source.read(name)), background=background) == "RGB":
                return "RGB"
        except DataError:
            continue  # `make` meets it again, and reports it
    return "L"


def _labels_by_folder(names: Sequence[str], classes: Sequence[str]) -> Mapping[str, Label]:
    numbers = {name: number for number, name in enumerate(classes)}
    return {name: numbers[name.split("/")[0]] for name in names if "/" in name}


@contextlib.contextmanager
def _zip_in_place(path: Path) -> Iterator[zipfile.ZipFile]:
    """Write a zip that takes the name `path` once it is whole, or leaves nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                yield archive
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror})",
            expected="a writable place with room",
            fix="choose another destination",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.create_system = 3  # Unix on every system, so that the bytes are the same
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


def _json(content: dict[str, object]) -> bytes:
    """Encode an object; a list of objects, or of lists, takes a line for each."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _refusal(name: str, reason: str) -> DataError:
    return DataError(
        f"{name}: {reason}",
        expected="usable images only",
        fix="repair or remove it, or skip such files by --on-bad skip",
    )
