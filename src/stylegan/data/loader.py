"""Infinite streams of batches on a device, which can be entered at any position."""

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
from stylegan.image_size import ImageSize, Resolution
from stylegan.microbatch import BatchSlice
from stylegan.rng import generator_for


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Real images on the device, and their labels.

    Attributes:
        images: float32 [N, C, H, W] in [-1, 1], with premultiplied alpha.
        labels: float32 [N, label_dim]; None unless they were requested.
    """

    images: Tensor
    labels: Tensor | None = None


def batches(
    dataset: ImageDataset,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    resolution: Resolution | ImageSize | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    labels: bool = False,
    rows: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Yield batches forever.

    They depend only on the set, `batch_size`, `seed`, `start` and `resolution`, not on `workers` or
    the set's cache. Nothing is drawn from torch's global generator. Close the iterator to end the
    worker processes.

    Args:
        dataset: the images.
        batch_size: N. A batch may contain the end of one epoch and the start of the next.
        seed: the run's seed.
        start: images drawn before, over all epochs.
        resolution: height and width, those of the set or these divided by a power of two; None:
            those of the set. See `ImageDataset.gather`.
        device: of the batches. Copies to CUDA are asynchronous, from pinned memory.
        workers: processes that decode in advance; 0, or a cached set, decodes in this process.
        labels: whether the batches have labels. It does not change the images.
        rows: rows of each batch to return, in this order; the others belong to other ranks. None:
            all.

    Raises:
        ValueError: if `batch_size` is not positive, `resolution` does not divide that of the set,
            or labels are requested and the set has none.
        DataError: if labels are requested and inconsistent; while iterating, if an image can no
            longer be read. The message names it.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    size = dataset.size if resolution is None else ImageSize.of(resolution)
    if dataset.size.factor_to(size) is None:
        raise ValueError(f"resolution must divide {dataset.resolution}, got {size.stored}")
    if labels and dataset.label_table is None:
        raise ValueError(f"{dataset.name} has no labels")
    sampler = InfiniteSampler(len(dataset), seed=seed, start=start)
    sized = _Batches(dataset, size, labels=labels)
    chunks = _Chunks(sampler, batch_size, range(batch_size) if rows is None else rows)
    return _batches(sized, chunks, torch.device(device), workers)


class Stream:
    """The batches of a run, whose batch size and resolution may change.

    A batch depends only on its position and size, so a stream that is opened later continues
    exactly. As a context manager, it ends its worker processes at the end.

    Args:
        dataset: the images.
        seed: the run's seed.
        device: of the batches.
        workers: processes that decode in advance, as in `batches`.
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
        self._next: tuple[int, BatchSlice, ImageSize] | None = None
        self._batches: Iterator[Batch] | None = None

    def take(self, rows: BatchSlice, *, start: int, resolution: Resolution | ImageSize) -> Batch:
        """Return this rank's rows of a batch.

        If it follows the previous batch and has the same size, the workers have decoded it in
        advance; otherwise they are restarted.

        Args:
            rows: the rows, and the size of the batch.
            start: images drawn before, over all epochs.
            resolution: height and width.

        Raises:
            ValueError: as `batches`.
            DataError: if an image can no longer be read. The message names it.
        """
        size = ImageSize.of(resolution)
        if self._batches is None or self._next != (start, rows, size):
            self.close()
            self._batches = batches(
                self._dataset,
                batch_size=rows.batch_size,
                seed=self._seed,
                start=start,
                resolution=size,
                device=self._device,
                workers=self._workers,
                labels=self._labels,
                rows=rows.rows,
            )
        self._next = (start + rows.batch_size, rows, size)
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
            raise batch.error
        *tensors, problems = batch
        for problem in problems:
            sized.dataset.add_unreadable(problem)
        images, labels = (
            None if tensor is None else tensor.to(device, non_blocking=is_cuda)
            for tensor in tensors
        )
        assert images is not None
        yield Batch(images=sized.dataset.pixels.to_float(images), labels=labels)


_Decoded = tuple[Tensor, Tensor | None, tuple[str, ...]]
"""Images as they are stored, on the CPU, labels, and errors of images that could not be read.

A tuple, as the loader can pin tensors in tuples.
"""


@dataclass(frozen=True)
class _Failure:
    """Carries a DataError out of a worker, as torch would replace it by another exception."""

    error: DataError


class _Batches(Dataset["_Decoded | _Failure"]):
    """Adapts the set to torch's loader: its keys are lists of indices."""

    def __init__(self, dataset: ImageDataset, size: ImageSize, *, labels: bool) -> None:
        self.dataset = dataset
        self.size = size
        self.labels = labels

    def __getitem__(self, indices: list[int]) -> "_Decoded | _Failure":
        num_known = len(self.dataset.unreadable)
        try:
            images = self.dataset.gather(indices, resolution=self.size)
            labels = self.dataset.gather_labels(indices) if self.labels else None
            _share(images, labels)
        except DataError as error:
            return _Failure(error)
        return images, labels, self.dataset.unreadable[num_known:]


class _Chunks:
    """Lists of the sampler's indices: of each `batch_size`, those at `rows`."""

    def __init__(self, sampler: InfiniteSampler, batch_size: int, rows: Sequence[int]) -> None:
        self.sampler, self.batch_size, self.rows = sampler, batch_size, rows

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            indices = list(islice(self.sampler, self.batch_size))
            yield [indices[row] for row in self.rows]


def _share(*tensors: Tensor | None) -> None:
    """Move a worker's tensors to shared memory.

    torch would do so later, in a thread where an error is lost.

    Raises:
        DataError: if there is not enough shared memory.
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
                f"not enough shared memory (/dev/shm) for {2 * workers.num_workers} batches of "
                f"{tensor.nbytes / 1e6:.1f} MB",
                fix="increase it (docker run --shm-size 8g), or pass --workers 0",
            ) from error


def _unchanged(batch: object) -> object:
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ignore Ctrl-C and a closing terminal in workers; the parent ends them with SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
