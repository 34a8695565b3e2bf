"""What the commands that measure share: names to protocols, networks and sets to subjects."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from stylegan import distributed
from stylegan.cli import options
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError
from stylegan.interop.classifiers import load_classifiers
from stylegan.interop.load import origin_of
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.protocols import STANDARD, AbstractProtocol, SeparabilityProtocol, parse
from stylegan.metrics.suite import load_dependencies
from stylegan.metrics.targets import NetworkTarget
from stylegan.models.base import AbstractGenerator


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

        def observe(done: float, total: float | None) -> None:
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


def _bar() -> Progress:
    """Return a progress bar that only the leader of several processes shows."""
    return options.progress(transient=True, silent=not distributed.is_main_process())


@contextlib.contextmanager
def reading() -> Iterator[Callable[[float, float | None], None]]:
    """Show a progress bar while images are read; gives what to tell."""
    with _bar() as bar:
        task = bar.add_task("reading images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def describe(record: Mapping[str, Any]) -> str:
    """Say a result in a line."""
    values = "  ".join(f"{name} {value:.5g}" for name, value in record["values"].items())
    error = "" if record["error"] is None else f" ± {record['error']:.2g}"
    fake, real = record["fake"]["num"], record["real"]
    counts = f"{fake:,} images" + ("" if real is None else f" against {real['num']:,}")
    return f"{record['metric']}: {values}{error}  ({counts}, {record['seconds']:.0f} s)"
