"""Batches of a run out of shards, each process from its own."""

import json
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor

from stylegan import images
from stylegan.data.dataset import reduce
from stylegan.data.loader import Batch
from stylegan.data.readers import Label, decode
from stylegan.data.shards import INDEX_NAME, Index, ShardSet, open_address, webdataset_package
from stylegan.errors import ConfigError, DataError
from stylegan.microbatch import BatchSlice
from stylegan.rng import generator_for


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
        self._is_cuda = self._device.type == "cuda"
        self._threads = ThreadPoolExecutor(max(workers, 1))
        self._ahead = ThreadPoolExecutor(1)  # reads the next shard, and decodes the next batch
        self._has_labels = labels
        self._shards: dict[tuple[int, int], list[_Sample]] = {}
        self._epochs: list[_Epoch] = []
        self._next: tuple[tuple[int, BatchSlice, int], Future[Batch]] | None = None

    def take(self, part: BatchSlice, *, start: int, resolution: int) -> Batch:
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
        following = (start + part.batch_size, part, resolution)
        self._next = following, self._ahead.submit(self._make, *following)
        return Batch(
            images=images.from_uint8(self._sent(batch.images)),
            labels=None if batch.labels is None else self._sent(batch.labels),
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

    def _make(self, start: int, part: BatchSlice, resolution: int) -> Batch:
        """Return a batch on the CPU, images as uint8."""
        first = start * len(part) // part.batch_size
        samples = [self._sample(place) for place in range(first, first + len(part))]
        factor = self._dataset.index.resolution // resolution

        def draw(sample: _Sample) -> Tensor:
            pixels = reduce(_decoded(sample, self._dataset.index), factor)
            return pixels.flip(2) if sample.is_flipped else pixels

        pixels = torch.stack(list(self._threads.map(draw, samples)))
        labels = self._labels_of(samples) if self._has_labels else None
        if self._is_cuda:  # so that copies are asynchronous
            pixels = pixels.pin_memory()
            labels = None if labels is None else labels.pin_memory()
        return Batch(images=pixels, labels=labels)

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=self._is_cuda)

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
    webdataset = webdataset_package()
    try:
        with open_address(url) as stream:
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
