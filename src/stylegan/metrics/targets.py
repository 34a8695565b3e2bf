"""The target of an evaluation, and the real images that it is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass

from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import LabelTable
from stylegan.errors import ConfigError, DataError
from stylegan.image_size import ImageSize
from stylegan.metrics.protocols import AbstractProtocol
from stylegan.metrics.sources import GeneratedImages, ImageSet, StoredImages
from stylegan.models.base import AbstractGenerator


@dataclass(frozen=True, kw_only=True)
class NetworkTarget:
    """A generator whose images are evaluated.

    Attributes:
        generator: in eval mode, on its device.
        origin: what identifies it, for the record: path, checksum, images shown in training.
        seed: seed of latents, labels and noise.
        labels: table from which labels are drawn, for a conditional generator.
        psi: truncation; 1, as in the papers, for none.
    """

    generator: AbstractGenerator
    origin: Mapping[str, object]
    seed: int = 0
    labels: LabelTable | None = None
    psi: float = 1.0

    @property
    def size(self) -> ImageSize:
        """Height and width of the images."""
        return self.generator.current_size

    @property
    def num_channels(self) -> int:
        """Channels as they are seen: 1 for grayscale, else 3."""
        return 1 if self.generator.img_channels == 1 else 3

    def source(self, num: int) -> GeneratedImages:
        """Return the first `num` images."""
        return GeneratedImages(
            self.generator, num=num, seed=self.seed, labels=self.labels, psi=self.psi
        )

    def facts(self, num: int) -> dict[str, object]:
        """Return the target's part of a record."""
        images = self.source(num).facts()
        return {"kind": "network", "side": self.size.stored, **images, "origin": dict(self.origin)}


@dataclass(frozen=True, kw_only=True)
class ImagesTarget:
    """Stored images that are evaluated.

    Attributes:
        images: the set.
        size: height and width of the images; None for images of any size.
    """

    images: ImageSet
    size: ImageSize | None = None

    @property
    def num_channels(self) -> int | None:
        """1 for grayscale, 3 for RGB; None for a set of both."""
        return self.images.num_channels

    def source(self, num: int) -> StoredImages:
        """Return the first `num` images.

        Raises:
            DataError: if there are fewer.
        """
        if len(self.images) < num:
            raise DataError(
                f"{self.images.path} has {len(self.images)} images, and the metric needs {num}; "
                f"write {len(self.images)} or less in its name"
            )
        return StoredImages(self.images, num=num, size=self.size)

    def facts(self, num: int) -> dict[str, object]:
        """Return the target's part of a record."""
        return {"kind": "images", **self.source(num).facts(), "origin": _origin(self.images)}


EvaluationTarget = NetworkTarget | ImagesTarget


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """Real images that generated ones are compared with.

    Attributes:
        images: the set; not the mirrored form of an `ImageDataset`.
        size: height and width of the images; None for images of any size.
        is_mirrored: whether the network was trained on mirrored images, too. Protocols that follow
            this mirror each image with probability 0.5.
        seed: seed of the mirroring.
    """

    images: ImageSet
    size: ImageSize | None = None
    is_mirrored: bool = False
    seed: int = 0

    @property
    def num_channels(self) -> int | None:
        """1 for grayscale, 3 for RGB; None for a set of both."""
        return self.images.num_channels

    def source(self, protocol: AbstractProtocol) -> StoredImages:
        """Return the images that a protocol uses."""
        flips = self.is_mirrored and protocol.follows_mirroring
        return StoredImages(
            self.images,
            num=protocol.num_real,
            spread=protocol.spreads_real,
            mirror_seed=self.seed if flips else None,
            size=self.size,
        )

    def facts(self, protocol: AbstractProtocol) -> dict[str, object]:
        """Return the part of a record on real images."""
        return {**self.source(protocol).facts(), "origin": _origin(self.images)}


def network_target(
    generator: AbstractGenerator,
    dataset: ImageDataset | None,
    *,
    origin: Mapping[str, object],
    seed: int,
    psi: float = 1.0,
) -> NetworkTarget:
    """Return a generator as a target, with labels drawn from a dataset if it is conditional.

    Args:
        generator: in eval mode, on its device.
        dataset: the real images.
        origin: as of `NetworkTarget`.
        seed: seed of latents, labels and noise.
        psi: truncation.

    Raises:
        ConfigError: if the labels of the dataset are not those of the generator.
    """
    labels = None
    if generator.c_dim > 0:
        labels = None if dataset is None else dataset.label_table
        if labels is None or labels.dim != generator.c_dim:
            raise ConfigError(
                f"the images have labels of {0 if labels is None else labels.dim} numbers, but the "
                f"network has labels of {generator.c_dim}; pass the images that it was trained on"
            )
    return NetworkTarget(generator=generator, origin=origin, seed=seed, labels=labels, psi=psi)


def training_images(dataset: ImageDataset, *, is_mirrored: bool, seed: int) -> RealImages:
    """Return a training set as real images to compare with."""
    return RealImages(
        images=dataset.without_mirror(), size=dataset.size, is_mirrored=is_mirrored, seed=seed
    )


def _origin(images: ImageSet) -> dict[str, object]:
    """Return where images come from and how they are stored."""
    return {
        "path": images.path,
        "preparation": images.preparation,
        "formats": dict(images.formats),
    }
