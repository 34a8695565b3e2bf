"""Protocols of the metrics: all settings that a metric's name stands for.

Two values are comparable only if they are of one protocol: equal counts, features, covariance and
mirroring. A name determines all of them; `parse` accepts any count in it.

Sources of the settings: the evaluation sections of the papers, and otherwise the names and counts
of the official implementations.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

from stylegan.errors import ConfigError, did_you_mean

Space = Literal["z", "w"]
Sampling = Literal["full", "end"]

INCEPTION = "inception-v3"
VGG = "vgg16"
LPIPS = "lpips-vgg16"

STANDARD: dict[str, str] = {
    "fid50k": "Frechet distance to the first 50,000 real images, as in the papers",
    "fid50k_full": "Frechet distance to all real images, as in StyleGAN2-ADA",
    "kid50k_full": "kernel distance to up to 1,000,000 real images",
    "is50k": "Inception score, 10 splits",
    "pr50k3": "precision and recall against the first 50,000 real images, 3 neighbors",
    "pr50k3_full": "precision and recall against up to 200,000 real images, 3 neighbors",
    "ppl_zfull": "perceptual path length in z, along whole paths, center of faces",
    "ppl_wfull": "perceptual path length in w, along whole paths, center of faces",
    "ppl_zend": "perceptual path length in z, at the ends of paths, center of faces",
    "ppl_wend": "perceptual path length in w, at the ends of paths, center of faces",
    "ppl2_wend": "perceptual path length in w, at the ends of paths, whole images",
    "ls": "linear separability of attributes in z and w, 200,000 images",
    "swd16k": "sliced Wasserstein distance to the first 16,384 real images; no feature network",
}
"""The names used in publications, with a description. Any other count is possible."""


@dataclass(frozen=True, kw_only=True)
class AbstractProtocol(ABC):
    """Settings of all protocols.

    Attributes:
        num_fake: number of generated images, or of pairs for path lengths.
        features: name of the feature network or distance; empty if none is used.
        family: first letters of the name, such as "fid".
        standard_features: the feature network if the name has none.
        values: keys of the resulting values, the main one first.
        is_lower_better: whether lower main values are better.
    """

    num_fake: int
    features: str = ""

    family: ClassVar[str]
    standard_features: ClassVar[str] = ""
    values: ClassVar[tuple[str, ...]]
    is_lower_better: ClassVar[bool] = True
    least_fake: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check the count."""
        if self.num_fake < self.least_fake:
            raise ConfigError(
                f"metric {self.stem} needs at least {self.least_fake} images, got {self.num_fake}"
            )

    @property
    @abstractmethod
    def stem(self) -> str:
        """The canonical name without features, such as "fid5k_full"."""

    @property
    def name(self) -> str:
        """The canonical name, with the features if they are not the standard ones."""
        suffix = "" if self.features == self.standard_features else f":{self.features}"
        return self.stem + suffix

    @property
    def uses_real(self) -> bool:
        """Whether generated images are compared with real ones."""
        return True

    @property
    def num_real(self) -> int | None:
        """Number of real images, the first in storage order; None for all, 0 for none."""
        return self.num_fake if self.uses_real else 0

    @property
    def spreads_real(self) -> bool:
        """Whether real images are spread evenly over the set instead of the first ones."""
        return False

    @property
    def follows_mirroring(self) -> bool:
        """Whether real images are mirrored with probability 0.5 if training mirrored its images."""
        return self.uses_real

    def with_features(self, features: str) -> Self:
        """Return the protocol with other features; unchanged if it uses none."""
        return replace(self, features=features) if self.standard_features else self

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON-like values."""
        return {
            "name": self.name,
            **asdict(self),
            "num_real": self.num_real,
            "spreads_real": self.spreads_real,
            "follows_mirroring": self.follows_mirroring,
        }


@dataclass(frozen=True, kw_only=True)
class FrechetProtocol(AbstractProtocol):
    """Frechet inception distance.

    `fid50k` compares with the first `num_fake` real images, mirrored as in training, and divides
    the covariances by N - 1, as the official code of StyleGAN and StyleGAN2 does. `fid50k_full`
    compares with all real images, not mirrored, and divides by N, as StyleGAN2-ADA does.

    Source: Heusel et al. 2017, section 3.
    """

    features: str = INCEPTION
    full: bool = False

    family: ClassVar[str] = "fid"
    standard_features: ClassVar[str] = INCEPTION
    values: ClassVar[tuple[str, ...]] = ("fid",)
    least_fake: ClassVar[int] = 2

    @property
    def stem(self) -> str:
        """Such as "fid50k_full"."""
        return f"{self.family}{_count(self.num_fake)}{_full(self.full)}"

    @property
    def num_real(self) -> int | None:
        """As many as generated images; all if `full`."""
        return None if self.full else self.num_fake

    @property
    def follows_mirroring(self) -> bool:
        """Unless `full`."""
        return not self.full

    @property
    def unbiased(self) -> bool:
        """Whether covariances are divided by N - 1 instead of N."""
        return not self.full


@dataclass(frozen=True, kw_only=True)
class KernelProtocol(AbstractProtocol):
    """Kernel inception distance; `full` uses up to 1,000,000 real images, not mirrored.

    Without `full`, a variant that no official code has, as many real images as generated images are
    used, at even distances over the set, which may be sorted by content.

    Source: Binkowski et al. 2018, section 4.

    Attributes:
        num_subsets: number of random subsets, whose estimates are averaged.
        max_subset: maximum number of images in each.
    """

    features: str = INCEPTION
    full: bool = False
    num_subsets: int = 100
    max_subset: int = 1000

    family: ClassVar[str] = "kid"
    standard_features: ClassVar[str] = INCEPTION
    values: ClassVar[tuple[str, ...]] = ("kid",)
    least_fake: ClassVar[int] = 2

    @property
    def stem(self) -> str:
        """Such as "kid50k_full"."""
        return f"{self.family}{_count(self.num_fake)}{_full(self.full)}"

    @property
    def num_real(self) -> int | None:
        """As many as generated images; up to 1,000,000 if `full`."""
        return 1_000_000 if self.full else self.num_fake

    @property
    def spreads_real(self) -> bool:
        """Unless `full`."""
        return not self.full

    @property
    def follows_mirroring(self) -> bool:
        """Unless `full`."""
        return not self.full


@dataclass(frozen=True, kw_only=True)
class InceptionScoreProtocol(AbstractProtocol):
    """Inception score; uses no real images.

    Source: Salimans et al. 2016, section 4.

    Attributes:
        num_splits: number of contiguous splits, whose scores are averaged.
    """

    features: str = INCEPTION
    num_splits: int = 10

    family: ClassVar[str] = "is"
    standard_features: ClassVar[str] = INCEPTION
    values: ClassVar[tuple[str, ...]] = ("is",)
    is_lower_better: ClassVar[bool] = False
    least_fake: ClassVar[int] = 10

    @property
    def stem(self) -> str:
        """Such as "is50k"."""
        return f"{self.family}{_count(self.num_fake)}"

    @property
    def uses_real(self) -> bool:
        """No."""
        return False


@dataclass(frozen=True, kw_only=True)
class PrecisionRecallProtocol(AbstractProtocol):
    """Improved precision and recall; `full` uses up to 200,000 real images, not mirrored.

    The name ends in the number of neighbors: `pr50k3`, `pr5k10`; it follows an underscore if the
    count is not a multiple of a thousand, `pr500_3`.

    Source: Kynkaanniemi et al. 2019, section 2.

    Attributes:
        num_neighbors: k of the k-NN radii; an image is not its own neighbor.
    """

    features: str = VGG
    full: bool = False
    num_neighbors: int = 3

    family: ClassVar[str] = "pr"
    standard_features: ClassVar[str] = VGG
    values: ClassVar[tuple[str, ...]] = ("precision", "recall")
    is_lower_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the counts."""
        if not 1 <= self.num_neighbors < self.num_fake:
            raise ConfigError(
                f"metric {self.stem} needs at least 1 neighbor and more images than neighbors, got "
                f"{self.num_neighbors} neighbors and {self.num_fake} images"
            )

    @property
    def stem(self) -> str:
        """Such as "pr50k3_full"."""
        count = _count(self.num_fake)
        apart = "" if count.endswith("k") else "_"
        return f"{self.family}{count}{apart}{self.num_neighbors}{_full(self.full)}"

    def record(self) -> dict[str, Any]:
        """Return all settings; the key of the neighbors is that of earlier records."""
        settings = super().record()
        return settings | {"neighbours": settings.pop("num_neighbors")}

    @property
    def num_real(self) -> int | None:
        """As many as generated images; up to 200,000 if `full`."""
        return 200_000 if self.full else self.num_fake

    @property
    def follows_mirroring(self) -> bool:
        """Unless `full`."""
        return not self.full


