"""Evaluation of several metrics: dependencies, checks, computation and records."""

import logging
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import stylegan
from stylegan import distributed
from stylegan.errors import ConfigError, DataError
from stylegan.image_size import ImageSize
from stylegan.metrics.features import network_facts
from stylegan.metrics.measure import EvaluationDependencies, MetricValues, Session
from stylegan.metrics.path_length import prepared_side
from stylegan.metrics.protocols import (
    STANDARD,
    AbstractProtocol,
    FrechetProtocol,
    InceptionScoreProtocol,
    KernelProtocol,
    PathLengthProtocol,
    PrecisionRecallProtocol,
    SeparabilityProtocol,
    SlicedWassersteinProtocol,
)
from stylegan.metrics.records import Record, describe
from stylegan.metrics.sliced_wasserstein import LOWEST_LEVEL, has_pyramid
from stylegan.metrics.targets import EvaluationTarget, ImagesTarget, NetworkTarget, RealImages
from stylegan.models.classifiers import Classifier
from stylegan.ops.precision import is_tf32
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance
from stylegan.perceptual.networks import (
    CLASSIFYING,
    DETECTORS,
    load_detector,
    load_distance,
)
from stylegan.progress import Counter, Progress

logger = logging.getLogger(__name__)


def load_dependencies(
    protocols: Sequence[AbstractProtocol],
    *,
    classifiers: Sequence[Classifier] = (),
    weights_dir: Path | None = None,
    device: torch.device | str = "cpu",
    allow_unknown_detector: bool = False,
    progress: Counter | None = None,
) -> EvaluationDependencies:
    """Load the networks that metrics need.

    Args:
        protocols: the metrics.
        classifiers: attribute classifiers, on `device`.
        weights_dir: a folder with manually downloaded weights; None for none.
        device: device of the networks.
        allow_unknown_detector: accept TorchScript files in `weights_dir` that are not the published
            ones; such files are programs.
        progress: called while weights are downloaded.

    Raises:
        WeightsError: if a weight file is missing and cannot be downloaded.
        ConfigError: if a metric names an unknown or unsuitable feature network, or classifiers are
            missing.
    """
    detectors: dict[str, AbstractDetector] = {}
    distances: dict[str, AbstractDistance] = {}
    for protocol in protocols:
        name = protocol.features
        if isinstance(protocol, InceptionScoreProtocol) and name in set(DETECTORS) - set(
            CLASSIFYING
        ):
            raise ConfigError(
                f"metric {protocol.name} needs a feature network that classifies: "
                f"{' or '.join(CLASSIFYING)}"
            )
        if isinstance(protocol, SeparabilityProtocol) and not classifiers:
            raise ConfigError(
                f"metric {protocol.name} needs classifiers of attributes; pass --classifiers, a "
                "folder that `stylegan train-classifier` writes"
            )
        options: dict[str, Any] = {
            "weights_dir": weights_dir,
            "device": device,
            "allow_unknown": allow_unknown_detector,
            "progress": progress,
        }
        if isinstance(protocol, PathLengthProtocol):
            if name not in distances:
                distances[name] = load_distance(name, **options)
        elif name and name not in detectors:
            detectors[name] = load_detector(name, **options)
    return EvaluationDependencies(detectors=detectors, distances=distances, classifiers=classifiers)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a metric.

    Attributes:
        record: JSON-like values.
        per_image: for path lengths, the value of each pair, float64 [N]; else None.
    """

    record: Record
    per_image: Tensor | None = None

    def __str__(self) -> str:
        """Return values, errors, counts and time in one line."""
        return describe(self.record)


def check(
    protocols: Sequence[AbstractProtocol],
    target: EvaluationTarget,
    reals: RealImages | None,
    dependencies: EvaluationDependencies,
) -> None:
    """Check that metrics can be computed, before anything is computed; warn of biased values.

    Raises:
        ConfigError: if a metric lacks a network or real images, classifiers do not fit the network,
            or path lengths of truncated or of too small images are requested.
        DataError: if there are fewer images than a metric needs, or their sizes do not fit.
    """
    for protocol in protocols:
        if isinstance(target, ImagesTarget):
            target.source(protocol.num_fake)
            check_of_images(protocol)
        elif isinstance(protocol, PathLengthProtocol) and target.psi != 1:
            raise ConfigError(
                f"metric {protocol.name} needs psi 1, as path lengths are defined without "
                f"truncation, got {target.psi:g}"
            )
        elif isinstance(protocol, SeparabilityProtocol):
            for classifier in dependencies.classifiers:
                channels = target.generator.img_channels
                classifier.check(img_channels=channels, size=target.size)
    check_reals(protocols, reals, dependencies, size=target.size)


def check_of_images(protocol: AbstractProtocol) -> None:
    """Check that a metric is defined for images without a network.

    Raises:
        ConfigError: if it is not.
    """
    if isinstance(protocol, PathLengthProtocol | SeparabilityProtocol):
        raise ConfigError(
            f"metric {protocol.name} cannot be computed from images, as it needs latents; pass a "
            "network with --network"
        )


def check_reals(
    protocols: Sequence[AbstractProtocol],
    reals: RealImages | None,
    dependencies: EvaluationDependencies,
    *,
    size: ImageSize | None,
) -> None:
    """Do the part of `check` that needs no target except for the size of its images.

    Args:
        protocols: the metrics.
        reals: the real images; None if there are none.
        dependencies: from `load_dependencies`.
        size: height and width of the evaluated images; None for images of any size.

    Raises:
        ConfigError: if a metric needs real images and there are none, or the evaluated images are
            too small for path lengths.
        DataError: if there are fewer images than a metric needs, or their sizes do not fit.
    """
    for protocol in protocols:
        if isinstance(protocol, PathLengthProtocol) and size is not None:
            _check_large_enough(protocol, dependencies.distances[protocol.features], size)
        if not protocol.uses_real:
            continue
        if reals is None:
            raise ConfigError(
                f"metric {protocol.name} needs real images; pass --data, or --real with --fake"
            )
        num_real = reals.source(protocol).num
        if distributed.is_main_process() and _takes_first_of_more(
            protocol, num_real, len(reals.images)
        ):
            logger.warning(
                "%s uses the first %d of %d real images, a biased choice if the set is sorted; "
                "kid spreads them over the set, and metrics ending in _full use more",
                protocol.name,
                num_real,
                len(reals.images),
            )
        match protocol:
            case SlicedWassersteinProtocol():
                _check_equal(protocol, reals, num_real, size)
            case PrecisionRecallProtocol() if num_real <= protocol.num_neighbors:
                raise DataError(
                    f"metric {protocol.name} needs more than {protocol.num_neighbors} real images, "
                    f"got {num_real}"
                )
            case FrechetProtocol() | KernelProtocol() if num_real < 2:
                raise DataError(
                    f"metric {protocol.name} needs at least 2 real images, got {num_real}"
                )
            case FrechetProtocol():
                width = dependencies.detectors[protocol.features].num_features
                if distributed.is_main_process() and min(num_real, protocol.num_fake) <= width:
                    logger.warning(
                        "%s of %d against %d images: with no more images than features (%d) it is "
                        "biased upwards and comparable only at equal counts; kid is unbiased",
                        protocol.name,
                        protocol.num_fake,
                        num_real,
                        width,
                    )


def _takes_first_of_more(protocol: AbstractProtocol, num_real: int, num_all: int) -> bool:
    """Return whether a nonstandard protocol uses the first images of a larger set."""
    takes_the_first = protocol.follows_mirroring and not protocol.spreads_real
    return takes_the_first and num_real < num_all and protocol.stem not in STANDARD


def _check_large_enough(
    protocol: PathLengthProtocol, distance: AbstractDistance, size: ImageSize
) -> None:
    """Check that images are large enough for a distance, after cropping and reduction."""
    side = min(size.height, size.width)
    if prepared_side(side, crop=protocol.crop) < distance.smallest:
        raise ConfigError(
            f"metric {protocol.name} of images of side {side}: {distance.name} needs at least "
            f"{distance.smallest} pixels"
            + (f", and the crop leaves {prepared_side(side, crop=True)}" if protocol.crop else ""),
            fix="choose ppl2, which does not crop, or another distance",
        )


def _check_equal(
    protocol: AbstractProtocol, reals: RealImages, num_real: int, size: ImageSize | None
) -> None:
    """Check that both sets have enough images of one size with an image pyramid."""
    if num_real < protocol.num_fake:
        raise DataError(
            f"{reals.images.path} has {num_real} images, and {protocol.name} needs "
            f"{protocol.num_fake}; write a smaller number in its name"
        )
    if size is None or size != reals.size or not has_pyramid(size):
        sizes = (reals.size, size)
        shown = " and ".join("several sizes" if each is None else str(each) for each in sizes)
        raise DataError(
            f"metric {protocol.name} needs images of one size in both sets, with sides of "
            f"{LOWEST_LEVEL} pixels or more, got {shown}; `stylegan data prepare` makes such sets"
        )


def evaluate(
    protocols: Sequence[AbstractProtocol],
    target: EvaluationTarget,
    reals: RealImages | None,
    dependencies: EvaluationDependencies,
    *,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Compute metrics and yield each result as soon as it is known, on rank 0 only.

    Arguments and errors as of `evaluate_on_all_ranks`.
    """
    for result in evaluate_on_all_ranks(protocols, target, reals, dependencies, progress=progress):
        if result is not None:
            yield result


