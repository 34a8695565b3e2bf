"""From a set and a position to an endless stream of batches on a device."""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stylegan.data.dataset import ImageDataset
from stylegan.data.sampler import InfiniteSampler
from stylegan.errors import DataError
from stylegan.images import from_uint8
from stylegan.microbatch import BatchSlice
from stylegan.rng import generator_for


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Real images on the device, and their labels.

    Attributes:
        images: float32 [N, C, R, R] in [-1, 1].
        labels: float32 [N, label_dim]; None unless they were asked for.
    """

    images: Tensor
    labels: Tensor | None = None


def batches(
    dataset: ImageDataset,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    resolution: int | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    labels: bool = False,
    rows: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Yield batches without end.

    They depend on the set, `batch_size`, `seed`, `start` and `resolution` only: `workers` and
    the set's cache change how fast they come. Nothing is drawn from torch's global generator.
    Close the iterator to end the worker processes.

    Args:
        dataset: where the images come from.
        batch_size: N. A batch may reach over the end of an epoch.
        seed: the run's seed.
        start: images drawn before, over all epochs.
        resolution: R, a power of two up to the set's, which None takes; see `ImageDataset.gather`.
        device: where the batches go; pinned memory and asynchronous copies serve CUDA.
        workers: processes that decode ahead; 0, or a cached set, decodes in this process.
        labels: whether the batches have labels; which changes nothing of their images.
        rows: of each batch, which to give, in this order: the others are another process's. None
            for all.

    Raises:
        ValueError: if `batch_size` is not positive, or the set has no such resolution, or no
            labels where they are asked for.
        DataError: if labels are asked for and do not go together; while iterating, if an image
            can no longer be read; it is named.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    resolution = dataset.resolution if resolution is None else resolution
    if resolution < 1 or dataset.resolution % resolution:
        raise ValueError(f"resolution must divide {dataset.resolution}, got {resolution}")
    if labels and dataset.label_table is None:
        raise ValueError(f"{dataset.name} has no labels")
    sampler = InfiniteSampler(len(dataset), seed=seed, start=start)
    sized = _Batches(dataset, resolution, labels=labels)
    chunks = _Chunks(sampler, batch_size, range(batch_size) if rows is None else rows)
    return _batches(sized, chunks, torch.device(device), workers)


class Stream:
    """Batches of a run whose batch size and resolution change with the images shown.

    A batch depends on its place and size only, so a stream that is opened later goes on exactly.
    Used as a context manager, it ends its worker processes on leaving.

    Args:
        dataset: where the images come from.
        seed: the run's seed.
        device: where the batches go.
        workers: processes that decode ahead, as in `batches`.
        labels: whether the batches have labels.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
        labels: bool = False,
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._device = device
        self._workers = workers
        self._labels = labels
        self._next: tuple[int, BatchSlice, int] | None = None
        self._batches: Iterator[Batch] | None = None

    def take(self, part: BatchSlice, *, start: int, resolution: int) -> Batch:
        """Return a part of the batch at a place.

        One that follows on the last, in its size, comes from the workers' work ahead; another
        size or place starts them anew.

        Args:
            part: which rows, and of how many.
            start: images drawn before, over all epochs.
            resolution: R.

        Raises:
            ValueError: as `batches`.
            DataError: if an image can no longer be read; it is named.
        """
        if self._batches is None or self._next != (start, part, resolution):
            self.close()
            self._batches = batches(
                self._dataset,
                batch_size=part.batch_size,
                seed=self._seed,
                start=start,
                resolution=resolution,
                device=self._device,
                workers=self._workers,
                labels=self._labels,
                rows=part.rows,
            )
        self._next = (start + part.batch_size, part, resolution)
        return next(self._batches)

    def close(self) -> None:
        """End the worker processes."""
        if self._batches is not None:
            self._batches.close()  # type: ignore[attr-defined]  # an iterator to callers, a generator here
            self._batches = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker processes."""
        self.close()


def _batches(
    sized: "_Batches",
    chunks: "_Chunks",
    device: torch.device,
    workers: int,
) -> Iterator[Batch]:
    is_cuda = device.type == "cuda"
    workers = 0 if sized.dataset.is_cached else workers
    loader: DataLoader[_Decoded | _Failure] = DataLoader(
        sized,
        sampler=chunks,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_parent if workers else None,
        pin_memory=is_cuda,
        generator=generator_for("workers", seed=chunks.sampler.seed),
    )
    for batch in loader:
        if isinstance(batch, _Failure):
            raise batch.as_error()
        images, labels = (
            None if part is None else part.to(device, non_blocking=is_cuda) for part in batch
        )
        assert images is not None
        yield Batch(images=from_uint8(images), labels=labels)


_Decoded = tuple[Tensor, Tensor | None]
"""Images, uint8 on the CPU, and labels; a tuple, whose tensors the loader knows how to pin."""


class _Failure:
    """A DataError on its way out of a worker; torch would lose its type and wrap a traceback."""

    def __init__(self, error: DataError) -> None:
        self.found, self.expected, self.fix = error.message, error.expected, error.fix

    def as_error(self) -> DataError:
        return DataError(self.found, expected=self.expected, fix=self.fix)


class _Batches(Dataset["_Decoded | _Failure"]):
    """The set seen by the loader: its keys are lists of indices."""

    def __init__(self, dataset: ImageDataset, resolution: int, *, labels: bool) -> None:
        self.dataset = dataset
        self.resolution = resolution
        self.labels = labels

    def __getitem__(self, indices: list[int]) -> "_Decoded | _Failure":
        try:
            images = self.dataset.gather(indices, resolution=self.resolution)
            labels = self.dataset.gather_labels(indices) if self.labels else None
            _share(images, labels)
        except DataError as error:
            return _Failure(error)
        return images, labels


class _Chunks:
    """The sampler's indices in lists: of each `batch_size`, those at `rows`."""

    def __init__(self, sampler: InfiniteSampler, batch_size: int, rows: Sequence[int]) -> None:
        self.sampler, self.batch_size, self.rows = sampler, batch_size, rows

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            indices = list(islice(self.sampler, self.batch_size))
            yield [indices[row] for row in self.rows]


def _share(*tensors: Tensor | None) -> None:
    """Move a worker's tensors to where the parent sees them: later, a failure would be lost.

    Raises:
        DataError: if there is no room.
    """
    workers = torch.utils.data.get_worker_info()
    if workers is None:
        return
    for tensor in tensors:
        if tensor is None:
            continue
        try:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise DataError(
                f"no shared memory (/dev/shm) for a batch of {tensor.nbytes / 1e6:.1f} MB",
                expected=f"room for {2 * workers.num_workers} of them",
                fix="raise it (docker run --shm-size 8g), or take --workers 0",
            ) from error


def _unchanged(batch: object) -> object:
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """Let Ctrl-C, and a terminal that closes, reach the parent only; it ends workers by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
