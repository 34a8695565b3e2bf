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
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from stylegan import images
from stylegan.data.dataset import ImageDataset, reduce
from stylegan.data.labels import LabelTable
from stylegan.data.loader import Batch
from stylegan.data.readers import Label, Progress, decode, map_in_order, num_threads
from stylegan.errors import ConfigError, DataError
from stylegan.files import write_atomic, write_atomic_by
from stylegan.parts import Part
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
    progress: Progress | None = None,
) -> Index:
    """Write the images of a set as shards, in random order; the index last.

    Args:
        dataset: not mirrored.
        folder: new or empty.
        shard_bytes: size of a shard, about; the last is smaller.
        seed: of the order.
        workers: threads that encode; None takes one per processor core.
        progress: is told how many images are written, and of how many.

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
    """A set in shards: what training needs to know of it; `ShardStream` reads the images.

    Args:
        path: the folder, or a URL of it or of its `shards.json`.
        resolution: side of the images that it gives; None for theirs. See `ImageDataset`.
        mirror: show each image flipped in half of the epochs, drawn for each image and epoch.

    Raises:
        ConfigError: if `webdataset` is not installed, or `resolution` is none of its own.
        DataError: if there is no index, or it is damaged.
    """

    def __init__(self, path: str, *, resolution: int | None = None, mirror: bool = False) -> None:
        _webdataset()  # what lacks is told before anything is read
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


class ShardStream:
    """Batches of a run out of shards; see `data/loader.py`'s `Stream`, whose interface it has.

    What a process reads depends on the seed, its share of the batch and the images shown before; a
    stream that is opened later, of as many processes, goes on exactly.

    Args:
        dataset: where the shards are.
        seed: the run's seed.
        process: this one's number.
        of: how many processes there are.
        device: where the batches go.
        workers: threads that decode; 0 for this one alone.
        labels: whether the batches have labels.

    Raises:
        ConfigError: if there are fewer shards than processes.
    """

    def __init__(
        self,
        dataset: ShardSet,
        *,
        seed: int,
        process: int = 0,
        of: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 0,
        labels: bool = False,
    ) -> None:
        if len(dataset.index.shards) < of:
            raise ConfigError(
                f"{dataset.path} in {len(dataset.index.shards)} shards for {of} processes",
                expected="a shard for each process",
                fix="make smaller shards by `stylegan data shard --shard-mb`, or start fewer",
            )
        self._dataset = dataset
        self._seed, self._process, self._of = seed, process, of
        self._device = torch.device(device)
        self._threads = ThreadPoolExecutor(max(workers, 1))
        self._ahead = ThreadPoolExecutor(1)  # reads the next shard, and decodes the next batch
        self._has_labels = labels
        self._shards: dict[tuple[int, int], list[_Sample]] = {}
        self._epochs: list[_Epoch] = []
        self._next: tuple[tuple[int, Part, int], Future[Batch]] | None = None

    def take(self, part: Part, *, start: int, resolution: int) -> Batch:
        """Return a part of the batch at a place.

        Args:
            part: this process's.
            start: images shown before, over all processes.
            resolution: side of the images.

        Raises:
            DataError: if a shard cannot be read, or is not what the index says.
        """
        wanted = (start, part, resolution)
        ahead, self._next = self._next, None
        if ahead is not None and ahead[0] == wanted:
            batch = ahead[1].result()
        else:
            if ahead is not None:
                ahead[1].exception()  # two at once would read into the same place
            batch = self._make(*wanted)
        following = (start + part.num, part, resolution)
        self._next = following, self._ahead.submit(self._make, *following)
        return Batch(
            images=images.from_uint8(batch.images.to(self._device)),
            labels=None if batch.labels is None else batch.labels.to(self._device),
        )

    def close(self) -> None:
        """End the threads."""
        self._ahead.shutdown(cancel_futures=True)
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads."""
        self.close()

    def _make(self, start: int, part: Part, resolution: int) -> Batch:
        """Return a batch on the CPU, images as uint8."""
        first = start * len(part) // part.num
        samples = [self._sample(place) for place in range(first, first + len(part))]
        factor = self._dataset.index.resolution // resolution

        def draw(sample: _Sample) -> Tensor:
            pixels = reduce(_decoded(sample, self._dataset.index), factor)
            return pixels.flip(2) if sample.is_flipped else pixels

        pixels = torch.stack(list(self._threads.map(draw, samples)))
        labels = self._labels_of(samples) if self._has_labels else None
        return Batch(images=pixels, labels=labels)

    def _labels_of(self, samples: Sequence["_Sample"]) -> Tensor:
        table = self._dataset.label_table
        assert table is not None
        found: list[Any] = [sample.label for sample in samples]
        values = torch.tensor(found, dtype=torch.int64 if table.has_classes else torch.float32)
        return table.as_vectors(values)

    def _sample(self, place: int) -> "_Sample":
        """Return the image at a place of this process's own sequence."""
        epochs = self._epochs
        while not epochs or place >= epochs[-1].ends[-1]:
            epochs.append(self._epoch(len(epochs), epochs[-1].ends[-1] if epochs else 0))
        number = bisect_right(epochs, place, key=lambda epoch: epoch.ends[-1])
        epoch = epochs[number]
        at = bisect_right(epoch.ends, place)
        first = epoch.ends[at] - self._dataset.index.shards[epoch.shards[at]].num
        return self._shard(number, epoch.shards[at])[place - first]

    def _epoch(self, number: int, start: int) -> "_Epoch":
        """Draw which shards this process reads in an epoch that begins at a place."""
        shards = self._dataset.index.shards
        stream = generator_for("shard order", seed=self._seed, nimg=number)
        order: list[int] = torch.randperm(len(shards), generator=stream).tolist()
        own = order[self._process :: self._of]
        ends = list(accumulate((shards[shard].num for shard in own), initial=start))[1:]
        return _Epoch(shards=own, ends=ends)

    def _shard(self, epoch: int, number: int) -> list["_Sample"]:
        """Return the images of a shard in the order of an epoch."""
        key = (epoch, number)
        if key not in self._shards:
            samples = list(_read_shard(self._dataset, number))
            stream = generator_for("images of a shard", seed=self._seed, nimg=epoch, group=number)
            order = torch.randperm(len(samples), generator=stream).tolist()
            flips = (torch.rand(len(samples), generator=stream) < 0.5).tolist()
            flips = flips if self._dataset.is_mirrored else [False] * len(samples)
            while len(self._shards) > 1:  # a batch may reach from one into the next
                del self._shards[next(iter(self._shards))]
            self._shards[key] = [
                _Sample(
                    name=samples[index].name,
                    data=samples[index].data,
                    label=samples[index].label,
                    is_flipped=is_flipped,
                )
                for index, is_flipped in zip(order, flips, strict=True)
            ]
        return self._shards[key]


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """What a process reads in an epoch.

    Attributes:
        shards: their numbers, in order.
        ends: the place after each one's last image, over all epochs.
    """

    shards: list[int]
    ends: list[int]


