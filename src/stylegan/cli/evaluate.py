"""`stylegan evaluate`: measure a network or a folder of images, compare results, watch a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.table import Table
from rich.text import Text

from stylegan import dist
from stylegan.cli import options
from stylegan.cli.measuring import (
    Mirror,
    describe,
    is_mirrored,
    measuring,
    protocols_of,
    reading,
    reals_of,
    side_of,
    subject_of,
    tools_for,
)
from stylegan.cli.ranking import save_ranking
from stylegan.cli.watch import watch
from stylegan.data.dataset import ImageDataset
from stylegan.data.pictures import Pictures
from stylegan.errors import ConfigError
from stylegan.interop.load import is_run, load, local_path, newest_snapshot
from stylegan.metrics import records
from stylegan.metrics.measure import Tools
from stylegan.metrics.protocols import (
    STANDARD,
    AbstractProtocol,
    PathLengthProtocol,
)
from stylegan.metrics.subjects import ImagesSubject, NetworkSubject, Reals, Subject
from stylegan.metrics.suite import check, evaluate

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
        device = options.resolve_device(command.device)
        watch(
            command.watch,
            protocols,
            tools_of(command, protocols, device),
            device=device,
            data=command.data,
            seed=command.seed,
        )
        return 0
    with dist.process_group():
        _evaluate(command, protocols)
    return 0


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
    tools = tools_of(command, protocols, device)  # what lacks fails before all that takes time
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


def tools_of(
    command: Evaluate, protocols: Sequence[AbstractProtocol], device: torch.device
) -> Tools:
    """Load what the metrics of a command line need beside images."""
    return tools_for(
        protocols,
        classifiers=command.classifiers,
        weights_dir=command.weights_dir,
        device=device,
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