@dataclass(frozen=True, kw_only=True)
class PathLengthProtocol(AbstractProtocol):
    """Perceptual path length: `ppl_` of the center of aligned faces, `ppl2_` of whole images.

    Without a count in the name 50,000 pairs are used, as in the official code since StyleGAN2;
    StyleGAN used 100,000, `ppl_100k_wfull`.

    Source: Karras et al. 2019 (StyleGAN), section 4.1.

    Attributes:
        space: "z" for great circles in z, "w" for lines in w.
        sampling: "full" for random positions on a path, "end" for its start.
        crop: whether images are cropped to their center.
        epsilon: length of a step, as a fraction of the path.
        lowest: percentile below which values are excluded.
        highest: percentile above which values are excluded.
    """

    num_fake: int = 50_000
    features: str = LPIPS
    space: Space = "w"
    sampling: Sampling = "end"
    crop: bool = False
    epsilon: float = 1e-4
    lowest: int = 1
    highest: int = 99

    family: ClassVar[str] = "ppl"
    standard_features: ClassVar[str] = LPIPS
    values: ClassVar[tuple[str, ...]] = ("ppl",)

    @property
    def stem(self) -> str:
        """Such as "ppl2_wend" or "ppl_10k_zfull"."""
        count = "" if self.num_fake == 50_000 else f"{_count(self.num_fake)}_"
        return f"{self.family}{'' if self.crop else '2'}_{count}{self.space}{self.sampling}"

    @property
    def uses_real(self) -> bool:
        """No."""
        return False


