"""Image sets in shards: tar files in the WebDataset layout, each read sequentially.

A folder, local or behind a URL, holds the shards and `shards.json`, their index. Images are
shuffled when the shards are written, and in each epoch the shards, and the images of each shard,
are shuffled again. In an epoch each shard is read by one rank only.
"""

import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from stylegan import download
from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import Label, LabelTable
from stylegan.data.readers import map_in_order, num_threads
from stylegan.errors import ConfigError, DataError
from stylegan.files import write_atomic
from stylegan.image_size import ImageSize, Resolution
from stylegan.pixel_format import PixelFormat
from stylegan.progress import Counter
from stylegan.rng import generator_for

logger = logging.getLogger(__name__)

INDEX_NAME = "shards.json"
VERSION = 1
MAX_LABELS = 65536
"""Number of labels in the index, from which labels of generated images are drawn."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file.

    Attributes:
        name: of the file, in the folder of the index.
        num: number of images.
        sha256: of the file, in hexadecimal.
    """

    name: str
    num: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """The content of `shards.json`.

    Attributes:
        shards: in the order in which they were written.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH".
        num_channels: of the images.
        pixels: format of the images, as of `PixelFormat.to_json`; None for grey or RGB of 8 bits.
        labels: up to 65,536 labels, drawn from those of the set; None for a set without labels.
        classes: the names of the classes, by number.
    """

    shards: tuple[Shard, ...]
    resolution: Resolution
    num_channels: int
    pixels: dict[str, Any] | None = None
    labels: tuple[Label, ...] | None = None
    classes: tuple[str, ...] = ()

    @property
    def size(self) -> ImageSize:
        """Height and width of the images."""
        return ImageSize.of(self.resolution)

    @property
    def pixel_format(self) -> PixelFormat:
        """The format of the images."""
        if self.pixels is None:
            return PixelFormat(num_channels=self.num_channels)
        return PixelFormat.from_json(self.pixels)


