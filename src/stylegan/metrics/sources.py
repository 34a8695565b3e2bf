"""Sources of the images of a metric, in chunks of 64.

A chunk depends only on its index, not on the number of ranks or on the other metrics. The images of
a smaller count are the first of a larger one.
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
from stylegan.image_size import ImageSize
from stylegan.models.base import AbstractGenerator
from stylegan.nn.noise import NoiseMode
from stylegan.progress import Counter
from stylegan.rng import generator_for

CHUNK = 64
"""Images per chunk; the last chunk of a source may have fewer."""

_PIXELS_AT_ONCE = 1 << 23  # of a generator: eight images at 1024x1024, a few GB of memory


class ImageSet(Protocol):
    """A set of images: an `ImageDataset`, or `Pictures` of any size."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def num_channels(self) -> int | None: ...  # noqa: D102  (None: some gray, some RGB)
    @property
    def view(self) -> str | None: ...  # noqa: D102  (as of `PixelFormat.view`)
    @property
    def preparation(self) -> Mapping[str, object] | None: ...  # noqa: D102
    @property
    def formats(self) -> Mapping[str, int]: ...  # noqa: D102  (number of images in each)
    def __len__(self) -> int: ...
    def seen(self, index: int, /) -> Tensor: ...  # noqa: D102  (uint8, grey or RGB)