@dataclass(frozen=True, kw_only=True)
class _Sample:
    name: str
    data: bytes
    label: Label | None = None
    is_flipped: bool = False


def _read_shard(dataset: ShardSet, number: int) -> Iterator[_Sample]:
    shard = dataset.index.shards[number]
    url = f"{dataset.path}/{shard.name}"
    num = 0
    webdataset = _webdataset()
    try:
        with webdataset.gopen(url) as stream:
            tar = webdataset.tariterators.tar_file_expander([{"url": url, "stream": stream}])
            for sample in webdataset.tariterators.group_by_keys(tar):
                label = json.loads(sample["json"]) if "json" in sample else None
                num += 1
                yield _Sample(
                    name=f"{sample['__key__']} in {url}",
                    data=sample["png"],
                    label=tuple(label) if isinstance(label, list) else label,
                )
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        raise DataError(
            f"{url} cannot be read ({str(error)[:120]})",
            expected="the shard that was written",
            fix="copy it again, and start the same line",
        ) from error
    if num != shard.num:
        raise DataError(
            f"{url} with {num} images",
            expected=f"{shard.num} as {INDEX_NAME} says",
            fix="copy it again, and start the same line",
        )


def _decoded(sample: _Sample, index: Index) -> Tensor:
    try:
        pixels = images.from_pil(decode(sample.data).image)
    except DataError as error:
        raise DataError(
            f"{sample.name}: {error.found}", expected=error.expected, fix=error.fix
        ) from error
    expected = [index.num_channels, index.resolution, index.resolution]
    if list(pixels.shape) != expected:
        raise DataError(
            f"{sample.name} of the shape {list(pixels.shape)}",
            expected=f"{expected} as {INDEX_NAME} says",
            fix="make the shards anew by `stylegan data shard`",
        )
    return pixels


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
        if not _is_url(address):
            return Path(address).read_bytes()
        with _webdataset().gopen(address) as file:
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


def _webdataset() -> Any:
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
