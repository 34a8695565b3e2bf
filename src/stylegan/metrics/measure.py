"""Computation of each metric from images, sharing features between the metrics of an evaluation."""

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
    FeatureRequest,
    Storage,
    StoredFeatures,
    cache_folder,
    extract,
    usable_folder,
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
from stylegan.metrics.sources import CHUNK, AbstractSource, compute_chunks
from stylegan.metrics.targets import EvaluationTarget, NetworkTarget, RealImages
from stylegan.models.classifiers import Classifier
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance
from stylegan.progress import Progress
from stylegan.rng import generator_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationDependencies:
    """The networks that metrics need; loaded first, so that missing files are reported first.

    Attributes:
        detectors: feature networks by name.
        distances: perceptual distances by name.
        classifiers: attribute classifiers for linear separability.
    """

    detectors: Mapping[str, AbstractDetector] = field(default_factory=dict)
    distances: Mapping[str, AbstractDistance] = field(default_factory=dict)
    classifiers: Sequence[Classifier] = ()


@dataclass(frozen=True, kw_only=True)
class MetricValues:
    """Values of a metric by key, the main one first, with error, values per image and details."""

    values: Mapping[str, float]
    error: float | None = None
    per_image: Tensor | None = None
    details: Mapping[str, object] = field(default_factory=dict)


