"""Sets larger than a disk: tar files in the WebDataset layout, read one after the other.

A folder, here or behind a URL, has the shards and `shards.json`, which says what is in them. Images
are shuffled as the shards are written, and within each shard and among the shards in each epoch.
A process reads whole shards, of which no other process reads one in that epoch.
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

from stylegan import images
from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import LabelTable
from stylegan.data.readers import Label, map_in_order, num_threads
from stylegan.errors import ConfigError, DataError
from stylegan.files import write_atomic, write_atomic_by
from stylegan.progress import Counter
from stylegan.rng import generator_for

logger = logging.getLogger(__name__)

INDEX_NAME = "shards.json"
VERSION = 1
MOST_LABELS = 65536
"""Labels in the index, from which those of generated images are drawn."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file.

    Attributes:
        name: of the file, beside the index.
        num: images in it.
        sha256: of the file, in hexadecimal.
    """

    name: str
    num: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """What `shards.json` says.

    Attributes:
        shards: in the order in which they were written.
        resolution: side of the images, in pixels.
        num_channels: 1 for grey images, 3 for RGB.
        labels: up to 65,536 labels, each as often as in the set; None where there are none.
    """

    shards: tuple[Shard, ...]
    resolution: int
    num_channels: int
    labels: tuple[Label, ...] | None = None


def write_shards(
    dataset: ImageDataset,
    folder: Path,
    *,
    shard_bytes: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Counter | None = None,
) -> Index:
    """Write the images of a set as shards, in random order; the index last.

    Args:
        dataset: not mirrored.
        folder: new or empty.
        shard_bytes: size of a shard, about; the last is smaller.
        seed: of the order.
        workers: threads that encode; None takes one per processor core.
        progress: called with the number of images written and their total.

    Raises:
        ConfigError: if the folder holds something.
        DataError: if an image cannot be read, or labels do not go together.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not an empty folder", expected="a new or an empty one", fix="name another"
        )
    labels = dataset.labels if dataset.label_table is not None else None
    stream = generator_for("shards", seed=seed)
    order = torch.randperm(len(dataset), generator=stream).tolist()
    encoded = map_in_order(
        lambda index: images.png_bytes(dataset[index]), order, workers=num_threads(workers)
    )
    shards: list[Shard] = []
    members: list[tuple[str, bytes]] = []
    size = num = 0
    for done, (index, data) in enumerate(zip(order, encoded, strict=True)):
        key = f"{index:09d}"
        members.append((f"{key}.png", data))
        if labels is not None:
            members.append((f"{key}.json", json.dumps(labels[index]).encode()))
        size, num = size + len(data), num + 1
        if size >= shard_bytes or done + 1 == len(order):
            shards.append(_write_shard(folder / f"shard-{len(shards):06d}.tar", members, num))
            members, size, num = [], 0, 0
        if progress is not None:
            progress(done + 1, len(order))
    index = Index(
        shards=tuple(shards),
        resolution=dataset.resolution,
        num_channels=dataset.num_channels,
        labels=None if labels is None else _sampled(labels, stream),
    )
    content = {"version": VERSION, **asdict(index)}
    write_atomic(folder / INDEX_NAME, json.dumps(content) + "\n")
    return index


def _write_shard(path: Path, members: Sequence[tuple[str, bytes]], num: int) -> Shard:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    content = buffer.getvalue()
    write_atomic_by(path, lambda file: file.write(content))
    return Shard(name=path.name, num=num, sha256=hashlib.sha256(content).hexdigest())


def _sampled(labels: Sequence[Label | None], stream: torch.Generator) -> tuple[Label, ...]:
    """Return all labels, or many at random and one of each class."""
    known = [label for label in labels if label is not None]
    if len(known) <= MOST_LABELS:
        return tuple(known)
    chosen = torch.randperm(len(known), generator=stream)[:MOST_LABELS].tolist()
    classes = sorted({label for label in known if isinstance(label, int)})
    return (*classes, *(known[index] for index in chosen))


def is_shards(path: str) -> bool:
    """Tell whether a path names shards: a folder with an index, or the URL of one."""
    return _is_url(path) or (Path(path) / INDEX_NAME).is_file()