def write_shards(
    dataset: ImageDataset,
    folder: Path,
    *,
    shard_bytes: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Counter | None = None,
) -> Index:
    """Write the images of a set as shards, in random order, and then the index.

    Args:
        dataset: not mirrored.
        folder: new or empty.
        shard_bytes: approximate size of a shard; the last one is smaller.
        seed: of the order.
        workers: threads that encode; None uses one per processor core.
        progress: called with the number of images written and their total.

    Raises:
        ConfigError: if the folder is not empty.
        DataError: if an image cannot be read, or labels are inconsistent.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder; name a new one")
    labels = dataset.labels if dataset.label_table is not None else None
    generator = generator_for("shards", seed=seed)
    order = torch.randperm(len(dataset), generator=generator).tolist()
    pixels = dataset.pixels
    encoded = map_in_order(
        lambda index: pixels.file_bytes(dataset[index]), order, workers=num_threads(workers)
    )
    shards: list[Shard] = []
    members: list[tuple[str, bytes]] = []
    size = num = 0
    for num_done, (index, content) in enumerate(zip(order, encoded, strict=True), 1):
        key = f"{index:09d}"
        members.append((f"{key}{pixels.suffix}", content))
        if labels is not None:
            members.append((f"{key}.json", json.dumps(labels[index]).encode()))
        size, num = size + len(content), num + 1
        if size >= shard_bytes or num_done == len(order):
            shards.append(_write_shard(folder / f"shard-{len(shards):06d}.tar", members, num))
            members, size, num = [], 0, 0
        if progress is not None:
            progress(num_done, len(order))
    written = Index(
        shards=tuple(shards),
        resolution=dataset.resolution,
        num_channels=dataset.num_channels,
        pixels=None if pixels.is_plain else pixels.to_json(),
        labels=None if labels is None else _sample_labels(labels, generator),
        classes=dataset.class_names,
    )
    record = {"version": VERSION, **asdict(written)}
    if written.pixels is None:
        del record["pixels"]  # which version 0.2 does not take
    write_atomic(folder / INDEX_NAME, json.dumps(record) + "\n")
    return written


def _write_shard(path: Path, members: Sequence[tuple[str, bytes]], num: int) -> Shard:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    content = buffer.getvalue()
    write_atomic(path, content)
    return Shard(name=path.name, num=num, sha256=hashlib.sha256(content).hexdigest())


def _sample_labels(labels: Sequence[Label | None], generator: torch.Generator) -> tuple[Label, ...]:
    """Return all labels; if there are too many, each class once and a random sample."""
    known = [label for label in labels if label is not None]
    if len(known) <= MAX_LABELS:
        return tuple(known)
    chosen = torch.randperm(len(known), generator=generator)[:MAX_LABELS].tolist()
    classes = sorted({label for label in known if isinstance(label, int)})
    return (*classes, *(known[index] for index in chosen))


def is_shards(path: str) -> bool:
    """Return whether a path names shards: a folder with an index, or a URL."""
    return download.is_url(path) or (Path(path) / INDEX_NAME).is_file()


class ShardSet:
    """A set in shards; `data.shard_stream` reads its images.

    Args:
        path: the folder, or a URL of the folder or of its `shards.json`.
        resolution: size of the images: their own, or that divided by a power of two; None: their
            own. See `ImageDataset`.
        mirror: flip each image in half of the epochs, drawn for each image and epoch.

    Raises:
        ConfigError: if the images do not have that resolution.
        DataError: if the index cannot be read.
    """

    def __init__(
        self,
        path: str,
        *,
        resolution: Resolution | ImageSize | None = None,
        mirror: bool = False,
    ) -> None:
        base = path.removesuffix(INDEX_NAME).rstrip("/")
        content = read_address(f"{base}/{INDEX_NAME}")
        self.index = _parse_index(content, base)
        self.path = base
        self.fingerprint = hashlib.sha256(content).hexdigest()
        own = self.index.size
        self.size = own if resolution is None else ImageSize.of(resolution)
        if own.factor_to(self.size) is None:
            raise ConfigError(
                f"--resolution must be {own.stored}, as the shards have, or that divided by a "
                f"power of two, got {self.size.stored}"
            )
        self.is_mirrored = mirror
        self.labels = labels = self.index.labels
        names = [base] * len(labels or ())
        self.label_table = None if labels is None else LabelTable(labels, names)

    @property
    def resolution(self) -> Resolution:
        """Side of the images in pixels, or "HEIGHTxWIDTH" if they are not square."""
        return self.size.stored

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.rpartition("/")[2]

    @property
    def num_channels(self) -> int:
        """Number of channels of the images."""
        return self.index.num_channels

    @property
    def pixels(self) -> PixelFormat:
        """The format of the images."""
        return self.index.pixel_format

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by number; empty if there are no classes or names."""
        return self.index.classes

    @property
    def label_dim(self) -> int:
        """Width of the labels as vectors; 0 for a set without labels."""
        return 0 if self.label_table is None else self.label_table.dim

    def __len__(self) -> int:
        """Return the number of images, mirrored ones included."""
        return sum(shard.num for shard in self.index.shards) * (2 if self.is_mirrored else 1)

    def preload(self, budget_bytes: int) -> bool:
        """Return False, as shards are never held in memory completely."""
        return False


def _parse_index(content: bytes, base: str) -> Index:
    try:
        data = json.loads(content)
        if data.pop("version") != VERSION:
            raise ValueError("another version")
        shards = tuple(Shard(**shard) for shard in data.pop("shards"))
        labels = data.pop("labels")
        index = Index(
            shards=shards,
            classes=tuple(map(str, data.pop("classes", []))),
            labels=None
            if labels is None
            else tuple(tuple(label) if isinstance(label, list) else label for label in labels),
            **data,
        )
        if index.pixel_format.num_channels != index.num_channels:
            raise ValueError("another number of channels")
        # Names become parts of paths and URLs, so they must not lead out of the folder.
        is_valid = all(
            shard.name.removesuffix(".tar").replace("-", "").isalnum() and shard.num > 0
            for shard in shards
        )
        if not shards or not is_valid:
            raise ValueError("no shards")
        ImageSize.of(index.resolution)
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{base}/{INDEX_NAME} cannot be read ({str(error)[:80]})",
            fix="write the shards again with `stylegan data shard`",
        ) from error
    return index


def read_address(address: str) -> bytes:
    """Return the content of a file, by its path or its URL.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        if download.is_url(address):
            return download.read_url(address)
        return Path(address).read_bytes()
    except OSError as error:
        raise DataError(f"{address} cannot be read ({str(error)[:200]})") from error