class Session:
    """One evaluation; features that several metrics share are computed once."""

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
        """Compute a metric; None on ranks above 0."""
        match protocol:
            case PathLengthProtocol():
                return self._path_length(protocol)
            case SeparabilityProtocol():
                return self._separability(protocol)
            case SlicedWassersteinProtocol():
                return self._sliced_wasserstein(protocol)
        real = self._real_features(protocol) if protocol.uses_real else StoredFeatures()
        fake = self._fake_features(protocol)
        if not distributed.is_main_process():
            return None
        with distributed.keep_others_waiting():
            return self._distance(protocol, real, fake)

    def _distance(
        self, protocol: AbstractProtocol, real: StoredFeatures, fake: StoredFeatures
    ) -> MetricValues:
        """Compute a metric from the features of all images, on rank 0."""
        self._report("distance", 0, 1)
        match protocol:
            case FrechetProtocol():
                assert real.moments is not None
                assert fake.moments is not None
                value = frechet_distance(real.moments, fake.moments, unbiased=protocol.unbiased)
                return MetricValues(values={"fid": value})
            case KernelProtocol():
                assert real.float32 is not None
                assert fake.float32 is not None
                distance = kernel_distance(
                    real.float32,
                    fake.float32,
                    generator=generator_for("kid subsets", seed=self._seed),
                    num_subsets=protocol.num_subsets,
                    max_subset=protocol.max_subset,
                )
                return MetricValues(values={"kid": distance.value}, error=distance.error)
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
                result = precision_recall(real.float16, fake.float16, k=protocol.num_neighbors)
                return MetricValues(values={"precision": result.precision, "recall": result.recall})
        raise AssertionError(f"no way to measure {protocol.name}")

    def _path_length(self, protocol: PathLengthProtocol) -> MetricValues | None:
        """Compute the path lengths of as many pairs as the source has images."""
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

        report = self._reporter(protocol.name)
        values = list(
            compute_chunks(source, compute, shape=[], dtype=torch.float64, progress=report)
        )
        if not distributed.is_main_process():
            return None
        per_image = torch.cat(values)
        mean = filtered_mean(per_image, lowest=protocol.lowest, highest=protocol.highest)
        return MetricValues(values={"ppl": mean}, per_image=per_image)

    def _separability(self, protocol: SeparabilityProtocol) -> MetricValues | None:
        """Label images by classifiers, and fit hyperplanes to the labels in z and in w."""
        assert isinstance(self._target, NetworkTarget)
        source, classifiers = self._target.source(protocol.num_fake), self._dependencies.classifiers
        widths = [source.generator.z_dim, source.generator.w_dim, len(classifiers)]

        def compute(index: int) -> Tensor:
            latents = source.draw(index)
            ws = source.map(latents)
            logits = [
                torch.stack([classifier.logits(batch) for classifier in classifiers], dim=1)
                for batch in source.render(ws, index)
            ]
            size = source.chunk_size(index)  # cut after classification, which may mix a batch
            columns = [latents.z, ws[:, -1].cpu(), torch.cat(logits).cpu()]
            return torch.cat([column[:size] for column in columns], dim=1)

        report = self._reporter(protocol.name)
        rows = list(compute_chunks(source, compute, shape=[sum(widths)], progress=report))
        if not distributed.is_main_process():
            return None
        z, w, logits = torch.split(torch.cat(rows), widths, dim=1)
        self._report("hyperplanes", 0, 1)
        kept = protocol.num_kept
        with distributed.keep_others_waiting():
            in_w, in_z = (separability(each, logits, num_kept=kept) for each in (w, z))
        for place in in_w.one_sided:
            logger.warning(
                "%s: the classifier %s gives all images the same label, which counts as separable",
                protocol.name,
                classifiers[place].name,
            )
        return MetricValues(
            values={"ls_w": in_w.score, "ls_z": in_z.score},
            details={
                "attributes": [classifier.name for classifier in classifiers],
                "entropies_w": list(in_w.entropies),
                "entropies_z": list(in_z.entropies),
                "unfinished_planes": in_w.num_not_converged + in_z.num_not_converged,
            },
        )

    def _sliced_wasserstein(self, protocol: SlicedWassersteinProtocol) -> MetricValues | None:
        """Compare the patches of both sets of images, which are stored in files meanwhile."""
        assert self._reals is not None
        assert self._target.size is not None
        real, fake = self._reals.source(protocol), self._target.source(protocol.num_fake)
        # Grayscale is expanded to RGB if the other set is not, as for feature networks.
        is_gray = self._reals.num_channels == self._target.num_channels == 1
        size = self._target.size
        shape = (1 if is_gray else 3, size.height, size.width)
        first, second = (
            self._pixels(source, f"{protocol.name} {which}", shape)
            for which, source in (("real", real), ("fake", fake))
        )
        if first is None or second is None:
            return None
        self._report("distance", 0, 1)
        with distributed.keep_others_waiting():
            distance = sliced_wasserstein_distance(first, second, seed=self._seed)
        levels = {f"swd_{level}": value for level, value in distance.levels.items()}
        return MetricValues(values={"swd": distance.average, **levels})

    def _pixels(
        self, source: AbstractSource, label: str, shape: tuple[int, int, int]
    ) -> Tensor | None:
        """Store images of one size in a temporary file; rank 0 gets uint8 [N, *shape]."""
        mine = source.chunks(range(distributed.rank(), source.num_chunks, distributed.world_size()))
        path = self._scratch / f"{label}.npy"
        stored: NDArray[np.uint8] | None = None
        if distributed.is_main_process():
            stored = new_array(path, dtype=np.uint8, shape=(source.num, *shape))

        def compute(index: int) -> Tensor:
            return torch.stack([image.expand(shape) for image in next(mine)]).cpu()

        done = 0
        rows = compute_chunks(
            source, compute, shape=shape, dtype=torch.uint8, progress=self._reporter(label)
        )
        for part in rows:
            assert stored is not None
            stored[done : done + len(part)] = part.numpy()
            done += len(part)
        return None if stored is None else torch.from_numpy(stored)

    def _real_features(self, protocol: AbstractProtocol) -> StoredFeatures:
        """Return the features of the real images of a protocol, through the cache."""
        assert self._reals is not None
        source = self._reals.source(protocol)
        matching = [
            other
            for other in self._featured
            if other.uses_real and self._reals.source(other).facts() == source.facts()
        ]
        requests = {
            name: FeatureRequest(
                detector=self._dependencies.detectors[name],
                storage=storage,
                folder=usable_folder(
                    cache_folder(source, self._dependencies.detectors[name]),
                    storage,
                    otherwise=self._scratch / f"real-{source.num}-{name}",
                ),
            )
            for name, storage in _storage_of(matching).items()
        }
        return extract(source, requests, progress=self._reporter("real images"))[protocol.features]

    def _fake_features(self, protocol: AbstractProtocol) -> StoredFeatures:
        """Return the features of the generated images of a protocol."""
        source = self._target.source(protocol.num_fake)
        matching = [other for other in self._featured if other.num_fake == protocol.num_fake]
        requests = {
            name: FeatureRequest(
                detector=self._dependencies.detectors[name],
                storage=storage,
                folder=self._scratch / f"{source.num}-{name}",
            )
            for name, storage in _storage_of(matching).items()
        }
        label = "generated images" if isinstance(self._target, NetworkTarget) else "images"
        return extract(source, requests, progress=self._reporter(label))[protocol.features]

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
        """The protocols that use a feature network; a distance may have the same name."""
        return [
            other
            for other in self._protocols
            if other.features in self._dependencies.detectors
            and not isinstance(other, PathLengthProtocol)
        ]

    @property
    def _seed(self) -> int:
        """Seed of everything that is drawn besides the images."""
        return self._target.seed if isinstance(self._target, NetworkTarget) else 0

    def _reporter(self, label: str) -> Callable[[float, float | None], None]:
        return lambda done, total: self._report(label, int(done), int(total or 0))

    def _report(self, label: str, done: int, total: int) -> None:
        if self._progress is not None and distributed.is_main_process():
            self._progress(label, done, total)


def _storage_of(protocols: Sequence[AbstractProtocol]) -> dict[str, set[Storage]]:
    """Return the forms in which these protocols need the features of each network."""
    storage: dict[str, set[Storage]] = {}
    for protocol in protocols:
        match protocol:
            case FrechetProtocol():
                kind: Storage = "moments"
            case PrecisionRecallProtocol():
                kind = "float16"
            case _:
                kind = "float32"
        storage.setdefault(protocol.features, set()).add(kind)
    return storage
