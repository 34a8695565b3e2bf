"""`stylegan evaluate`: measure a network or a folder of images, compare results, watch a run."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.table import Table
from rich.text import Text

from stylegan import distributed
from stylegan.cli import options
from stylegan.cli.measuring import (
    Mirror,
    dependencies_for,
    describe,
    is_mirrored,
    measuring,
    protocols_of,
    reading,
    reals_of,
    side_of,
    target_of,
)
from stylegan.cli.ranking import save_ranking
from stylegan.cli.watch import open_run, watch
from stylegan.data.dataset import ImageDataset
from stylegan.data.pictures import Pictures
from stylegan.errors import ConfigError
from stylegan.interop.load import is_run, load, local_path, newest_snapshot
from stylegan.metrics import records
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.protocols import (
    STANDARD,
    AbstractProtocol,
    PathLengthProtocol,
)
from stylegan.metrics.suite import check, check_of_images, check_reals, evaluate
from stylegan.metrics.targets import EvaluationTarget, ImagesTarget, NetworkTarget, RealImages
from stylegan.models.base import AbstractGenerator

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
        seed: Of latents, labels, noise and flips. Default: 0; of --watch, that of the run.
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
    seed: int | None = None
    mirror: Mirror = "auto"
    psi: float = 1.0
    classifiers: str | None = None
    weights_dir: Path | None = None
    out: Path = Path("metrics.jsonl")
    save_ranking: Path | None = None
    compare: tuple[Path, Path] | None = None
    watch: Path | None = None
    device: options.Device = "auto"


_SHARED = ("metrics", "features", "seed", "weights_dir", "device")
_TAKES: dict[str, tuple[str, ...]] = {
    "compare": (),
    "watch": ("data", "classifiers", *_SHARED),
    "fake": ("real", "mirror", "out", *_SHARED),
    "network": ("data", "mirror", "psi", "classifiers", "out", "save_ranking", *_SHARED),
}
"""What a command line is for, and the options that go with it; the first that is given counts."""


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
    check_options(command)
    if command.compare is not None:
        _print_comparison(*command.compare)
        return 0
    protocols = protocols_of(command.metrics, features=command.features)
    if command.watch is not None:
        config = open_run(command.watch)
        device = options.resolve_device(command.device)
        watch(
            command.watch,
            config,
            protocols,
            dependencies_of(command, protocols, device),
            device=device,
            data=command.data,
            seed=config.seed if command.seed is None else command.seed,
        )
        return 0
    check_usage(command, protocols)
    with distributed.process_group():
        _evaluate(command, protocols)
    return 0


def check_options(command: Evaluate) -> None:
    """Refuse options that say nothing about what a command line is for.

    Raises:
        ConfigError: if there is one, or none that says what to do.
    """
    given = [
        field.name for field in fields(command) if getattr(command, field.name) != field.default
    ]
    mode = next((name for name in _TAKES if name in given), None)
    if mode is None:
        raise ConfigError(
            "neither --network nor --fake",
            expected="one of them, --watch or --compare",
            fix="name what to measure: a network, or a folder of images",
        )
    for name in given:
        if name != mode and name not in _TAKES[mode]:
            raise ConfigError(
                f"{_option(name)} with {_option(mode)}",
                expected=" ".join(map(_option, _TAKES[mode])) or "nothing beside it",
                fix="leave it out",
            )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_usage(command: Evaluate, protocols: Sequence[AbstractProtocol]) -> None:
    """Refuse what the command line alone shows to be wrong, before anything is loaded.

    Raises:
        ConfigError: in that case.
    """
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
    if command.fake is not None:
        for protocol in protocols:
            check_of_images(protocol)
    if command.data is None and command.real is None:
        check_reals(protocols, None, EvaluationDependencies(), side=None)
    _check_writable("--out", command.out.parent, command.out)
    if command.save_ranking is not None:
        _check_writable("--save-ranking", command.save_ranking)


def _check_writable(option: str, folder: Path, file: Path | None = None) -> None:
    """Make a folder, and check that it and a file in it may be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "it is a folder" if file is not None and file.is_dir() else None
        if not os.access(folder if file is None or not file.exists() else file, os.W_OK):
            reason = "no permission"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise ConfigError(
            f"{option} {file or folder} cannot be written ({reason})",
            expected="a place that may be written to",
            fix="choose another path",
        )