class AbstractSource(ABC):
    """Images in a fixed order.

    Attributes:
        num: number of images.
    """

    num: int

    @abstractmethod
    def chunks(self, indices: Iterable[int]) -> Iterator[Sequence[Tensor]]:
        """Yield the images of these chunks, each uint8 [C, H, W], on any device.

        Raises:
            DataError: if a file cannot be read.
            WeightsError: if a generated image is not finite.
        """

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """Return everything that determines the images, as JSON-like values."""

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return -(-self.num // CHUNK)

    def chunk_size(self, index: int) -> int:
        """Return the number of images in a chunk; 0 after the last."""
        return max(min(self.num - index * CHUNK, CHUNK), 0)


class StoredImages(AbstractSource):
    """Images of a set.

    Args:
        images: the set; not the mirrored form of an `ImageDataset`.
        num: maximum number of images; None for all.
        spread: take images at even distances over the whole set instead of the first ones, since a
            set may be sorted by content.
        mirror_seed: seed by which each image is mirrored with probability 0.5; None for no
            mirroring.
        size: height and width of the images, for the record; None for images of any size.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        num: int | None = None,
        spread: bool = False,
        mirror_seed: int | None = None,
        size: ImageSize | None = None,
    ) -> None:
        self._images = images
        self.num = len(images) if num is None else min(num, len(images))
        self._spread = spread and self.num < len(images)
        self._mirror_seed = mirror_seed
        self._size = size

    def chunks(self, indices: Iterable[int]) -> Iterator[Sequence[Tensor]]:
        """Yield chunks, decoded ahead in threads, as `AbstractSource.chunks`."""
        indices = list(indices)
        # Pillow releases the interpreter's lock while it decodes. Only a few images are decoded
        # ahead, since a chunk of 64 images of 1024x1024 takes 200 MB.
        images = map_in_order(self._image, self._chosen(indices), workers=min(num_threads(None), 4))
        for index in indices:
            yield list(itertools.islice(images, self.chunk_size(index)))

    def facts(self) -> dict[str, object]:
        """Return the set, the count and the choice of images; the seed only if it is used."""
        return {
            "fingerprint": self._images.fingerprint,
            "side": None if self._size is None else self._size.stored,
            "num": self.num,
            "choice": "spread" if self._spread else "first",
            "mirrored": self._mirror_seed is not None,
            "mirror_seed": self._mirror_seed,
            **view_facts(self._images.view),
        }

    def _chosen(self, indices: Iterable[int]) -> Iterator[tuple[int, bool]]:
        """Yield the index in the set of each image of these chunks, and whether it is mirrored."""
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
        image = self._images.seen(place)
        return image.flip(2) if flip else image


@dataclass(frozen=True)
class Latents:
    """Latents of one chunk, on the CPU.

    Attributes:
        z: [CHUNK, z_dim].
        c: labels [CHUNK, c_dim]; None where the generator takes none.
    """

    z: Tensor
    c: Tensor | None


class GeneratedImages(AbstractSource):
    """Images of a generator, by default without truncation, with random noise for each.

    Latents, labels and noise are drawn on the CPU from (seed, index), so the images are the same on
    any device up to rounding.

    Args:
        generator: in eval mode, on its device.
        num: number of images.
        seed: seed of latents, labels and noise.
        labels: table from which labels are drawn, for a conditional generator.
        psi: truncation; 1 for none.
        noise_mode: as for `synthesis`.
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
        self._step = min(max(_PIXELS_AT_ONCE // generator.img_size.num_pixels, 1), CHUNK)

    def chunks(self, indices: Iterable[int]) -> Iterator[Sequence[Tensor]]:
        """Yield chunks, as `AbstractSource.chunks`."""
        for index in indices:
            batches = self.render(self.map(self.draw(index)), index)
            images = [image for batch in batches for image in self.generator.pixels.seen(batch)]
            yield images[: self.chunk_size(index)]

    def facts(self) -> dict[str, object]:
        """Return everything that determines the images, except the network."""
        return {
            "num": self.num,
            "seed": self._seed,
            "labels": self._labels is not None,
            "truncation": self._psi,
            "noise": self._noise_mode,
            "precision": str(self.generator.compute_dtype).removeprefix("torch."),
            **view_facts(self.generator.pixels.view),
        }

    def draw(self, index: int) -> Latents:
        """Draw the latents of a whole chunk."""
        stream = generator_for("metric latents", seed=self._seed, nimg=index * CHUNK)
        z = torch.randn([CHUNK, self.generator.z_dim], generator=stream)
        return Latents(z, None if self._labels is None else self._labels.draw(CHUNK, stream))

    @torch.no_grad()
    def map(self, latents: Latents) -> Tensor:
        """Map the latents of a chunk to ws [CHUNK, num_ws, w_dim], on the generator's device."""
        device = next(self.generator.parameters()).device
        c = None if latents.c is None else latents.c.to(device)
        ws: Tensor = self.generator.mapping(latents.z.to(device), c, truncation_psi=self._psi)
        return ws

    def render(self, ws: Tensor, index: int) -> Iterator[Tensor]:
        """Yield the images of a chunk in batches, float [N, C, H, W], nominally in [-1, 1].

        Batches are always complete, so the last one may exceed `chunk_size`: noise is drawn per
        batch, and classifiers that mix the images of a batch must not depend on the count.

        Raises:
            WeightsError: if an image is not finite.
        """
        for first in range(0, self.chunk_size(index), self._step):
            noise = generator_for("metric noise", seed=self._seed, nimg=index * CHUNK + first)
            with torch.no_grad():
                batch = self.generator.synthesis(
                    ws[first : first + self._step], noise_mode=self._noise_mode, generator=noise
                )
            check_finite(batch)
            yield batch


def view_facts(view: str | None) -> dict[str, object]:
    """Return the entry of a record on how feature networks see images; none for grey and RGB."""
    return {} if view is None else {"view": view}


def check_finite(values: Tensor) -> None:
    """Check that images, or values computed from them, are finite.

    Raises:
        WeightsError: if a value is not finite, as after diverged training.
    """
    if not values.isfinite().all():
        raise WeightsError(
            "the generator makes images that are not finite", fix="evaluate an earlier snapshot"
        )


def compute_chunks(
    source: AbstractSource,
    compute: Callable[[int], Tensor],
    *,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    progress: Counter | None = None,
) -> Iterator[Tensor]:
    """Compute rows for each chunk, distributed over the ranks, and yield them in order on rank 0.

    Other ranks yield nothing. The result is that of one process.

    Args:
        source: the images.
        compute: maps the index of a chunk to rows [n, *shape] on the CPU, one for each image.
        shape: shape of a row.
        dtype: data type of the rows.
        progress: called on rank 0 with the number of finished images.
    """
    world, own_rank = distributed.world_size(), distributed.rank()
    for first in range(0, source.num_chunks, world):
        # gather needs equal shapes: short chunks are padded and cut again
        padded = torch.zeros(CHUNK, *shape, dtype=dtype)
        if size := source.chunk_size(first + own_rank):
            padded[:size] = compute(first + own_rank)[:size]
        for rank, rows in enumerate(distributed.gather(padded)):
            if size := source.chunk_size(first + rank):
                yield rows[:size]
        if progress is not None and distributed.is_main_process():
            progress(min((first + world) * CHUNK, source.num), source.num)
