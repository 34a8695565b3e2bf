"""The batches of a run, read from shards."""

import hashlib
import io
import itertools
import json
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from stylegan.data.array_files import flipped, reduce
from stylegan.data.labels import Label
from stylegan.data.loader import Batch
from stylegan.data.readers import Reading, read_pixels
from stylegan.data.shards import INDEX_NAME, Index, ShardSet, read_address
from stylegan.errors import ConfigError, DataError
from stylegan.image_size import ImageSize, Resolution
from stylegan.microbatch import BatchSlice
from stylegan.pixel_format import PixelFormat
from stylegan.rng import generator_for


class ShardStream:
    """The batches of a run, read from shards; the interface is that of `data.loader.Stream`.

    Each rank reads whole shards, in a sequence of its own. What it reads depends on the seed, the
    number of ranks and the images shown before, so a stream that is opened later continues exactly.

    Args:
        dataset: the shards.
        seed: the run's seed.
        rank: of this process.
        world_size: number of ranks.
        device: of the batches.
        workers: threads that decode; 0 decodes in one thread.
        labels: whether the batches have labels.
        slice_at: returns this rank's slice of the batch that begins after a number of images. It
            is needed if the batch size changes, as in progressive growing: the fraction of the
            batch that a rank takes may then change, too. None: the fraction is constant.

    Raises:
        ConfigError: if there are fewer shards than ranks.
    """

    def __init__(
        self,
        dataset: ShardSet,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 0,
        labels: bool = False,
        slice_at: Callable[[int], BatchSlice] | None = None,
    ) -> None:
        if len(dataset.index.shards) < world_size:
            raise ConfigError(
                f"{dataset.path} has {len(dataset.index.shards)} shards, fewer than the "
                f"{world_size} ranks",
                fix="write smaller shards with `stylegan data shard --shard-mb`, or start fewer "
                "ranks",
            )
        self._dataset = dataset
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._device = torch.device(device)
        self._is_cuda = self._device.type == "cuda"
        self._decoders = ThreadPoolExecutor(max(workers, 1))
        self._prefetcher = ThreadPoolExecutor(1)  # reads the next shard, decodes the next batch
        self._has_labels = labels
        self._shards: dict[tuple[int, int], list[_Sample]] = {}
        self._epochs: list[_Epoch] = []
        self._next: tuple[tuple[int, BatchSlice, ImageSize], Future[Batch]] | None = None
        self._slice_at = slice_at
        self._position = (0, 0)  # images shown, and how many of them this rank has read

    def take(self, rows: BatchSlice, *, start: int, resolution: Resolution | ImageSize) -> Batch:
        """Return this rank's rows of a batch.

        Args:
            rows: the rows, and the size of the batch.
            start: images shown before, over all ranks.
            resolution: height and width of the images.

        Raises:
            DataError: if a shard cannot be read, or differs from the index.
        """
        size = ImageSize.of(resolution)
        request = (start, rows, size)
        prefetched, self._next = self._next, None
        if prefetched is not None and prefetched[0] == request:
            batch = prefetched[1].result()
        else:
            if prefetched is not None:
                prefetched[1].exception()  # wait, as both threads change the same caches
            batch = self._make(*request)
        following = (start + rows.batch_size, rows, size)
        self._next = following, self._prefetcher.submit(self._make, *following)
        return Batch(
            images=self._dataset.pixels.to_float(self._to_device(batch.images)),
            labels=None if batch.labels is None else self._to_device(batch.labels),
        )

    def close(self) -> None:
        """End the threads."""
        self._prefetcher.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads."""
        self.close()

    def _make(self, start: int, rows: BatchSlice, size: ImageSize) -> Batch:
        """Return a batch on the CPU, images as they are stored."""
        first = self._num_read(start, rows)
        samples = [self._sample(position) for position in range(first, first + len(rows))]
        factor = self._dataset.index.size.height // size.height

        def load(sample: _Sample) -> Tensor:
            pixels = _decoded(sample, self._dataset.index, self._dataset.pixels)
            pixels = reduce(pixels, factor, has_alpha=self._dataset.pixels.has_alpha)
            return flipped(pixels) if sample.is_flipped else pixels

        pixels = torch.stack(list(self._decoders.map(load, samples)))
        labels = self._labels_of(samples) if self._has_labels else None
        if self._is_cuda:  # for asynchronous copies
            pixels = pixels.pin_memory()
            labels = None if labels is None else labels.pin_memory()
        return Batch(images=pixels, labels=labels)

    def _num_read(self, start: int, rows: BatchSlice) -> int:
        """Return how many images this rank has read when `start` images have been shown."""
        if self._slice_at is None:
            return start * len(rows) // rows.batch_size
        nimg, num_read = self._position if self._position[0] <= start else (0, 0)
        while nimg < start:
            earlier = self._slice_at(nimg)
            nimg, num_read = nimg + earlier.batch_size, num_read + len(earlier)
        self._position = nimg, num_read
        return num_read

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=self._is_cuda)

    def _labels_of(self, samples: Sequence["_Sample"]) -> Tensor:
        table = self._dataset.label_table
        assert table is not None
        labels: list[Any] = [sample.label for sample in samples]
        values = torch.tensor(labels, dtype=torch.int64 if table.has_classes else torch.float32)
        return table.as_vectors(values)

    def _sample(self, position: int) -> "_Sample":
        """Return the image at a position of this rank's sequence."""
        epochs = self._epochs
        while not epochs or position >= epochs[-1].ends[-1]:
            epochs.append(self._epoch(len(epochs), epochs[-1].ends[-1] if epochs else 0))
        number = bisect_right(epochs, position, key=lambda epoch: epoch.ends[-1])
        epoch = epochs[number]
        at = bisect_right(epoch.ends, position)
        first = epoch.ends[at] - self._dataset.index.shards[epoch.shards[at]].num
        return self._shard(number, epoch.shards[at])[position - first]

    def _epoch(self, number: int, start: int) -> "_Epoch":
        """Draw which shards this rank reads in an epoch that begins at a position."""
        shards = self._dataset.index.shards
        generator = generator_for("shard order", seed=self._seed, nimg=number)
        order: list[int] = torch.randperm(len(shards), generator=generator).tolist()
        of_rank = order[self._rank :: self._world_size]
        nums = (shards[shard].num for shard in of_rank)
        return _Epoch(shards=of_rank, ends=list(itertools.accumulate(nums, initial=start))[1:])

    def _shard(self, epoch: int, number: int) -> list["_Sample"]:
        """Return the images of a shard in the order of an epoch."""
        key = (epoch, number)
        if key not in self._shards:
            samples = _read_shard(self._dataset, number)
            generator = generator_for(
                "images of a shard", seed=self._seed, nimg=epoch, group=number
            )
            order = torch.randperm(len(samples), generator=generator).tolist()
            flips = (torch.rand(len(samples), generator=generator) < 0.5).tolist()
            while len(self._shards) > 1:  # a batch may contain images of two shards
                del self._shards[next(iter(self._shards))]
            self._shards[key] = [
                replace(samples[index], is_flipped=self._dataset.is_mirrored and is_flipped)
                for index, is_flipped in zip(order, flips, strict=True)
            ]
        return self._shards[key]


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """What a rank reads in an epoch.

    Attributes:
        shards: their numbers, in order.
        ends: for each shard, the position after its last image, counted over all epochs.
    """

    shards: list[int]
    ends: list[int]