def evaluate_on_all_ranks(
    protocols: Sequence[AbstractProtocol],
    target: EvaluationTarget,
    reals: RealImages | None,
    dependencies: EvaluationDependencies,
    *,
    progress: Progress | None = None,
) -> Iterator[Result | None]:
    """Compute metrics and yield once for each: its result on rank 0, None on other ranks.

    Metrics of equally many images share one pass over them. Features of generated images are in a
    temporary folder until the end, those of real images in the cache. Call `check` first.

    Args:
        protocols: the metrics.
        target: the network or images to evaluate.
        reals: the real images; None if no metric uses them.
        dependencies: from `load_dependencies`.
        progress: called often.

    Raises:
        DataError: if a file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="stylegan-metrics-") as scratch:
        session = Session(protocols, target, reals, dependencies, Path(scratch), progress)
        for protocol in protocols:
            start_s = time.perf_counter()
            measured = session.measure(protocol)
            seconds = time.perf_counter() - start_s
            yield (
                None
                if measured is None
                else Result(
                    record=_record(protocol, target, reals, dependencies, measured, seconds),
                    per_image=measured.per_image,
                )
            )


def facts_of(
    protocol: AbstractProtocol,
    target: EvaluationTarget,
    reals: RealImages | None,
    dependencies: EvaluationDependencies,
) -> Record:
    """Return the part of a record that is known before anything is computed.

    Args:
        protocol: the metric.
        target: the network or images to evaluate.
        reals: the real images.
        dependencies: from `load_dependencies`.
    """
    is_path = isinstance(protocol, PathLengthProtocol)  # always computed in float32
    network = _network(protocol, dependencies)
    device = _device(protocol, target, dependencies)
    return {
        "metric": protocol.name,
        "lower_is_better": protocol.is_lower_better,
        "protocol": protocol.record(),
        "features": None if network is None else network_facts(network),
        "quantized": not isinstance(protocol, PathLengthProtocol | SeparabilityProtocol),
        "fake": target.facts(protocol.num_fake) | ({"precision": "float32"} if is_path else {}),
        "tf32": device.type == "cuda" and is_tf32(),
        "real": reals.facts(protocol) if reals is not None and protocol.uses_real else None,
        "classifiers": [
            {"name": each.name, "index": each.index, "sha256": each.sha256}
            for each in (
                dependencies.classifiers if isinstance(protocol, SeparabilityProtocol) else ()
            )
        ],
    }


def _network(
    protocol: AbstractProtocol, dependencies: EvaluationDependencies
) -> AbstractDetector | AbstractDistance | None:
    """Return the network of a protocol; a detector and a distance may share a name."""
    if isinstance(protocol, PathLengthProtocol):
        return dependencies.distances[protocol.features]
    return dependencies.detectors.get(protocol.features)


def _device(
    protocol: AbstractProtocol, target: EvaluationTarget, dependencies: EvaluationDependencies
) -> torch.device:
    """Return the device of a metric; the CPU for distances of pixels."""
    module = (
        target.generator if isinstance(target, NetworkTarget) else _network(protocol, dependencies)
    )
    return torch.device("cpu") if module is None else next(module.parameters()).device


def _record(
    protocol: AbstractProtocol,
    target: EvaluationTarget,
    reals: RealImages | None,
    dependencies: EvaluationDependencies,
    measured: MetricValues,
    seconds: float,
) -> Record:
    """Return a value with everything that it depends on."""
    device = _device(protocol, target, dependencies)
    is_cuda = device.type == "cuda"
    return {
        "metric": protocol.name,
        "value": measured.values[protocol.values[0]],
        "error": measured.error,
        "values": dict(measured.values),
        **facts_of(protocol, target, reals, dependencies),
        "details": dict(measured.details),
        "versions": {
            "stylegan": stylegan.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": f"cuda, {torch.cuda.get_device_name(device)}" if is_cuda else str(device),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "seconds": round(seconds, 3),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
