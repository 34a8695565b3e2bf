"""Feature extraction in one pass over the images, on one or several ranks with the same result.

Chunks of images are distributed over the ranks. Rank 0 gathers the features in the order of the
images, and accumulates and stores them.
"""

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from stylegan import distributed, download
from stylegan.errors import DataError
from stylegan.files import new_array, write_atomic
from stylegan.metrics.moments import Moments
from stylegan.metrics.sources import AbstractSource, compute_chunks
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance
from stylegan.progress import Counter

logger = logging.getLogger(__name__)

Storage = Literal["moments", "float32", "float16"]
"""How features are kept: as mean and covariance, or all of them in a file of that type."""

_MOMENTS = "moments.safetensors"

# Version of the cache. Increment it with any change of decoding, resizing, mirroring or the
# networks, so that older statistics are not reused.
_FORMAT = 1

_PIXELS_AT_ONCE = 1 << 23  # prepared together: eight images at 1024x1024, 100 MB


@dataclass(frozen=True, kw_only=True)
class FeatureRequest:
    """The features of one network to extract.

    Attributes:
        detector: in eval mode, on its device.
        storage: in which forms to keep the features.
        folder: where to keep them; existing files are not computed again.
    """

    detector: AbstractDetector
    storage: Set[Storage]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """Extracted features on rank 0; empty on other ranks.

    Attributes:
        moments: mean and covariance; None if not requested.
        float32: the features, [N, D], memory-mapped; None if not requested.
        float16: the features rounded to float16; None if not requested.
    """

    moments: Moments | None = None
    float32: NDArray[np.float32] | None = None
    float16: NDArray[np.float16] | None = None


