"""One evaluation: what its metrics share, and each metric from images to values."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylegan import distributed
from stylegan.files import new_array
from stylegan.metrics.features import (
    Extracted,
    Request,
    Want,
    cache_folder,
    extract,
    writable_folder,
)
from stylegan.metrics.frechet import frechet_distance
from stylegan.metrics.inception_score import inception_score
from stylegan.metrics.kernel import kernel_distance
from stylegan.metrics.path_length import filtered_mean, path_length_values
from stylegan.metrics.precision_recall import precision_recall
from stylegan.metrics.protocols import (
    AbstractProtocol,
    FrechetProtocol,
    InceptionScoreProtocol,
    KernelProtocol,
    PathLengthProtocol,
    PrecisionRecallProtocol,
    SeparabilityProtocol,
    SlicedWassersteinProtocol,
)
from stylegan.metrics.separability import separability
from stylegan.metrics.sliced_wasserstein import sliced_wasserstein_distance
from stylegan.metrics.sources import CHUNK, AbstractSource, in_turn
from stylegan.metrics.targets import EvaluationTarget, NetworkTarget, RealImages
from stylegan.models.classifiers import Classifier
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance
from stylegan.progress import Progress
from stylegan.rng import generator_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationDependencies:
    """What metrics need beside images, loaded before anything else so that what lacks fails first.

    Attributes:
        detectors: feature networks by name.
        distances: perceptual distances by name.
        classifiers: of attributes, for linear separability.
    """

    detectors: Mapping[str, AbstractDetector] = field(default_factory=dict)
    distances: Mapping[str, AbstractDistance] = field(default_factory=dict)
    classifiers: Sequence[Classifier] = ()


@dataclass(frozen=True, kw_only=True)
class MetricValues:
    """What the mathematics gives: values by key, the main one first."""

    values: Mapping[str, float]
    error: float | None = None
    per_image: Tensor | None = None
    details: Mapping[str, object] = field(default_factory=dict)


class Session:
    """One evaluation: what its metrics share, computed when the first of them needs it."""

    def __init__(
        self,
        protocols: Sequence[AbstractProtocol],
        target: EvaluationTarget,
        reals: RealImages | None,
        dependencies: EvaluationDependencies,
        scratch: Path,
        progress: Progress | None,
    ) -> None:
        self._protocols = protocols
        self._target = target
        self._reals = reals
        self._dependencies = dependencies
        self._scratch = scratch
        self._progress = progress

    def measure(self, protocol: AbstractProtocol) -> MetricValues | None:
        """Compute a metric; None for all processes but the leader."""
        match protocol:
            case PathLengthProtocol():
                return self._path_length(protocol)
            case SeparabilityProtocol():
                return self._separability(protocol)
            case SlicedWassersteinProtocol():
                return self._sliced_wasserstein(protocol)
        real = self._real_features(protocol) if protocol.uses_real else Extracted()
        fake = self._fake_features(protocol)
        if not distributed.is_main_process():
            return None
        with distributed.keep_others_waiting():
            return self._distance(protocol, real, fake)

    def _distance(
        self, protocol: AbstractProtocol, real: Extracted, fake: Extracted
    ) -> MetricValues:
        """Compute a metric from the features of all images, on rank 0."""
        self._tell("distance", 0, 1)
        match protocol:
            case FrechetProtocol():
                assert real.moments is not None
                assert fake.moments is not None
                value = frechet_distance(real.moments, fake.moments, unbiased=protocol.unbiased)
                return MetricValues(values={"fid": value})
            case KernelProtocol():
                assert real.float32 is not None
                assert fake.float32 is not None
                found = kernel_distance(
                    real.float32,
                    fake.float32,
                    generator=generator_for("kid subsets", seed=self._seed),
                    num_subsets=protocol.num_subsets,
                    max_subset=protocol.max_subset,
                )
                return MetricValues(values={"kid": found.value}, error=found.error)
            case InceptionScoreProtocol():
                assert fake.float32 is not None
                score = inception_score(
                    self._probabilities(protocol.features, fake.float32),
                    num_splits=protocol.num_splits,
                )
                return MetricValues(values={"is": score.mean}, error=score.std)
            case PrecisionRecallProtocol():
                assert real.float16 is not None
                assert fake.float16 is not None
                shares = precision_recall(real.float16, fake.float16, k=protocol.neighbours)
                return MetricValues(values={"precision": shares.precision, "recall": shares.recall})
        raise AssertionError(f"no way to measure {protocol.name}")

    def _path_length(self, protocol: PathLengthProtocol) -> MetricValues | None:
        """Measure pairs of images, whose count is that of the images of a source."""
        assert isinstance(self._target, NetworkTarget)
        source = self._target.source(protocol.num_fake)
        distance = self._dependencies.distances[protocol.features]

        def compute(index: int) -> Tensor:
            return path_length_values(
                source.generator,
                distance,
                protocol,
                seed=self._seed,
                index=index,
                size=CHUNK,
                num=source.chunk_size(index),
                labels=source.draw(index).c,
            )

        told = self._teller(protocol.name)
        values = list(in_turn(source, compute, shape=[], dtype=torch.float64, progress=told))
        if not distributed.is_main_process():
            return None
        per_image = torch.cat(values)
        mean = filtered_mean(per_image, lowest=protocol.lowest, highest=protocol.highest)
        return MetricValues(values={"ppl": mean}, per_image=per_image)

    def _separability(self, protocol: SeparabilityProtocol) -> MetricValues | None:
        """Label images by the classifiers, then ask how well a plane in z and in w tells them."""
        assert isinstance(self._target, NetworkTarget)
        source, classifiers = self._target.source(protocol.num_fake), self._dependencies.classifiers
        widths = [source.generator.z_dim, source.generator.w_dim, len(classifiers)]

        def compute(index: int) -> Tensor:
            drawn = source.draw(index)
            ws = source.map(drawn)
            logits = [
                torch.stack([classifier.logits(part) for classifier in classifiers], dim=1)
                for part in source.render(ws, index)
            ]
            size = source.chunk_size(index)  # cut now: a classifier may mix the images of a part
            columns = [drawn.z, ws[:, -1].cpu(), torch.cat(logits).cpu()]
            return torch.cat([column[:size] for column in columns], dim=1)

        told = self._teller(protocol.name)
        rows = list(in_turn(source, compute, shape=[sum(widths)], progress=told))
        if not distributed.is_main_process():
            return None
        z, w, logits = torch.split(torch.cat(rows), widths, dim=1)
        self._tell("planes", 0, 1)
        kept = protocol.num_kept
        with distributed.keep_others_waiting():
            in_w, in_z = (separability(each, logits, num_kept=kept) for each in (w, z))
        for place in in_w.one_sided:
            logger.warning(
                "%s: the classifier %s says the same of all images, which counts as separable",
                protocol.name,
                classifiers[place].name,
            )
        return MetricValues(
            values={"ls_w": in_w.score, "ls_z": in_z.score},
            details={
                "attributes": [classifier.name for classifier in classifiers],
                "entropies_w": list(in_w.entropies),
                "entropies_z": list(in_z.entropies),
                "unfinished_planes": in_w.num_unfinished + in_z.num_unfinished,
            },
        )

    def _sliced_wasserstein(self, protocol: SlicedWassersteinProtocol) -> MetricValues | None:
        """Compare images of both sides, which lie in files while patches of them are cut."""
        assert self._reals is not None
        assert self._target.side is not None
        real, fake = self._reals.source(protocol), self._target.source(protocol.num_fake)
        # grey becomes RGB beside color, as feature networks see it
        is_grey = self._reals.num_channels == self._target.num_channels == 1
        shape = (1 if is_grey else 3, self._target.side, self._target.side)
        first, second = (
            self._pixels(source, f"{protocol.name} {which}", shape)
            for which, source in (("real", real), ("fake", fake))
        )
        if first is None or second is None:
            return None
        self._tell("distance", 0, 1)
        with distributed.keep_others_waiting():
            found = sliced_wasserstein_distance(first, second, seed=self._seed)
        levels = {f"swd_{level}": value for level, value in found.levels.items()}
        return MetricValues(values={"swd": found.average, **levels})

    def _pixels(
        self, source: AbstractSource, label: str, shape: tuple[int, int, int]
    ) -> Tensor | None:
        """Give the leader images of one size, uint8 [N, *shape], in a file of the scratch."""
        mine = source.chunks(range(distributed.rank(), source.num_chunks, distributed.world_size()))
        path = self._scratch / f"{label}.npy"
        stored: NDArray[np.uint8] | None = None
        if distributed.is_main_process():
            stored = new_array(path, dtype=np.uint8, shape=(source.num, *shape))

        def compute(index: int) -> Tensor:
            return torch.stack([image.expand(shape) for image in next(mine)]).cpu()

        done = 0
        rows = in_turn(
            source, compute, shape=shape, dtype=torch.uint8, progress=self._teller(label)
        )
        for part in rows:
            assert stored is not None
            stored[done : done + len(part)] = part.numpy()
            done += len(part)
        return None if stored is None else torch.from_numpy(stored)

    def _real_features(self, protocol: AbstractProtocol) -> Extracted:
        """Return features of the real images that a protocol takes, from the cache or into it."""
        assert self._reals is not None
        source = self._reals.source(protocol)
        alike = [
            other
            for other in self._featured
            if other.uses_real and self._reals.source(other).facts() == source.facts()
        ]
        requests = {
            name: Request(
                detector=self._dependencies.detectors[name],
                wants=wants,
                folder=writable_folder(
                    cache_folder(source, self._dependencies.detectors[name]),
                    wants,
                    otherwise=self._scratch / f"real-{source.num}-{name}",
                ),
            )
            for name, wants in _wanted(alike).items()
        }
        return extract(source, requests, progress=self._teller("real images"))[protocol.features]

    def _fake_features(self, protocol: AbstractProtocol) -> Extracted:
        """Return features of as many measured images as a protocol takes."""
        source = self._target.source(protocol.num_fake)
        alike = [other for other in self._featured if other.num_fake == protocol.num_fake]
        requests = {
            name: Request(
                detector=self._dependencies.detectors[name],
                wants=wants,
                folder=self._scratch / f"{source.num}-{name}",
            )
            for name, wants in _wanted(alike).items()
        }
        label = "generated images" if isinstance(self._target, NetworkTarget) else "images"
        return extract(source, requests, progress=self._teller(label))[protocol.features]

    def _probabilities(self, name: str, features: NDArray[np.float32]) -> Tensor:
        detector = self._dependencies.detectors[name]
        device = next(detector.parameters()).device
        with torch.no_grad():
            parts = [
                detector.probabilities(torch.from_numpy(rows.copy()).to(device)).cpu()
                for rows in np.array_split(features, -(-len(features) // 1000))
            ]
        return torch.cat(parts)

    @property
    def _featured(self) -> list[AbstractProtocol]:
        """The protocols that look at features of a network; a distance may have the same name."""
        return [
            other
            for other in self._protocols
            if other.features in self._dependencies.detectors
            and not isinstance(other, PathLengthProtocol)
        ]

    @property
    def _seed(self) -> int:
        """Of what is drawn beside the images."""
        return self._target.seed if isinstance(self._target, NetworkTarget) else 0

    def _teller(self, label: str) -> Callable[[float, float | None], None]:
        return lambda done, total: self._tell(label, int(done), int(total or 0))

    def _tell(self, label: str, done: int, total: int) -> None:
        if self._progress is not None and distributed.is_main_process():
            self._progress(label, done, total)


def _wanted(protocols: Sequence[AbstractProtocol]) -> dict[str, set[Want]]:
    """Return what these protocols keep of the features of each network, together."""
    wanted: dict[str, set[Want]] = {}
    for protocol in protocols:
        match protocol:
            case FrechetProtocol():
                want: Want = "moments"
            case PrecisionRecallProtocol():
                want = "float16"
            case _:
                want = "float32"
        wanted.setdefault(protocol.features, set()).add(want)
    return wanted