def _evaluate(command: Evaluate, protocols: Sequence[AbstractProtocol]) -> None:
    """Measure what the command line names."""
    device = options.resolve_device(command.device)
    seed = command.seed or 0
    with distributed.keep_others_waiting():
        if command.network is not None:
            path = weights_of(command.network)
            generator = load(path).to(device)
            check_labels(command, generator)
            dependencies = dependencies_of(
                command, protocols, device
            )  # what lacks fails before images are read
            target, reals = _of_network(command, protocols, generator, path, seed)
        else:
            dependencies = dependencies_of(command, protocols, device)
            target, reals = _of_images(command, seed)
    check(protocols, target, reals, dependencies)
    out = options.console()
    with measuring() as progress:
        for result in evaluate(protocols, target, reals, dependencies, progress=progress):
            out.print(Text(describe(result.record)))  # first: a full disk must not lose it
            records.append(command.out, result.record)
            if command.save_ranking is not None and isinstance(target, NetworkTarget):
                protocol = next(each for each in protocols if each.name == result.record["metric"])
                if isinstance(protocol, PathLengthProtocol):
                    for path in save_ranking(command.save_ranking, result, protocol, target):
                        out.print(Text(f"  {path}"))
    if distributed.is_main_process():
        out.print(Text(f"appended to {command.out}"))


def check_labels(command: Evaluate, generator: AbstractGenerator) -> None:
    """Refuse a network with labels, and no set to draw them from.

    Raises:
        ConfigError: in that case.
    """
    if generator.c_dim > 0 and command.data is None:
        raise ConfigError(
            f"{command.network} without --data",
            expected="the images that it was trained on, as it takes labels",
            fix="name their folder or zip",
        )


def dependencies_of(
    command: Evaluate, protocols: Sequence[AbstractProtocol], device: torch.device
) -> EvaluationDependencies:
    """Load what the metrics of a command line need beside images."""
    return dependencies_for(
        protocols,
        classifiers=command.classifiers,
        weights_dir=command.weights_dir,
        device=device,
    )


def _of_network(
    command: Evaluate,
    protocols: Sequence[AbstractProtocol],
    generator: AbstractGenerator,
    path: Path,
    seed: int,
) -> tuple[EvaluationTarget, RealImages | None]:
    """Open the real images of a command line, where a network or its metrics need them."""
    dataset = None
    if command.data is not None and (
        generator.c_dim > 0 or any(each.uses_real for each in protocols)
    ):
        with reading() as move:
            dataset = ImageDataset(command.data, resolution=side_of(generator), progress=move)
    target = target_of(generator, path, dataset, seed=seed, psi=command.psi)
    if dataset is None:
        return target, None
    return target, reals_of(dataset, is_mirrored(command.mirror, path), seed=seed)


def _of_images(command: Evaluate, seed: int) -> tuple[EvaluationTarget, RealImages | None]:
    """Open both sets of images of a command line."""
    assert command.fake is not None
    with reading() as move:
        fake = Pictures(command.fake, progress=move)
        real = None if command.real is None else Pictures(command.real, progress=move)
    target = ImagesTarget(images=fake, side=fake.side)
    if real is None:
        return target, None
    flips = command.mirror == "yes"
    return target, RealImages(images=real, side=real.side, is_mirrored=flips, seed=seed)


def weights_of(source: str) -> Path:
    """Return the file or folder that a source means: the newest snapshot, where it is a run."""
    path = local_path(source)
    return newest_snapshot(path) if is_run(path) else path


def _print_comparison(first: Path, second: Path) -> None:
    """Print the values of two files side by side, of what they are, and what may explain them."""
    table = Table("metric", str(first), str(second), "difference")
    notes = []
    for pair in records.compare(first, second):
        a, b = pair.first, pair.second
        for name in a["values"]:
            if name in b["values"]:
                one, other = a["values"][name], b["values"][name]
                row = (_value(a, name), _value(b, name), f"{other - one:+.5g}")
                table.add_row(Text(f"{pair.metric} {name}"), *row)
        shown = [str(record["fake"]["origin"].get("path", "?")) for record in (a, b)]
        notes.append(f"of {shown[0]} and {shown[1]}")
        notes += [
            f"{field} {one!r} and {other!r}"
            for field, one, other in pair.differences
            if field.startswith(_TOLD)
        ]
    out = options.console()
    out.print(table)
    for note in dict.fromkeys(notes):  # most are those of all metrics
        out.print(Text(note))


_TOLD = ("fake.seed", "fake.precision", "fake.origin.nimg", "device", "threads", "versions")
"""Fields of records whose differences forbid no comparison, and may explain one."""


def _value(record: Mapping[str, Any], name: str) -> str:
    """Show a value, with its error if it is the main one."""
    error = record.get("error") if record["values"][name] == record["value"] else None
    return f"{record['values'][name]:.5g}" + ("" if error is None else f" ± {error:.2g}")
