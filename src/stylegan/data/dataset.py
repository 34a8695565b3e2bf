"""Random access to the images and labels of a training set."""

import copy
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan import distributed
from stylegan.data.array_files import flipped, reduce
from stylegan.data.check import (
    Entry,
    OnBad,
    Selection,
    check_left_out,
    check_num_unreadable,
    examine,
    fingerprint,
    formats_of,
    group_by_reason,
    preparation,
    select,
    verify_checksums,
)
from stylegan.data.label_files import read_labels
from stylegan.data.labels import Label, LabelTable
from stylegan.data.readers import Reading, map_in_order, num_threads, read_pixels
from stylegan.data.sources.base import AbstractSource
from stylegan.data.sources.open import open_source
from stylegan.errors import ConfigError, DataError, command_line
from stylegan.image_size import ImageSize, Resolution
from stylegan.pixel_format import PixelFormat
from stylegan.progress import Counter
from stylegan.rng import generator_for

logger = logging.getLogger(__name__)


class ImageDataset(Dataset[Tensor]):
    """The images of a folder, searched recursively, of a zip in the official layout, and others.

    Every image is decoded once at construction, so the list of usable images is fixed from then on.
    A zip that `stylegan data prepare` made opens without decoding, as its record lists the images.
    Each file that is left out is named in a warning.

    Images are sorted by name. EXIF rotation is applied, and grey images of a color set are
    converted to RGB. Transparency is kept if at least half of the images have it, and else composed
    on white. Objects are pickled without their cache.

    Args:
        path: a folder, a zip, or another source of `stylegan.data.sources.open.open_source`.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH". Larger images, by a power of
            two, are reduced with a box filter and rounded once. None: the images' own size.
        mirror: double the set; the second half is the first, flipped horizontally.
        on_bad: "skip" leaves out files that cannot be used, "limit" up to a tenth of the images,
            "fail" none.
        reading: how files become pixels; None for the defaults.
        entries: what `examine` returned, if the images have been examined.
        workers: threads that decode at construction; None uses one per processor core.
        progress: called with the number of images decoded and their total.

    Raises:
        ConfigError: if no network has this resolution.
        DataError: if there is no usable image, or more files cannot be used than `on_bad` allows.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resolution: Resolution | ImageSize | None = None,
        mirror: bool = False,
        on_bad: OnBad = "skip",
        reading: Reading | None = None,
        entries: tuple[Entry, ...] | None = None,
        workers: int | None = None,
        progress: Counter | None = None,
    ) -> None:
        self._source = open_source(path)
        if entries is None:
            entries = examine(self._source, reading=reading, workers=workers, progress=progress)
        selection = select(self._source, entries, reading=reading, resolution=resolution)
        _report(self._source, selection, on_bad=on_bad, reading=reading or Reading())
        self._entries = selection.usable
        self._bad = selection.bad
        self._pixels = selection.pixels
        self._reading = reading or Reading()
        # A prepared set states range and alpha itself.
        if self._pixels.depth == "float32":
            self._reading = replace(self._reading, range=self._pixels.range)
        if self._pixels.num_channels == 4 and not self._pixels.has_alpha:
            self._reading = replace(self._reading, alpha="none")
        assert selection.size is not None  # `_report` raises if no image is usable
        self._stored_size = selection.size
        self._size = selection.size if resolution is None else ImageSize.of(resolution)
        self._mirror = mirror
        labels = read_labels(self._source)
        by_name = None if labels is None else labels.by_name
        self._class_names = () if labels is None else labels.classes
        self._labels = _aligned(by_name, self._entries)
        self._fingerprint = fingerprint(self._entries, by_name)
        self._cache: Tensor | None = None
        self._table: LabelTable | None = None
        self._replacements: dict[int, int] = {}  # of images that cannot be read any more
        self._unreadable: dict[str, None] = {}  # errors, in their order
        if distributed.is_main_process():
            damaged = verify_checksums(self._source, progress=progress)
            for problem in damaged:
                self.add_unreadable(problem)
            if damaged:
                check_num_unreadable(
                    len(damaged), len(self._entries), path=self.path, reason=damaged[0]
                )

    @property
    def name(self) -> str:
        """Name of the folder, or of the zip without its ending."""
        return Path(self._source.path).resolve().stem

    @property
    def size(self) -> ImageSize:
        """Height and width of the images."""
        return self._size

    @property
    def resolution(self) -> Resolution:
        """Side of the images in pixels, or "HEIGHTxWIDTH" if they are not square."""
        return self._size.stored

    @property
    def is_mirrored(self) -> bool:
        """Whether the second half of the set is the first, flipped horizontally."""
        return self._mirror

    @property
    def num_channels(self) -> int:
        """1 for a grey set, 3 for a color set, 4 with alpha; others have any number."""
        return self._pixels.num_channels

    @property
    def pixels(self) -> PixelFormat:
        """The format of the images."""
        return self._pixels

    @property
    def image_names(self) -> tuple[str, ...]:
        """File names in the set's order, without the mirrored half."""
        return tuple(entry.name for entry in self._entries)

    @property
    def bad(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each file that was left out."""
        return self._bad

    @property
    def labels(self) -> tuple[Label | None, ...] | None:
        """The label of each of `image_names` from `dataset.json`; None if there are no labels.

        The label of an image that is missing there is None.
        """
        return self._labels

    @property
    def label_table(self) -> LabelTable | None:
        """The labels as vectors, created on first use; None if there are no labels.

        Raises:
            DataError: if an image has no label, or labels are inconsistent.
        """
        if self._table is None and self._labels is not None:
            self._table = LabelTable(self._labels, self.image_names)
        return self._table

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by number; empty if there are no classes or names."""
        return self._class_names

    @property
    def label_dim(self) -> int:
        """Width of the labels as vectors, 0 without labels. Raises as `label_table` does."""
        return 0 if self.label_table is None else self.label_table.dim

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes, checksums and labels of the images, in hexadecimal.

        It is the same for a folder and a zip of the same images, anywhere, and does not depend on
        `resolution` and `mirror`.
        """
        return self._fingerprint

    @property
    def path(self) -> str:
        """The folder or zip."""
        return str(self._source.path)

    @property
    def formats(self) -> dict[str, int]:
        """Number of images in each file format, the most common first."""
        return formats_of(self._entries)

    @property
    def preparation(self) -> dict[str, object] | None:
        """Crop, filter and background used by `stylegan data prepare`; None for other sets."""
        return preparation(self._source)

    def without_mirror(self) -> "ImageDataset":
        """Return the same set without mirrored images. It shares the cache."""
        plain = copy.copy(self)  # without the cache, see `__getstate__`
        plain._cache = self._cache
        plain._mirror = False
        return plain

    def split(self, fraction: float, *, seed: int) -> tuple["ImageDataset", "ImageDataset"]:
        """Split the set at random into a training set and a held-out set.

        The held-out set is not mirrored. Both have the fingerprint and the label width of the
        whole set.

        Args:
            fraction: of the images that are held out, above 0 and below 1.
            seed: of the choice.

        Raises:
            ConfigError: if either would have no image.
        """
        num = len(self._entries)
        num_held_out = round(fraction * num)
        if not 0 < num_held_out < num:
            raise ConfigError(
                f"holding out a fraction of {fraction:g} of {num} images leaves one side without "
                "images"
            )
        order = torch.randperm(num, generator=generator_for("holdout", seed=seed)).tolist()
        held_out = self.without_mirror()._subset(order[:num_held_out])
        return self._subset(order[num_held_out:]), held_out

    def _subset(self, indices: Sequence[int]) -> "ImageDataset":
        """Return some images, in the order of the set."""
        indices = sorted(indices)
        part = copy.copy(self)
        part._entries = tuple(self._entries[index] for index in indices)
        if self._labels is not None:
            part._labels = tuple(self._labels[index] for index in indices)
            part._table = None if self.label_table is None else self.label_table.subset(indices)
        part._cache = None if self._cache is None else self._cache[indices]
        part._replacements = {}
        return part

    @property
    def is_cached(self) -> bool:
        """Whether `preload` has decoded the set into memory."""
        return self._cache is not None

    def __len__(self) -> int:
        """Return the number of images, mirrored ones included."""
        return len(self._entries) * (2 if self._mirror else 1)

    def __getitem__(self, index: int) -> Tensor:
        """Return an image as it is stored, [C, H, W] in the type of `pixels`.

        Raises:
            IndexError: if there is no such image.
            DataError: if the file has changed since construction and cannot be used.
        """
        return self._image(index, decode=self._decode)

    @property
    def view(self) -> str | None:
        """How feature networks see the images, as of `PixelFormat.view`."""
        return self._pixels.view

    def seen(self, index: int) -> Tensor:
        """Return an image as feature networks see it, uint8 [C, H, W], C 1 or 3.

        Raises:
            IndexError, DataError: as `__getitem__`.
        """
        return self._pixels.seen_stored(self[index])

    def gather(
        self, indices: Sequence[int], *, resolution: Resolution | ImageSize | None = None
    ) -> Tensor:
        """Return images as they are stored, [N, C, H, W] in the type of `pixels`.

        In place of an image that cannot be read any more, the next one is taken, with a warning on
        rank 0 for each such image.

        Args:
            indices: of the images.
            resolution: height and width. Below those of the set, images are reduced with a box
                filter and rounded once. None: those of the set.

        Raises:
            IndexError: if there is no such image.
            DataError: if more than `MAX_UNREADABLE` of the images cannot be read any more.
        """
        factor = 1
        if resolution is not None:
            factor = self._size.height // ImageSize.of(resolution).height
        # one by one, as a large batch needs much more memory at full size
        has_alpha = self._pixels.has_alpha
        return torch.stack(
            [reduce(self._image(index), factor, has_alpha=has_alpha) for index in indices]
        )

    def gather_labels(self, indices: Sequence[int]) -> Tensor:
        """Return the labels of images by their indices, float32 [N, label_dim].

        Raises:
            DataError: as `label_table`.
            ValueError: if the set has no labels.
        """
        if self.label_table is None:
            raise ValueError(f"{self._source.path} has no labels")
        num = len(self._entries)
        own = [self._replacements.get(index % num, index % num) for index in indices]
        return self.label_table.gather(torch.tensor(own))

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Errors of the images that cannot be read any more, in the order of their detection."""
        return tuple(self._unreadable)

    def add_unreadable(self, problem: str) -> None:
        """Warn of an image that cannot be read any more, once, on rank 0.

        Nothing is logged in a worker of torch's loader, whose main process calls this as well.
        """
        if problem in self._unreadable:
            return
        self._unreadable[problem] = None
        if torch.utils.data.get_worker_info() is None and distributed.is_main_process():
            logger.warning("%s; the next image is used in its place", problem)

    def preload(
        self, budget_bytes: int, workers: int | None = None, *, progress: Counter | None = None
    ) -> bool:
        """Decode the whole set into memory if it fits, and return whether it does.

        Args:
            budget_bytes: memory that the decoded images may take.
            workers: threads; None uses one per processor core.
            progress: called with the number of images decoded and their total.

        Raises:
            DataError: if more than `MAX_UNREADABLE` of the images cannot be read any more.
        """
        shape = (len(self._entries), self.num_channels, self._size.height, self._size.width)
        num_bytes = torch.Size(shape).numel() * self._pixels.dtype.itemsize
        if num_bytes > budget_bytes:
            logger.info(
                "%.1f MiB of decoded images exceed the budget of %.1f MiB: reading from disk",
                num_bytes / 2**20,
                budget_bytes / 2**20,
            )
            return False
        if self._cache is None:
            cache = torch.empty(shape, dtype=self._pixels.dtype)
            decoded = map_in_order(
                self._decode_or_next, range(len(self._entries)), workers=num_threads(workers)
            )
            for index, image in enumerate(decoded):
                cache[index] = image
                if progress is not None:
                    progress(index + 1, len(self._entries))
            self._cache = cache
            logger.info("%d images cached, %.1f MiB", len(self._entries), num_bytes / 2**20)
        return True

    def __getstate__(self) -> dict[str, object]:
        """Leave out the cache, to keep pickles small."""
        return self.__dict__ | {"_cache": None}

    def _image(self, index: int, decode: Callable[[int], Tensor] | None = None) -> Tensor:
        """Return an image from the cache, or by a function that decodes it."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        is_flipped, index = divmod(index, len(self._entries))
        decode = decode or self._decode_or_next
        image = decode(index) if self._cache is None else self._cache[index]
        return flipped(image) if is_flipped else image

    def _decode_or_next(self, index: int) -> Tensor:
        """Decode an image, or the next one that can be read."""
        while True:
            readable = self._replacements.get(index, index)
            try:
                return self._decode(readable)
            except DataError as error:
                self.add_unreadable(str(error))
                following = (readable + 1) % len(self._entries)
                self._replacements |= {readable: following, index: following}
                check_num_unreadable(
                    len(self._replacements), len(self._entries), path=self.path, reason=str(error)
                )

    def _decode(self, index: int) -> Tensor:
        name = self._entries[index].name
        try:
            stored = read_pixels(self._source.read(name), self._pixels, self._reading)
            size = ImageSize(stored.shape[1], stored.shape[2])
            if size != self._stored_size:
                before = self._stored_size
                raise DataError(
                    f"the size is {size.width}x{size.height} now, and was "
                    f"{before.width}x{before.height} when the set was opened"
                )
        except DataError as error:
            raise error.at(f"{name} in {self._source.path}") from error
        factor = self._stored_size.height // self._size.height
        return reduce(stored, factor, has_alpha=self._pixels.has_alpha)


def _report(
    source: AbstractSource, selection: Selection, *, on_bad: OnBad, reading: Reading
) -> None:
    """Warn of the files that are left out; raise if `on_bad` does not allow as many."""
    num_usable = len(selection.usable)
    if on_bad == "fail":
        check_left_out(source, selection.bad, num_usable=num_usable, on_bad=on_bad)
    for line in group_by_reason(selection.bad) if distributed.is_main_process() else ():
        logger.warning("%s", line)
    if selection.bad and distributed.is_main_process():
        logger.warning(
            "skipped %d files; %d images left", len(selection.bad), len(selection.usable)
        )
    check_left_out(source, selection.bad, num_usable=num_usable, on_bad=on_bad)
    if not selection.usable:
        raise DataError(
            f"{source.path} has no usable image among {len(selection.bad)} files; images must be "
            "of one size: the resolution or that times a power of two, by default square",
            fix=f"see {command_line('data', 'check', source.path)}, or run `stylegan data prepare`",
        )
    if not distributed.is_main_process():
        return
    pixels = selection.pixels
    num_grey = sum(entry.pixels.num_channels == 1 for entry in selection.usable)
    if pixels.num_channels in (3, 4) and num_grey:
        logger.warning("%d grey images in a color set: converted to RGB", num_grey)
    num_transparent = sum(entry.pixels.has_alpha for entry in selection.usable)
    if num_transparent and not pixels.has_alpha and reading.background is None:
        logger.warning(
            "composed %d of %d images on white: the others have no transparency",
            num_transparent,
            len(selection.usable),
        )
    if num_clipped := sum(entry.is_clipped for entry in selection.usable):
        logger.warning(
            "%d images have values outside the range %g to %g: clipped", num_clipped, *pixels.range
        )


def _aligned(
    by_name: Mapping[str, Label] | None, entries: tuple[Entry, ...]
) -> tuple[Label | None, ...] | None:
    """Return the labels in the order of the images."""
    if by_name is None:
        return None
    labels = tuple(by_name.get(entry.name) for entry in entries)
    num_missing = labels.count(None)
    if num_missing and distributed.is_main_process():
        logger.warning("%d of %d images have no label", num_missing, len(labels))
    return labels
