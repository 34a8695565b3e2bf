"""Where the images of a metric come from: chunks of 64 by index, whoever computes them.

A chunk is a function of its index, and so of nothing that is decided by speed: neither of the
number of processes nor of what is computed beside it. The images of a smaller count are the first
of a larger one.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stylegan import distributed
from stylegan.data.labels import LabelTable
from stylegan.data.readers import map_in_order, num_threads
from stylegan.errors import WeightsError
from stylegan.images import to_uint8
from stylegan.models.base import AbstractGenerator
from stylegan.nn.noise import NoiseMode
from stylegan.progress import Counter
from stylegan.rng import generator_for

CHUNK = 64
"""Images of a chunk; the last one of a source may have fewer."""

_PIXELS_AT_ONCE = 1 << 23  # of a generator; at 1024x1024 eight images, some gigabytes


class ImageSet(Protocol):
    """What real images are read from: an `ImageDataset`, or `Pictures` of any size."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def num_channels(self) -> int | None: ...  # noqa: D102  (None: some grey, some in color)
    @property
    def preparation(self) -> Mapping[str, object] | None: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


class AbstractSource(ABC):
    """Images in a fixed order.

    Attributes:
        num: how many.
    """

    num: int

    @abstractmethod
    def chunks(self, indices: Iterable[int]) -> Iterator[Sequence[Tensor]]:
        """Yield the images of these chunks, each uint8 [C, H, W], on any device.

        Raises:
            DataError: if a file cannot be used.
            WeightsError: if a generator's image is not finite.
        """

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """Return what decides which images these are, as JSON has it."""

    @property
    def num_chunks(self) -> int:
        """How many chunks the images make."""
        return -(-self.num // CHUNK)

    def chunk_size(self, index: int) -> int:
        """How many images a chunk has; 0 beyond the last."""
        return max(min(self.num - index * CHUNK, CHUNK), 0)


class StoredImages(AbstractSource):
    """Images of a set.

    Args:
        images: the set; not the mirrored form of an `ImageDataset`.
        num: how many at most; None takes all.
        spread: take them at even distances over the whole set, in place of the first. A set may
            be sorted by what it shows.
        mirror_seed: flip each image, or not, by a draw from this seed; None flips none.
        side: of the images, for the record; None for images of any size.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        num: int | None = None,
        spread: bool = False,
        mirror_seed: int | None = None,
        side: int | None = None,
    ) -> None:
        self._images = images
        self.num = len(images) if num is None else min(num, len(images))
        self._spread = spread and self.num < len(images)
        self._mirror_seed = mirror_seed
        self._side = side

    def chunks(self, indices: Iterable[int]) -> Iterator[Sequence[Tensor]]:
        """Yield chunks, decoded ahead in threads; see `AbstractSource.chunks`."""
        indices = list(indices)
        # Pillow decodes without the interpreter's lock, while the caller computes. It goes ahead
        # by a few images, not chunks: one of 64 images of 1024x1024 holds 200 MB.
        images = map_in_order(self._image, self._chosen(indices), workers=min(num_threads(None), 4))
        for index in indices:
            yield list(itertools.islice(images, self.chunk_size(index)))

    def facts(self) -> dict[str, object]:
        """Return set, count and choice; the seed only where it decides something."""
        return {
            "fingerprint": self._images.fingerprint,
            "side": self._side,
            "num": self.num,
            "choice": "spread" if self._spread else "first",
            "mirrored": self._mirror_seed is not None,
            "mirror_seed": self._mirror_seed,
        }

    def _chosen(self, indices: Iterable[int]) -> Iterator[tuple[int, bool]]:
        """Yield place in the set and whether to flip, of each image of these chunks."""
        for index in indices:
            start = index * CHUNK
            flips = [False] * CHUNK
            if self._mirror_seed is not None:
                stream = generator_for("metric mirror", seed=self._mirror_seed, nimg=start)
                flips = torch.randint(2, [CHUNK], generator=stream).bool().tolist()
            for place, flip in zip(
                range(start, start + self.chunk_size(index)), flips, strict=False
            ):
                yield place * len(self._images) // self.num if self._spread else place, flip

    def _image(self, chosen: tuple[int, bool]) -> Tensor:
        place, flip = chosen
        return self._images[place].flip(2) if flip else self._images[place]


@dataclass(frozen=True)
class Drawn:
    """Latents of one chunk, on the CPU.

    Attributes:
        z: [CHUNK, z_dim].
        c: labels [CHUNK, c_dim]; None where the generator takes none.
    """

    z: Tensor
    c: Tensor | None


class GeneratedImages(AbstractSource):
    """Images of a generator, without truncation unless asked, with noise drawn for each.

    Latents, labels and noise are drawn on the CPU from (seed, index), so any device makes the same
    images up to its rounding.

    Args:
        generator: in eval mode, on its device.
        num: how many.
        seed: decides latents, labels and noise.
        labels: what labels are drawn from, for a generator that takes some.
        psi: truncation; 1 for none.
        noise_mode: as of `synthesis`.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        *,
        num: int,
        seed: int,
        labels: LabelTable | None = None,
        psi: float = 1.0,
        noise_mode: NoiseMode = "random",
    ) -> None:
        if (generator.c_dim > 0) != (labels is not None):
            raise ValueError("labels belong to a generator that takes them, and to no other")
        self.generator = generator
        self.num = num
        self._seed = seed
        self._labels = labels
        self._psi = psi
        self._noise_mode: NoiseMode = noise_mode
        side = generator.img_resolution
        self._step = min(max(_PIXELS_AT_ONCE // side**2, 1), CHUNK)

    def chunks(self, indices: Iterable[int]) -> Iterator[Sequence[Tensor]]:
        """Yield chunks; see `AbstractSource.chunks`."""
        for index in indices:
            parts = self.render(self.map(self.draw(index)), index)
            images = [image for part in parts for image in to_uint8(part)]
            yield images[: self.chunk_size(index)]

    def facts(self) -> dict[str, object]:
        """Return all that decides the images but the network."""
        return {
            "num": self.num,
            "seed": self._seed,
            "labels": self._labels is not None,
            "truncation": self._psi,
            "noise": self._noise_mode,
            "precision": str(self.generator.compute_dtype).removeprefix("torch."),
        }

    def draw(self, index: int) -> Drawn:
        """Draw the latents of a chunk, always a whole one."""
        stream = generator_for("metric latents", seed=self._seed, nimg=index * CHUNK)
        z = torch.randn([CHUNK, self.generator.z_dim], generator=stream)
        return Drawn(z, None if self._labels is None else self._labels.draw(CHUNK, stream))

    @torch.no_grad()
    def map(self, drawn: Drawn) -> Tensor:
        """Map the latents of a chunk to ws [CHUNK, num_ws, w_dim], on the generator's device."""
        device = next(self.generator.parameters()).device
        c = None if drawn.c is None else drawn.c.to(device)
        ws: Tensor = self.generator.mapping(drawn.z.to(device), c, truncation_psi=self._psi)
        return ws

    def render(self, ws: Tensor, index: int) -> Iterator[Tensor]:
        """Yield the images of a chunk in parts, float [N, C, R, R], nominally in [-1, 1].

        Parts are whole, so the last one may go beyond `chunk_size`: noise is drawn for a part, and
        what mixes the images of a part, as some classifiers do, must not see where a count ends.

        Raises:
            WeightsError: if an image is not finite.
        """
        for first in range(0, self.chunk_size(index), self._step):
            noise = generator_for("metric noise", seed=self._seed, nimg=index * CHUNK + first)
            with torch.no_grad():
                part = self.generator.synthesis(
                    ws[first : first + self._step], noise_mode=self._noise_mode, generator=noise
                )
            check_finite(part)
            yield part


def check_finite(values: Tensor) -> None:
    """Check images, or what was computed of them, for what a diverged run leaves.

    Raises:
        WeightsError: if a number is not finite.
    """
    if not values.isfinite().all():
        raise WeightsError(
            "the generator makes images that are not finite",
            expected="numbers near [-1, 1]",
            fix="evaluate an earlier snapshot",
        )


def in_turn(
    source: AbstractSource,
    compute: Callable[[int], Tensor],
    *,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    progress: Counter | None = None,
) -> Iterator[Tensor]:
    """Compute something of each chunk, in turn by all processes, and yield it in order.

    Only the leader gets anything; it gets what one process would have.

    Args:
        source: whose chunks these are.
        compute: maps the index of a chunk to rows [n, *shape] on the CPU, one for each image.
        shape: of a row.
        dtype: of the rows.
        progress: told of the images that are done, at the leader.
    """
    world, rank = distributed.world_size(), distributed.rank()
    for first in range(0, source.num_chunks, world):
        # gloo wants equal shapes: short chunks are filled up, and cut again
        filled = torch.zeros(CHUNK, *shape, dtype=dtype)
        if size := source.chunk_size(first + rank):
            filled[:size] = compute(first + rank)[:size]
        for other, part in enumerate(distributed.gather(filled)):
            if size := source.chunk_size(first + other):
                yield part[:size]
        if progress is not None and distributed.is_main_process():
            progress(min((first + world) * CHUNK, source.num), source.num)
