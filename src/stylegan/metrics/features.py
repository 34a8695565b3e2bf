"""From images to features: in one stream, on one process or several, with the same result.

The processes take the chunks in turn. The leader gets the features back in the order of the
images, and only it sums and stores them, so that several processes give what one gives.
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
from stylegan.metrics.sources import AbstractSource, in_turn
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance
from stylegan.progress import Counter

logger = logging.getLogger(__name__)

Want = Literal["moments", "float32", "float16"]
"""What is kept of features: their sums, or each of them in a file of that type."""

_MOMENTS = "moments.safetensors"

# Of what the cache holds. Raise it with any change of decoding, resizing, mirroring or the
# networks, so that statistics of before are not taken for those of now.
_FORMAT = 1

_PIXELS_AT_ONCE = 1 << 23  # of images while they are prepared; at 1024x1024 eight, 100 MB


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted of the features of one network.

    Attributes:
        detector: in eval mode, on its device.
        wants: what to keep.
        folder: where it is kept; what is there already is not computed again.
    """

    detector: AbstractDetector
    wants: Set[Want]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What is kept of features, at the leader; the others have nothing.

    Attributes:
        moments: mean and covariance; None unless asked for.
        float32: the features, [N, D], read from their file as they are needed.
        float16: the same, rounded.
    """

    moments: Moments | None = None
    float32: NDArray[np.float32] | None = None
    float16: NDArray[np.float16] | None = None


def cache_folder(source: AbstractSource, detector: AbstractDetector) -> Path:
    """Return where the features of a source are kept between two evaluations.

    The name says all that decides them: which images, and which network with which weights.
    """
    facts = {
        "format": _FORMAT,
        "source": source.facts(),
        "detector": network_facts(detector),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return download.cache_folder() / "statistics" / key


def writable_folder(folder: Path, wants: Set[Want], *, otherwise: Path) -> Path:
    """Return a folder that has what is wanted or takes it, with a warning if it is not the first.

    Args:
        folder: of the cache, which may lie where nothing can be written.
        wants: what is to be kept.
        otherwise: another folder.
    """
    if all(_path(folder, want).exists() for want in wants):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if distributed.is_main_process():
            logger.warning(
                "%s takes no files (%s): statistics of real images are not kept; set "
                "STYLEGAN_CACHE to a folder that does",
                folder.parent,
                error.strerror,
            )
        return otherwise


def network_facts(network: AbstractDetector | AbstractDistance) -> dict[str, str]:
    """Return name and weights of a feature network or distance, and how it resizes images."""
    return {
        "name": network.name,
        "weights": network.weights,
        "sha256": network.weights_sha256,
        "resize": getattr(network, "resize", ""),
    }


def extract(
    source: AbstractSource,
    requests: Mapping[str, Request],
    *,
    progress: Counter | None = None,
) -> dict[str, Extracted]:
    """Compute what is not there yet, in one pass over the images, and return all of it.

    Memory holds a few chunks of images and one set of sums for each network, however many images
    there are.

    Args:
        source: the same in all processes, and so are the requests.
        requests: by a name for each.
        progress: told after each round of chunks, at the leader only.

    Raises:
        DataError: if a file of the source cannot be used.
        WeightsError: if a generator's image is not finite.
    """
    missing = {
        name: request
        for name, request in requests.items()
        if distributed.broadcast_bool(
            not all(_path(request.folder, want).exists() for want in request.wants)
        )
    }
    if missing:
        with contextlib.ExitStack() as stack:
            keepers = {
                name: stack.enter_context(_Keeper(request, source.num))
                for name, request in missing.items()
                if distributed.is_main_process()
            }
            for rows in _rows(source, list(missing.values()), progress):
                widths = [request.detector.num_features for request in missing.values()]
                for name, part in zip(missing, torch.split(rows, widths, dim=1), strict=True):
                    keepers[name].add(part)
            for keeper in keepers.values():
                keeper.finish()
    return {
        name: _load(request) if distributed.is_main_process() else Extracted()
        for name, request in requests.items()
    }


def _rows(
    source: AbstractSource, requests: Sequence[Request], progress: Counter | None
) -> Iterator[Tensor]:
    """Yield the features of each chunk, [n, D of the first + D of the second + ...], in order."""
    mine = source.chunks(range(distributed.rank(), source.num_chunks, distributed.world_size()))

    def compute(index: int) -> Tensor:
        images = next(mine)  # decoded or made ahead, in the same order
        return torch.cat([_features(request.detector, images) for request in requests], dim=1)

    width = sum(request.detector.num_features for request in requests)
    yield from in_turn(source, compute, shape=[width], progress=progress)


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
        # A network that resizes by itself leaves them as different as they came.
        is_alike = len({image.shape for image in each}) == 1
        prepared = (part for part in ([torch.cat(each)] if is_alike else each))
    return torch.cat([detector(part).float().cpu() for part in prepared])


class _Keeper:
    """Sums and stores the features of one network; `finish` puts the files to their places.

    Until then they lie in a folder of their own beside them, as two evaluations may want the same
    statistics at once. As a context it removes what is not finished.
    """

    def __init__(self, request: Request, num: int) -> None:
        self._request = request
        self._moments = Moments(request.detector.num_features)
        self._done = 0
        shape = (num, request.detector.num_features)
        request.folder.mkdir(parents=True, exist_ok=True)
        # not named by the process: processes of two containers may share number and cache
        self._unfinished = tempfile.TemporaryDirectory(dir=request.folder, prefix=".unfinished-")
        folder = Path(self._unfinished.name)
        try:
            self._files: dict[Want, NDArray[Any]] = {
                want: new_array(_path(folder, want), dtype=want, shape=shape)
                for want in sorted(request.wants)
                if want != "moments"
            }
        except OSError:
            self._unfinished.cleanup()
            raise

    def __enter__(self) -> "_Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()
        self._unfinished.cleanup()

    def add(self, rows: Tensor) -> None:
        """Take the next rows, float32 [n, D]."""
        if "moments" in self._request.wants:
            self._moments.update(rows)
        for file in self._files.values():
            file[self._done : self._done + len(rows)] = rows.numpy()
        self._done += len(rows)

    def finish(self) -> None:
        """Write what is complete."""
        unfinished = Path(self._unfinished.name)
        for file in self._files.values():
            assert isinstance(file, np.memmap)
            file.flush()
        self._files.clear()
        if "moments" in self._request.wants:
            write_atomic(unfinished / _MOMENTS, save(self._moments.tensors()))
        for want in self._request.wants:
            _path(unfinished, want).replace(_path(self._request.folder, want))


def _load(request: Request) -> Extracted:
    folder = request.folder
    try:
        arrays = {
            want: np.load(_path(folder, want), mmap_mode="r")
            for want in request.wants
            if want != "moments"
        }
        moments = None
        if "moments" in request.wants:
            moments = Moments.from_tensors(load_file(folder / _MOMENTS))
    except (ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            f"{folder} holds damaged statistics ({error})",
            expected="what an earlier evaluation wrote",
            fix="delete the folder; they are computed again",
        ) from error
    return Extracted(moments=moments, float32=arrays.get("float32"), float16=arrays.get("float16"))


def _path(folder: Path, want: Want) -> Path:
    return folder / (_MOMENTS if want == "moments" else f"{want}.npy")