@dataclass(frozen=True, kw_only=True)
class _Sample:
    name: str
    data: bytes
    label: Label | None = None
    is_flipped: bool = False


def _read_shard(dataset: ShardSet, number: int) -> list[_Sample]:
    """Read a shard, verify its checksum, and return its images."""
    shard = dataset.index.shards[number]
    address = f"{dataset.path}/{shard.name}"
    content = read_address(address)
    digest = hashlib.sha256(content).hexdigest()
    if digest != shard.sha256:
        raise DataError(
            f"{address} has sha256 {digest}, not {shard.sha256} as in {INDEX_NAME}",
            fix="copy the shard again",
        )
    try:
        samples = list(_samples(content, address))
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{address} cannot be read ({str(error)[:120]})") from error
    if len(samples) != shard.num:
        raise DataError(f"{address} has {len(samples)} images, not {shard.num} as in {INDEX_NAME}")
    return samples


def _samples(content: bytes, address: str) -> Iterator[_Sample]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        for name, file in files.items():
            key, _, extension = name.partition(".")
            if extension in ("png", "npy") and file is not None:
                label_file = files.get(f"{key}.json")
                label = None if label_file is None else json.load(label_file)
                yield _Sample(
                    name=f"{name} in {address}",
                    data=file.read(),
                    label=tuple(label) if isinstance(label, list) else label,
                )


def _decoded(sample: _Sample, index: Index, pixels_of_set: PixelFormat) -> Tensor:
    reading = Reading(
        range=pixels_of_set.range, alpha="auto" if pixels_of_set.has_alpha else "none"
    )
    try:
        pixels = read_pixels(sample.data, pixels_of_set, reading)
    except DataError as error:
        raise error.at(sample.name) from error
    shape = [index.num_channels, index.size.height, index.size.width]
    if list(pixels.shape) != shape:
        raise DataError(
            f"{sample.name} has the shape {list(pixels.shape)}, not {shape} as in {INDEX_NAME}"
        )
    return pixels
