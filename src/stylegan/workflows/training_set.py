"""The images of a run: opened, and prepared first if they are of different sizes."""

import contextlib
import hashlib
import logging
import shlex
import tempfile
from pathlib import Path
from typing import Any

from stylegan.data.check import (
    MAX_LEFT_OUT,
    Entry,
    examine,
    listing_digest,
    read_record,
    select,
    suggested_resolution,
)
from stylegan.data.dataset import ImageDataset
from stylegan.data.label_files import labels_by_folder, read_labels
from stylegan.data.prepare import PrepareOptions, prepare
from stylegan.data.readers import Reading
from stylegan.data.shards import ShardSet, is_shards
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.open import open_source
from stylegan.image_size import ImageSize, Resolution
from stylegan.progress import Progress, counter
from stylegan.training.config import DataConfig

logger = logging.getLogger(__name__)


def open_training_set(
    data: DataConfig,
    *,
    resolution: Resolution | None,
    run_dir: Path,
    keeps_file: bool = True,
    progress: Progress | None = None,
) -> ImageDataset | ShardSet:
    """Open the images of a run.

    If more than `MAX_LEFT_OUT` of the images have another size or mode than the others, the set is
    prepared: cropped centrally to the proportions of the resolution, which are those of a square by
    default, resized, and written as a zip beside the run's folder.
    The next call finds the zip, until a file of the set changes. Class folders become labels if the
    run learns labels and `dataset.json` has none.

    Args:
        data: options of the run. With `on_bad="skip"`, sets are used as they are.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH". None: that of the images, or
            the side of their median.
        run_dir: folder of the run.
        keeps_file: False removes the zip at once, as after a dry run.
        progress: called while images are read.

    Raises:
        ConfigError: if no network has this resolution.
        DataError: if there is no usable image, or too many are left out.
    """
    if is_shards(data.path):
        return ShardSet(data.path, resolution=resolution, mirror=data.mirror)
    source = open_source(data.path)
    reading = data.reading
    options: dict[str, Any] = {
        "mirror": data.mirror,
        "on_bad": data.on_bad,
        "reading": reading,
    }
    if read_record(source) is not None or data.on_bad == "skip":
        count = counter(progress, "reading images")
        return ImageDataset(data.path, resolution=resolution, progress=count, **options)
    stem, digest = source.path.resolve().stem, listing_digest(source)[:8]
    labels_from = "folders" if data.labels and _has_class_folders_only(source) else None
    shown = "median" if resolution is None else str(ImageSize.of(resolution).stored)
    words = [stem, shown, digest, *([labels_from] if labels_from else [])]
    if reading != Reading():
        words.append(hashlib.sha256(repr(reading).encode()).hexdigest()[:8])
    path = run_dir.parent / f"{'-'.join(words)}.zip"
    if path.exists():
        return ImageDataset(path, resolution=resolution, **options)
    entries = examine(source, reading=reading, progress=counter(progress, "reading images"))
    if labels_from is None and not _needs_preparation(source, entries, resolution):
        return ImageDataset(data.path, resolution=resolution, entries=entries, **options)
    size = ImageSize.of(suggested_resolution(entries) if resolution is None else resolution)
    with contextlib.ExitStack() as stack:
        if not keeps_file:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
        made = prepare(
            source.path,
            path,
            options=PrepareOptions(
                resolution=size.stored,
                labels_from=labels_from,
                on_bad=data.on_bad,
                background=data.background,
                range=data.range,
                alpha=data.alpha,
                depth=data.depth,
            ),
            progress=counter(progress, "preparing images"),
        )
        num_sizes = len({entry.size for entry in entries if entry.reason is None})
        logger.info(
            "prepared %d images of %d sizes: the %s, at %s, in %s; for another crop: stylegan "
            "data prepare %s SET.zip --resolution %s --crop pad",
            made.num_images,
            num_sizes,
            "central squares" if size.is_square else "centers",
            size,
            path,
            shlex.quote(data.path),
            size.stored,
        )
        return ImageDataset(path, resolution=resolution, **options)


def _needs_preparation(
    source: AbstractSource, entries: tuple[Entry, ...], resolution: Resolution | None
) -> bool:
    """Return whether too many images that can be decoded would be left out."""
    num_decodable = sum(entry.reason is None for entry in entries)
    num_usable = len(select(source, entries, resolution=resolution).usable)
    return num_decodable - num_usable > MAX_LEFT_OUT * num_decodable


def _has_class_folders_only(source: AbstractSource) -> bool:
    return read_labels(source) is None and len(labels_by_folder(source).classes) > 1
