"""Evaluation of networks, of folders of images, and of the snapshots of a run."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from stylegan import distributed
from stylegan.data.dataset import ImageDataset
from stylegan.data.pictures import Pictures
from stylegan.data.readers import LOSSY_FORMATS, reading_for
from stylegan.data.sources.open import check_exists
from stylegan.devices import DeviceName, resolve_device
from stylegan.errors import CheckpointError, ConfigError, StyleganError
from stylegan.interop.classifiers import load_classifiers
from stylegan.interop.load import complete_snapshots, load, origin_of, weights_path
from stylegan.latent.render import device_of
from stylegan.metrics import records, suite
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.protocols import (
    AbstractProtocol,
    PathLengthProtocol,
    SeparabilityProtocol,
    parse_all,
)
from stylegan.metrics.ranking import save_ranking as write_ranking
from stylegan.metrics.records import Comparison, Record
from stylegan.metrics.suite import Result, check_of_images, check_reals, load_dependencies
from stylegan.metrics.targets import (
    EvaluationTarget,
    ImagesTarget,
    NetworkTarget,
    RealImages,
    network_target,
    training_images,
)
from stylegan.models import io
from stylegan.models.base import AbstractGenerator
from stylegan.ops.precision import switch_off_tf32
from stylegan.progress import Progress, counter
from stylegan.training.best import keep_best
from stylegan.training.checkpoint import read_config
from stylegan.training.config import RunConfig
from stylegan.training.log import METRICS, read_metrics
from stylegan.workflows import page
from stylegan.workflows.networks import Network

logger = logging.getLogger(__name__)

Mirror = Literal["auto", "yes", "no"]
OnResult = Callable[[Result], None]

POLL_S = 20.0
"""How often `watch` looks for new snapshots."""

_EXPLAINING = ("fake.seed", "fake.origin.nimg", "device", "threads", "versions")
"""Fields of records that may differ between comparable values, and may explain a difference."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of `evaluate` or `watch`.

    Attributes:
        results: in the order in which they were computed; none on ranks above 0.
        out: the file that the records were appended to.
        files: written images sorted by path length.
    """

    results: Sequence[Result]
    out: Path | None = None
    files: Sequence[Path] = ()

    @property
    def records(self) -> list[Record]:
        """The results as JSON-like dictionaries."""
        return [result.record for result in self.results]

    @property
    def values(self) -> dict[str, float]:
        """The main value of each metric, by the metric's name."""
        return {record["metric"]: record["value"] for record in self.records}

    def __str__(self) -> str:
        return "\n".join(map(str, self.results))

    def _repr_html_(self) -> str:
        rows = [
            [record["metric"], name, f"{value:.5g}", f"{record['fake']['num']:,}"]
            for record in self.records
            for name, value in record["values"].items()
        ]
        return page.table(["metric", "value of", "value", "images"], rows)


@dataclass(frozen=True, kw_only=True)
class SnapshotResult(Result):
    """The result of a snapshot of a run; `is_best` of the best snapshot so far by this metric."""

    is_best: bool = False

    def __str__(self) -> str:
        kimg = self.record["nimg"] / 1000
        return f"kimg {kimg:g}: {super().__str__()}{'  best' if self.is_best else ''}"


@dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """The metrics that two files of records have in common.

    Attributes:
        first: the first file.
        second: the second file.
        pairs: the last record of each metric in both files.
    """

    first: Path
    second: Path
    pairs: Sequence[Comparison]

    @property
    def header(self) -> list[str]:
        """Column names of `rows`."""
        return ["metric", str(self.first), str(self.second), "difference"]

    @property
    def rows(self) -> list[list[str]]:
        """Each value of each metric: its name, both values with their errors, the difference."""
        return [
            [
                f"{pair.metric} {name}",
                _value_with_error(pair.first, name),
                _value_with_error(pair.second, name),
                f"{pair.second['values'][name] - pair.first['values'][name]:+.5g}",
            ]
            for pair in self.pairs
            for name in pair.first["values"]
            if name in pair.second["values"]
        ]

    @property
    def notes(self) -> list[str]:
        """What was measured, and the differences in settings that may explain other values."""
        notes = []
        for pair in self.pairs:
            origins = [
                str(record["fake"]["origin"].get("path", "?"))
                for record in (pair.first, pair.second)
            ]
            notes.append(f"of {origins[0]} and {origins[1]}")
            notes += [
                f"{name} {one!r} and {other!r}"
                for name, one, other in pair.differences
                if name.startswith(_EXPLAINING)
            ]
        return list(dict.fromkeys(notes))  # most are the same for all metrics

    def _repr_html_(self) -> str:
        return page.table(self.header, self.rows)