@dataclass(frozen=True, kw_only=True)
class SeparabilityProtocol(AbstractProtocol):
    """Linear separability of binary attributes in z and in w.

    Source: Karras et al. 2019 (StyleGAN), section 4.2.
    """

    num_fake: int = 200_000

    family: ClassVar[str] = "ls"
    values: ClassVar[tuple[str, ...]] = ("ls_w", "ls_z")
    least_fake: ClassVar[int] = 2

    @property
    def stem(self) -> str:
        """Such as "ls" or "ls20k"."""
        return self.family + ("" if self.num_fake == 200_000 else _count(self.num_fake))

    @property
    def uses_real(self) -> bool:
        """No."""
        return False

    @property
    def num_kept(self) -> int:
        """Number of images with the most confident labels that are used: half of them."""
        return self.num_fake // 2


@dataclass(frozen=True, kw_only=True)
class SlicedWassersteinProtocol(AbstractProtocol):
    """Sliced Wasserstein distance; uses no feature network.

    In its name k means 1,024, since the paper's 16k are 16,384 images. Values are multiplied by
    1e3; those of the levels are called `swd_64`, `swd_32` and so on.

    Source: Karras et al. 2018 (ProGAN), section 5.
    """

    family: ClassVar[str] = "swd"
    values: ClassVar[tuple[str, ...]] = ("swd",)

    @property
    def stem(self) -> str:
        """Such as "swd16k"."""
        return self.family + _count(self.num_fake, thousand=1024)