class ShardSet:
    """A set in shards: what training needs to know of it; `data/shard_stream.py` reads the images.

    Args:
        path: the folder, or a URL of it or of its `shards.json`.
        resolution: side of the images that it gives; None for theirs. See `ImageDataset`.
        mirror: show each image flipped in half of the epochs, drawn for each image and epoch.

    Raises:
        ConfigError: if `webdataset` is not installed, or `resolution` is none of its own.
        DataError: if there is no index, or it is damaged.
    """

    def __init__(self, path: str, *, resolution: int | None = None, mirror: bool = False) -> None:
        webdataset_package()  # what lacks is told before anything is read
        base = path.removesuffix(INDEX_NAME).rstrip("/")
        content = _read_bytes(f"{base}/{INDEX_NAME}")
        self.index = _parsed(content, base)
        self.path = base
        self.fingerprint = hashlib.sha256(content).hexdigest()
        side = self.index.resolution
        self.resolution = resolution or side
        if side % self.resolution or self.resolution & (self.resolution - 1):
            raise ConfigError(
                f"--resolution {self.resolution} with shards of {side}x{side}",
                expected="theirs, or a smaller power of two",
                fix="leave it out",
            )
        self.is_mirrored = mirror
        labels = self.index.labels
        self.labels = labels
        names = [base] * len(labels or ())
        self.label_table = None if labels is None else LabelTable(labels, names)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.rpartition("/")[2]

    @property
    def num_channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return self.index.num_channels

    @property
    def label_dim(self) -> int:
        """Width of the labels as vectors, 0 for none."""
        return 0 if self.label_table is None else self.label_table.dim

    def __len__(self) -> int:
        """Return the number of images, mirrored ones included."""
        return sum(shard.num for shard in self.index.shards) * (2 if self.is_mirrored else 1)

    def preload(self, budget_bytes: int) -> bool:
        """Do nothing: shards are read as they come."""
        return False


def _parsed(content: bytes, base: str) -> Index:
    try:
        data = json.loads(content)
        if data.pop("version") != VERSION:
            raise ValueError("another version")
        shards = tuple(Shard(**shard) for shard in data.pop("shards"))
        labels = data.pop("labels")
        index = Index(
            shards=shards,
            labels=None
            if labels is None
            else tuple(tuple(label) if isinstance(label, list) else label for label in labels),
            **data,
        )
        # names go into addresses, which `webdataset` may hand to a shell
        is_sound = all(
            shard.name.removesuffix(".tar").replace("-", "").isalnum() and shard.num > 0
            for shard in shards
        )
        if not shards or not is_sound:
            raise ValueError("no shards")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{base}/{INDEX_NAME} cannot be read ({str(error)[:80]})",
            expected="the index of `stylegan data shard`",
            fix="make the shards anew",
        ) from error
    return index


def _read_bytes(address: str) -> bytes:
    try:
        with open_address(address) as file:
            content: bytes = file.read()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{address} cannot be read ({str(error)[:120]})",
            expected="the index of shards that `stylegan data shard` wrote",
            fix="check the address",
        ) from error
    return content


def _is_url(path: str) -> bool:
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.isalnum()


def open_address(address: str) -> Any:
    """Open a file for reading, by its path or its URL, as a context manager.

    URLs are opened as `webdataset` opens them, and `s3://` by the program `aws`.

    Raises:
        OSError: if it cannot be read; from a program, perhaps only while reading or at the end.
        ValueError: if there is nothing to open such URLs with.
    """
    if not _is_url(address):
        return Path(address).open("rb")
    webdataset = webdataset_package()
    scheme = address.partition("://")[0].lower()
    if scheme == "s3":
        from webdataset.gopen import Pipe

        return Pipe(["aws", "s3", "cp", "--only-show-errors", address, "-"], mode="rb")
    if scheme == "pipe":  # a shell would run what follows
        raise ValueError("an address runs no commands")
    return webdataset.gopen(address)


def webdataset_package() -> Any:
    """Import `webdataset`, of the extra [data].

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import webdataset
        import webdataset.tariterators
    except ImportError as error:
        raise ConfigError(
            "shards without the package webdataset",
            expected="the extra [data]",
            fix="pip install 'stylegan[data]'",
        ) from error
    return webdataset