def evaluate(
    network: Network | None = None,
    data: str | Path | None = None,
    *,
    metrics: str | Sequence[str],
    fake: str | Path | None = None,
    real: str | Path | None = None,
    features: str | None = None,
    seed: int = 0,
    mirror: Mirror = "auto",
    psi: float = 1.0,
    classifiers: str | Path | None = None,
    weights_dir: Path | None = None,
    allow_unknown_detector: bool = False,
    out: Path | None = Path("metrics.jsonl"),
    save_ranking: Path | None = None,
    device: DeviceName | torch.device = "auto",
    on_result: OnResult | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a network, or a folder of images, against real images.

    Each result is a JSON record with everything that it depends on: data, weights of the feature
    network, counts, seed, versions. Under torchrun the ranks share the work. The metrics:

        fid50k       Frechet distance to the first 50,000 real images, as in the papers
        fid50k_full  Frechet distance to all real images, as in StyleGAN2-ADA
        kid50k_full  kernel distance to up to 1,000,000 real images
        is50k        Inception score, 10 splits
        pr50k3       precision and recall against the first 50,000 real images, 3 neighbors
        pr50k3_full  precision and recall against up to 200,000 real images, 3 neighbors
        ppl_zfull    perceptual path length in z, along whole paths, center of faces
        ppl_wfull    perceptual path length in w, along whole paths, center of faces
        ppl_zend     perceptual path length in z, at the ends of paths, center of faces
        ppl_wend     perceptual path length in w, at the ends of paths, center of faces
        ppl2_wend    perceptual path length in w, at the ends of paths, whole images
        ls           linear separability of attributes in z and w, 200,000 images
        swd16k       sliced Wasserstein distance to the first 16,384 real images; no feature network

    A name may have any other count (fid5k_full), and another feature network after a colon
    (fid5k:efficientnet-lite0, which needs no download).

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator.
        data: the real images: those that the network was trained on. A folder or zip.
        metrics: names of metrics, separated by commas.
        fake: a folder or zip of images to measure in place of a network, of any size.
        real: a folder or zip of images to compare `fake` with.
        features: the feature network of all metrics that do not name one.
        seed: seed of latents, labels, noise and flips.
        mirror: whether the network was trained on images that were also mirrored; fid50k and others
            then mirror real images, too. "auto" reads it from the network's metadata; without it,
            as for files of other programs and for `fake`, a warning is given and nothing is
            mirrored.
        psi: truncation. The papers measure without it, with 1.
        classifiers: attribute classifiers for ls, as `stylegan train-classifier` writes them.
        weights_dir: a folder with manually downloaded weights of feature networks.
        allow_unknown_detector: run TorchScript files in `weights_dir` that are not NVIDIA's
            published ones. Such files are programs.
        out: the JSON Lines file that records are appended to.
        save_ranking: a folder for images sorted by path length, and their values.
        device: where to compute; a loaded generator stays on its device.
        on_result: called with each result as soon as it is computed.
        progress: called while data is read, weights are downloaded, and images are measured.

    Returns:
        The results, in the order of `metrics`; none on ranks above 0.

    Raises:
        StyleganError: if a metric does not exist or cannot be computed from what is given.
    """
    protocols = parse_all(metrics, features=features)
    _check_options(
        protocols,
        network=network,
        data=data,
        fake=fake,
        real=real,
        psi=psi,
        classifiers=classifiers,
        out=out,
        save_ranking=save_ranking,
    )
    load_for = partial(
        _dependencies,
        protocols,
        classifiers=classifiers,
        weights_dir=weights_dir,
        allow_unknown_detector=allow_unknown_detector,
        progress=progress,
    )
    target: EvaluationTarget
    with distributed.process_group():
        # Missing weights are reported before images are read.
        with distributed.keep_others_waiting():
            if network is not None:
                generator, path = _load_network(network, device, progress)
                if generator.c_dim > 0 and data is None:
                    raise ConfigError(
                        f"{path or 'the network'} draws labels from the images that it was trained "
                        "on; pass them with --data"
                    )
                dependencies = load_for(device=device_of(generator))
                target, reals = _network_and_reals(
                    generator,
                    path,
                    data,
                    protocols,
                    mirror=mirror,
                    seed=seed,
                    psi=psi,
                    progress=progress,
                )
            else:
                assert fake is not None
                dependencies = load_for(device=resolve_device(device))
                target, reals = _read_folders(
                    fake, real, protocols, mirror=mirror, seed=seed, progress=progress
                )
        suite.check(protocols, target, reals, dependencies)
        results: list[Result] = []
        files: list[Path] = []
        by_name = {protocol.name: protocol for protocol in protocols}
        for result in suite.evaluate(protocols, target, reals, dependencies, progress=progress):
            if on_result is not None:
                on_result(result)  # first: a full disk must not lose it
            if out is not None:
                records.append(out, result.record)
            results.append(result)
            protocol = by_name[result.record["metric"]]
            if save_ranking is not None and isinstance(protocol, PathLengthProtocol):
                assert isinstance(target, NetworkTarget)
                files += write_ranking(save_ranking, result, protocol, target)
    return Evaluation(results=results, out=out, files=files)


def compare(first: Path, second: Path) -> MetricComparison:
    """Compare the results of two evaluations.

    The last record of each metric in both files is taken. Records of different settings, such as
    other real images or another precision, are refused.

    Args:
        first: a JSON Lines file of `evaluate`.
        second: another one.

    Returns:
        The values side by side.

    Raises:
        DataError: if a file cannot be read, no metric is in both, or the settings differ.
    """
    return MetricComparison(first=first, second=second, pairs=records.compare(first, second))


def watch(
    run: Path,
    *,
    metrics: str | Sequence[str],
    data: str | Path | None = None,
    features: str | None = None,
    seed: int | None = None,
    classifiers: str | Path | None = None,
    weights_dir: Path | None = None,
    allow_unknown_detector: bool = False,
    device: DeviceName | torch.device = "auto",
    on_result: OnResult | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the snapshots of a run as they come, in another process than the training.

    Every snapshot without a record of these metrics is measured, the newest first, until the run
    is complete. Records are appended to the run's metrics.jsonl and the best snapshot by each
    metric is kept in the run's folder best/, as when training measures itself. While a run grows
    progressively, snapshots are skipped until images have the full size. A snapshot that cannot be
    measured is skipped with a warning.

    Args:
        run: the run's folder.
        metrics: names of metrics, separated by commas.
        data: the real images, if they are not where the run's configuration says.
        features: the feature network of all metrics that do not name one.
        seed: seed of latents, labels, noise and flips; that of the run by default.
        classifiers: attribute classifiers for ls, as `stylegan train-classifier` writes them.
        weights_dir: a folder with manually downloaded weights of feature networks.
        allow_unknown_detector: run TorchScript files in `weights_dir` that are not NVIDIA's
            published ones. Such files are programs.
        device: where to compute.
        on_result: called with each result as soon as it is computed.
        progress: called while data is read, weights are downloaded, and images are measured.

    Returns:
        All results of this call.

    Raises:
        CheckpointError: if there is no such run.
        ConfigError: if it is called in several processes, or a metric does not exist.
        StyleganError: if the real images cannot be read, or a metric cannot use them.
    """
    protocols = parse_all(metrics, features=features)
    if distributed.is_launched():
        raise ConfigError(
            "--watch in several processes is not possible, as they would find different snapshots",
            fix="leave torchrun out",
        )
    config = read_config(run)
    if config is None:
        raise CheckpointError(f"{run} is no run folder: it has no config.json")
    target_device = resolve_device(device)
    seed = config.seed if seed is None else seed
    dependencies = _dependencies(
        protocols,
        classifiers=classifiers,
        weights_dir=weights_dir,
        allow_unknown_detector=allow_unknown_detector,
        device=target_device,
        progress=progress,
    )
    dataset = ImageDataset(
        data or config.data.path,
        resolution=config.generator.resolution,
        on_bad=config.data.on_bad,
        reading=config.data.reading,
        progress=counter(progress, "reading images"),
    )
    reals = training_images(dataset, is_mirrored=config.data.mirror, seed=seed)
    check_reals(protocols, reals, dependencies, size=config.generator.size)
    watched = _WatchedRun(
        run_dir=run,
        protocols=protocols,
        dependencies=dependencies,
        dataset=dataset,
        reals=reals,
        device=target_device,
        seed=seed,
        progress=progress,
    )
    results: list[Result] = []
    for snapshot in _new_snapshots(run, config):
        try:
            for result in watched.measure(snapshot):
                if on_result is not None:
                    on_result(result)
                results.append(result)
        except StyleganError as error:
            logger.warning("%s: not measured (%s)", snapshot, error)
    return Evaluation(results=results, out=run / METRICS)


def is_mirrored(mirror: Mirror, path: Path | None) -> bool | None:
    """Return whether a network was trained on mirrored images; None if that is not known.

    Args:
        mirror: the user's choice; "auto" reads what our training wrote into a native folder.
        path: of the weights; None for a loaded network.
    """
    if mirror != "auto":
        return mirror == "yes"
    if path is not None and io.is_native(path):
        match io.read_metadata(path):
            case {"run": {"data": {"mirror": bool(recorded)}}}:
                return recorded
    return None


@dataclass(frozen=True, kw_only=True)
class _WatchedRun:
    """A run whose snapshots are measured; `keys` has the comparable key of each metric."""

    run_dir: Path
    protocols: Sequence[AbstractProtocol]
    dependencies: EvaluationDependencies
    dataset: ImageDataset
    reals: RealImages
    device: torch.device
    seed: int
    progress: Progress | None
    keys: dict[str, str] = field(default_factory=dict)

    def measure(self, snapshot: Path) -> Iterator[SnapshotResult]:
        """Compute the metrics that a snapshot has no record of, and keep the best snapshot."""
        nimg = int(snapshot.name)
        if self.keys and not self.missing(nimg):
            return
        generator = load(snapshot).to(self.device)
        if generator.lod >= 1:  # metrics of smaller images are not comparable
            return
        target = network_target(generator, self.dataset, origin=origin_of(snapshot), seed=self.seed)
        if not self.keys:  # equal for all snapshots of a run, as their architecture is
            without_real = [protocol for protocol in self.protocols if not protocol.uses_real]
            suite.check(without_real, target, None, self.dependencies)  # others are checked already
            for protocol in self.protocols:
                facts = suite.facts_of(protocol, target, self.reals, self.dependencies)
                self.keys[protocol.name] = records.comparable_key(facts)
        for result in suite.evaluate(
            self.missing(nimg), target, self.reals, self.dependencies, progress=self.progress
        ):
            place = {"nimg": nimg, "snapshot": f"snapshots/{snapshot.name}"}
            record = records.with_comparable_key(result.record) | place
            records.append(self.run_dir / METRICS, record)
            is_best = keep_best(self.run_dir, record, snapshot)
            yield SnapshotResult(record=record, per_image=result.per_image, is_best=is_best)

    def missing(self, nimg: int) -> list[AbstractProtocol]:
        """Return the metrics that a snapshot has no record of with the same settings."""
        measured = {
            (record["metric"], record.get("comparable"))
            for record in read_metrics(self.run_dir)
            if record["nimg"] == nimg
        }
        return [
            protocol
            for protocol in self.protocols
            if (protocol.name, self.keys[protocol.name]) not in measured
        ]


def _new_snapshots(run_dir: Path, config: RunConfig) -> Iterator[Path]:
    """Yield each snapshot once, the newest first, until the run is complete."""
    total = round(config.output.total_kimg * 1000)
    seen: set[str] = set()
    while True:
        snapshots = complete_snapshots(run_dir)
        new = [folder for folder in snapshots if folder.name not in seen]
        if new:
            seen.add(new[-1].name)
            yield new[-1]
        elif snapshots and int(snapshots[-1].name) >= total:
            return
        else:
            time.sleep(POLL_S)


def _check_options(
    protocols: Sequence[AbstractProtocol],
    *,
    network: object,
    data: object,
    fake: object,
    real: object,
    psi: float,
    classifiers: object,
    out: Path | None,
    save_ranking: Path | None,
) -> None:
    """Check what can be checked before anything is loaded or downloaded.

    Raises:
        ConfigError: if options contradict each other, or a metric cannot be computed from them.
    """
    if network is None and fake is None:
        raise ConfigError("nothing to measure: neither --network nor --fake is given")
    if not math.isfinite(psi):
        raise ConfigError(f"--psi must be a finite number, got {psi}")
    of_networks = {
        "--network": network is not None,
        "--data": data is not None,
        "--psi": psi != 1,
        "--classifiers": classifiers is not None,
        "--save-ranking": save_ranking is not None,
    }
    if fake is not None:
        for option, is_given in of_networks.items():
            if is_given:
                raise ConfigError(f"{option} cannot be combined with --fake")
        for protocol in protocols:
            check_of_images(protocol)
    elif real is not None:
        raise ConfigError("--real only applies to --fake; for a network use --data")
    if save_ranking is not None and not any(
        isinstance(protocol, PathLengthProtocol) for protocol in protocols
    ):
        raise ConfigError("--save-ranking needs a path length; add a metric such as ppl2_wend")
    if data is None and real is None:
        check_reals(protocols, None, EvaluationDependencies(), size=None)
    if out is not None:
        _check_writable("--out", out.parent, out)
    if save_ranking is not None:
        _check_writable("--save-ranking", save_ranking)


def _check_writable(option: str, folder: Path, file: Path | None = None) -> None:
    """Create a folder, and check that it and a file in it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "it is a folder" if file is not None and file.is_dir() else None
        if not os.access(folder if file is None or not file.exists() else file, os.W_OK):
            reason = "no permission"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise ConfigError(f"{option} {file or folder} cannot be written ({reason})")


def _dependencies(
    protocols: Sequence[AbstractProtocol],
    *,
    classifiers: str | Path | None,
    weights_dir: Path | None,
    allow_unknown_detector: bool,
    device: torch.device,
    progress: Progress | None,
) -> EvaluationDependencies:
    """Load the networks that metrics need."""
    needs_classifiers = any(isinstance(protocol, SeparabilityProtocol) for protocol in protocols)
    return load_dependencies(
        protocols,
        classifiers=load_classifiers(classifiers, device=device)
        if needs_classifiers and classifiers is not None
        else [],
        weights_dir=weights_dir,
        device=device,
        allow_unknown_detector=allow_unknown_detector,
        progress=counter(progress, "download, MB", scale=1e-6),
    )


def _load_network(
    network: Network, device: DeviceName | torch.device, progress: Progress | None
) -> tuple[AbstractGenerator, Path | None]:
    """Return a generator on its device, and the path of its weights (None if it was loaded)."""
    if isinstance(network, AbstractGenerator):
        switch_off_tf32()
        return network.eval(), None
    where = resolve_device(device)
    path = weights_path(network, progress=counter(progress, "download, MB", scale=1e-6))
    return load(path).to(where), path


def _network_and_reals(
    generator: AbstractGenerator,
    path: Path | None,
    data: str | Path | None,
    protocols: Sequence[AbstractProtocol],
    *,
    mirror: Mirror,
    seed: int,
    psi: float,
    progress: Progress | None,
) -> tuple[NetworkTarget, RealImages | None]:
    """Read the real images if the network's labels or a metric need them."""
    dataset = None
    if data is not None and (generator.c_dim > 0 or any(each.uses_real for each in protocols)):
        dataset = ImageDataset(
            data,
            resolution=generator.current_size,
            reading=reading_for(generator.pixels),
            progress=counter(progress, "reading images"),
        )
    origin = {} if path is None else origin_of(path)
    target = network_target(generator, dataset, origin=origin, seed=seed, psi=psi)
    if dataset is None:
        return target, None
    mirrored = is_mirrored(mirror, path)
    if mirrored is None:
        _warn_of_mirroring(protocols)
    return target, training_images(dataset, is_mirrored=mirrored or False, seed=seed)


def _read_folders(
    fake: str | Path,
    real: str | Path | None,
    protocols: Sequence[AbstractProtocol],
    *,
    mirror: Mirror,
    seed: int,
    progress: Progress | None,
) -> tuple[ImagesTarget, RealImages | None]:
    """Read generated images, and the real ones that they are compared with."""
    for path in (fake, real):
        if path is not None:
            check_exists(path)
    generated = Pictures(fake, progress=counter(progress, "reading images"))
    target = ImagesTarget(images=generated, size=generated.size)
    if real is None:
        return target, None
    pictures = Pictures(real, progress=counter(progress, "reading images"))
    _warn_of_formats(generated, pictures)
    mirrored = is_mirrored(mirror, None)
    if mirrored is None:
        _warn_of_mirroring(protocols)
    return target, RealImages(
        images=pictures, size=pictures.size, is_mirrored=mirrored or False, seed=seed
    )


def _warn_of_mirroring(protocols: Sequence[AbstractProtocol]) -> None:
    """Warn if a metric depends on whether the network was trained on mirrored images."""
    affected = [protocol.name for protocol in protocols if protocol.follows_mirroring]
    if affected and distributed.is_main_process():
        logger.warning(
            "%s: it is not recorded whether the network was trained on mirrored images, so real "
            "images are not mirrored; published values of networks that were need --mirror yes; "
            "--mirror no confirms this choice",
            ", ".join(affected),
        )


def _warn_of_formats(generated: Pictures, real: Pictures) -> None:
    """Warn if one side is stored with lossy compression, and the other is not."""
    counts = [
        {name: num for name, num in each.formats.items() if name in LOSSY_FORMATS}
        for each in (generated, real)
    ]
    if bool(counts[0]) == bool(counts[1]) or not distributed.is_main_process():
        return
    lossy, other = (generated, real) if counts[0] else (real, generated)
    logger.warning(
        "%s has images with lossy compression (%s) and %s has none (%s): metrics also measure the "
        "compression; store both in the same way",
        *(lossy.path, ", ".join(counts[0] or counts[1])),
        *(other.path, ", ".join(other.formats)),
    )


def _value_with_error(record: Mapping[str, Any], name: str) -> str:
    """Format a value, with its error if it is the main one."""
    error = record.get("error") if record["values"][name] == record["value"] else None
    return f"{record['values'][name]:.5g}" + ("" if error is None else f" ± {error:.2g}")