def parse(text: str) -> AbstractProtocol:
    """Return the protocol of a name.

    Args:
        text: such as `fid50k_full`, `ppl2_10k_wend` or `fid5k:efficientnet-lite0`, with other
            features than the standard ones after a colon. Counts are plain numbers, or thousands
            with a k.

    Raises:
        ConfigError: if there is no such metric, its count is too small, or features are named for
            a metric without any.
    """
    stem, colon, features = text.strip().partition(":")
    for pattern, build in _GRAMMAR:
        if match := re.fullmatch(pattern, stem):
            protocol = build(match)
            break
    else:
        raise ConfigError(
            f"metric {text!r} does not exist; the metrics are {', '.join(STANDARD)}, with any "
            f"count, such as fid5k_full{did_you_mean(stem, STANDARD)}"
        )
    if not colon:
        return protocol
    if not features or not protocol.standard_features:
        raise ConfigError(
            f"metric {text!r}: a colon precedes the name of a feature network, of metrics that use "
            f"one; write {protocol.stem}"
        )
    return protocol.with_features(features)


def parse_all(
    metrics: str | Sequence[str], *, features: str | None = None
) -> list[AbstractProtocol]:
    """Return the protocols of several names, without duplicates.

    Args:
        metrics: names, or a text of names separated by commas.
        features: the feature network of metrics that do not name one; None for the standard ones.

    Raises:
        ConfigError: if there is no name, or a metric does not exist.
    """
    texts = [metrics] if isinstance(metrics, str) else metrics
    names = [name for text in texts for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError("no metrics are given", expected=f"one or more of {', '.join(STANDARD)}")
    protocols: dict[str, AbstractProtocol] = {}
    for name in names:
        protocol = parse(name)
        if features is not None and ":" not in name:
            protocol = protocol.with_features(features)
        protocols[protocol.name] = protocol
    return list(protocols.values())


def _count(number: int, *, thousand: int = 1000) -> str:
    """Format a count: 5k, or 500."""
    return f"{number // thousand}k" if number and number % thousand == 0 else str(number)


def _number(text: str, *, thousand: int = 1000) -> int:
    return int(text[:-1]) * thousand if text.endswith("k") else int(text)


def _full(full: bool) -> str:
    return "_full" if full else ""


def _parse_path_length(match: re.Match[str]) -> PathLengthProtocol:
    whole, count, space, sampling = match.groups()
    return PathLengthProtocol(
        num_fake=_number(count) if count else 50_000,
        space="z" if space == "z" else "w",
        sampling="full" if sampling == "full" else "end",
        crop=not whole,
    )


def _parse_precision_recall(match: re.Match[str]) -> PrecisionRecallProtocol:
    thousands, together, number, apart, full = match.groups()
    return PrecisionRecallProtocol(
        num_fake=_number(thousands or number), num_neighbors=int(together or apart), full=bool(full)
    )


_GRAMMAR: list[tuple[str, Callable[[re.Match[str]], AbstractProtocol]]] = [
    (
        r"fid(\d+k?)(_full)?",
        lambda match: FrechetProtocol(num_fake=_number(match[1]), full=bool(match[2])),
    ),
    (
        r"kid(\d+k?)(_full)?",
        lambda match: KernelProtocol(num_fake=_number(match[1]), full=bool(match[2])),
    ),
    (r"is(\d+k?)", lambda match: InceptionScoreProtocol(num_fake=_number(match[1]))),
    (r"pr(?:(\d+k)(\d+)|(\d+)_(\d+))(_full)?", _parse_precision_recall),
    (r"ppl(2?)_(?:(\d+k?)_)?([zw])(full|end)", _parse_path_length),
    (
        r"ls(\d+k?)?",
        lambda match: SeparabilityProtocol(num_fake=_number(match[1] or "200k")),
    ),
    (
        r"swd(\d+k?)",
        lambda match: SlicedWassersteinProtocol(num_fake=_number(match[1], thousand=1024)),
    ),
]
"""Patterns of complete names, and the protocols that they stand for."""