def cache_folder(source: AbstractSource, detector: AbstractDetector) -> Path:
    """Return the folder where the features of a source are cached between evaluations.

    Its name is a digest of everything that they depend on: images, network and weights.
    """
    facts = {
        "format": _FORMAT,
        "source": source.facts(),
        "detector": network_facts(detector),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return download.cache_folder() / "statistics" / key


def usable_folder(folder: Path, storage: Set[Storage], *, otherwise: Path) -> Path:
    """Return a folder that has the features or can be written; warn if it is not the first choice.

    Args:
        folder: a folder of the cache, which may be read-only.
        storage: the forms in which features are kept.
        otherwise: the folder to use instead.
    """
    if all(_path(folder, kind).exists() for kind in storage):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if distributed.is_main_process():
            logger.warning(
                "%s cannot be written (%s): statistics of real images are not cached; set "
                "STYLEGAN_CACHE to a writable folder",
                folder.parent,
                error.strerror,
            )
        return otherwise


def network_facts(network: AbstractDetector | AbstractDistance) -> dict[str, str]:
    """Return name, weights and resizing of a feature network or distance, for records."""
    return {
        "name": network.name,
        "weights": network.weights,
        "sha256": network.weights_sha256,
        "resize": getattr(network, "resize", ""),
    }


def extract(
    source: AbstractSource,
    requests: Mapping[str, FeatureRequest],
    *,
    progress: Counter | None = None,
) -> dict[str, StoredFeatures]:
    """Extract features in one pass over the images, unless they exist already.

    Memory is that of a few chunks of images and the moments of each network.

    Args:
        source: the images, the same on all ranks.
        requests: requests by name, the same on all ranks.
        progress: called on rank 0 after each round of chunks.

    Raises:
        DataError: if a file of the source cannot be read, or cached statistics are damaged.
        WeightsError: if a generated image is not finite.
    """
    missing = {
        name: request
        for name, request in requests.items()
        if distributed.broadcast_bool(
            not all(_path(request.folder, kind).exists() for kind in request.storage)
        )
    }
    if missing:
        with contextlib.ExitStack() as stack:
            writers = {
                name: stack.enter_context(_FeatureWriter(request, source.num))
                for name, request in missing.items()
                if distributed.is_main_process()
            }
            for rows in _rows(source, list(missing.values()), progress):
                widths = [request.detector.num_features for request in missing.values()]
                for name, part in zip(missing, torch.split(rows, widths, dim=1), strict=True):
                    writers[name].add(part)
            for writer in writers.values():
                writer.finish()
    return {
        name: _load(request) if distributed.is_main_process() else StoredFeatures()
        for name, request in requests.items()
    }


def _rows(
    source: AbstractSource, requests: Sequence[FeatureRequest], progress: Counter | None
) -> Iterator[Tensor]:
    """Yield the features of each chunk, [n, D of the first + D of the second + ...], in order."""
    mine = source.chunks(range(distributed.rank(), source.num_chunks, distributed.world_size()))

    def compute(index: int) -> Tensor:
        images = next(mine)  # in the order of the calls
        return torch.cat([_features(request.detector, images) for request in requests], dim=1)

    width = sum(request.detector.num_features for request in requests)
    yield from compute_chunks(source, compute, shape=[width], progress=progress)


@torch.no_grad()
def _features(detector: AbstractDetector, images: Sequence[Tensor]) -> Tensor:
    """Return the features of images of any size: float32 [N, D], on the CPU."""
    device = next(detector.parameters()).device
    if len({image.shape for image in images}) == 1:
        num = max(_PIXELS_AT_ONCE // images[0][0].numel(), 1)
        parts = (images[first : first + num] for first in range(0, len(images), num))
        prepared = (detector.prepare(torch.stack([*part]).to(device)) for part in parts)
    else:
        each = [detector.prepare(image[None].to(device)) for image in images]
        # A network that resizes by itself returns images of different sizes here.
        is_alike = len({image.shape for image in each}) == 1
        prepared = (part for part in ([torch.cat(each)] if is_alike else each))
    return torch.cat([detector(part).float().cpu() for part in prepared])


class _FeatureWriter:
    """Accumulates and stores the features of one network; `finish` moves the files into place.

    Until then they are in a temporary folder next to their destination, since two evaluations may
    compute the same statistics at the same time. On exit unfinished files are removed.
    """

    def __init__(self, request: FeatureRequest, num: int) -> None:
        self._request = request
        self._moments = Moments(request.detector.num_features)
        self._done = 0
        shape = (num, request.detector.num_features)
        request.folder.mkdir(parents=True, exist_ok=True)
        # A random name: processes of two containers may share their number and the cache.
        self._unfinished = tempfile.TemporaryDirectory(dir=request.folder, prefix=".unfinished-")
        folder = Path(self._unfinished.name)
        try:
            self._files: dict[Storage, NDArray[Any]] = {
                kind: new_array(_path(folder, kind), dtype=kind, shape=shape)
                for kind in sorted(request.storage)
                if kind != "moments"
            }
        except OSError:
            self._unfinished.cleanup()
            raise

    def __enter__(self) -> "_FeatureWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()
        self._unfinished.cleanup()

    def add(self, rows: Tensor) -> None:
        """Add the next rows, float32 [n, D]."""
        if "moments" in self._request.storage:
            self._moments.update(rows)
        for file in self._files.values():
            file[self._done : self._done + len(rows)] = rows.numpy()
        self._done += len(rows)

    def finish(self) -> None:
        """Move the complete files to their destination."""
        unfinished = Path(self._unfinished.name)
        for file in self._files.values():
            assert isinstance(file, np.memmap)
            file.flush()
        self._files.clear()
        if "moments" in self._request.storage:
            write_atomic(unfinished / _MOMENTS, save(self._moments.tensors()))
        for kind in self._request.storage:
            _path(unfinished, kind).replace(_path(self._request.folder, kind))


def _load(request: FeatureRequest) -> StoredFeatures:
    folder = request.folder
    try:
        arrays = {
            kind: np.load(_path(folder, kind), mmap_mode="r")
            for kind in request.storage
            if kind != "moments"
        }
        moments = None
        if "moments" in request.storage:
            moments = Moments.from_tensors(load_file(folder / _MOMENTS))
    except (ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            f"{folder} holds damaged statistics ({error})",
            fix="delete the folder, and they are computed again",
        ) from error
    return StoredFeatures(
        moments=moments, float32=arrays.get("float32"), float16=arrays.get("float16")
    )


def _path(folder: Path, kind: Storage) -> Path:
    return folder / (_MOMENTS if kind == "moments" else f"{kind}.npy")
