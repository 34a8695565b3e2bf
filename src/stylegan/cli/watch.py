"""`stylegan evaluate --watch RUN`: measure the snapshots of a run as they come."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.text import Text

from stylegan import distributed
from stylegan.cli import options
from stylegan.cli.measuring import (
    describe,
    measuring,
    of_snapshot,
    reading,
    reals_of,
    target_of,
)
from stylegan.data.dataset import ImageDataset
from stylegan.errors import CheckpointError, ConfigError, StyleganError
from stylegan.interop.load import complete_snapshots, load
from stylegan.metrics import records
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.protocols import AbstractProtocol
from stylegan.metrics.suite import check, check_reals, evaluate, facts_of
from stylegan.metrics.targets import RealImages
from stylegan.training.best import keep_best
from stylegan.training.checkpoint import read_config
from stylegan.training.config import RunConfig
from stylegan.training.log import METRICS, read_metrics

logger = logging.getLogger(__name__)

POLL_SECONDS = 20.0


def open_run(run_dir: Path) -> RunConfig:
    """Return the options of a run that is to be watched.

    Raises:
        CheckpointError: if there is no run.
        ConfigError: in one of several processes.
    """
    if distributed.is_launched():
        raise ConfigError(
            "--watch in several processes",
            expected="one: they would find different snapshots",
            fix="leave torchrun out",
        )
    config = read_config(run_dir)
    if config is None:
        raise CheckpointError(
            f"{run_dir} is no run folder", expected="config.json in it", fix="check the path"
        )
    return config


def watch(
    run_dir: Path,
    config: RunConfig,
    protocols: Sequence[AbstractProtocol],
    dependencies: EvaluationDependencies,
    *,
    device: torch.device,
    data: str | None = None,
    seed: int = 0,
) -> None:
    """Measure what each snapshot has no record of, the newest first, until the run is complete.

    Records go to the run's `metrics.jsonl`, the best snapshot by each metric to its `best/`, as
    when training measures itself. Snapshots of a run that grows are passed over until it makes
    images of the full size; one that cannot be measured is told of in a line.

    Args:
        run_dir: the run's folder.
        config: of the run, from `open_run`.
        protocols: of the metrics.
        dependencies: what they need beside images.
        device: of the generator.
        data: the real images, where they do not lie where the run says.
        seed: of latents, labels, noise and flips.

    Raises:
        StyleganError: if the real images cannot be read, or a metric cannot use them.
    """
    with reading() as move:
        dataset = ImageDataset(
            data or config.data.path,
            resolution=config.generator.resolution,
            on_bad=config.data.on_bad,
            progress=move,
        )
    reals = reals_of(dataset, config.data.mirror, seed=seed)
    check_reals(protocols, reals, dependencies, side=config.generator.resolution)
    watched = _Watched(
        run_dir=run_dir,
        protocols=protocols,
        dependencies=dependencies,
        dataset=dataset,
        reals=reals,
        device=device,
        seed=seed,
    )
    for snapshot in _snapshots(run_dir, config):
        try:
            watched.measure(snapshot)
        except StyleganError as error:
            logger.warning("%s: not measured (%s)", snapshot, error)


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """A run whose snapshots are measured. `keys` has what names the results of each metric."""

    run_dir: Path
    protocols: Sequence[AbstractProtocol]
    dependencies: EvaluationDependencies
    dataset: ImageDataset
    reals: RealImages
    device: torch.device
    seed: int
    keys: dict[str, str] = field(default_factory=dict)

    def measure(self, snapshot: Path) -> None:
        """Compute what a snapshot has no record of; it may be nothing."""
        nimg = int(snapshot.name)
        if self.keys and not self.missing(nimg):
            return
        generator = load(snapshot).to(self.device)
        if generator.lod >= 1:  # images of another size are another metric
            return
        target = target_of(generator, snapshot, self.dataset, seed=self.seed)
        if not self.keys:  # equal for all snapshots of a run, as their architecture is
            alone = [protocol for protocol in self.protocols if not protocol.uses_real]
            check(alone, target, None, self.dependencies)  # the others have been checked before
            for protocol in self.protocols:
                facts = facts_of(protocol, target, self.reals, self.dependencies)
                self.keys[protocol.name] = records.comparable_key(facts)
        missing = self.missing(nimg)
        out = options.console()
        with measuring() as progress:
            for result in evaluate(
                missing, target, self.reals, self.dependencies, progress=progress
            ):
                place = {"nimg": nimg, "snapshot": f"snapshots/{snapshot.name}"}
                record = of_snapshot(result.record) | place
                records.append(self.run_dir / METRICS, record)
                note = "  best" if keep_best(self.run_dir, record, snapshot) else ""
                out.print(Text(f"kimg {nimg / 1000:g}: {describe(record)}{note}"))

    def missing(self, nimg: int) -> list[AbstractProtocol]:
        """Return the metrics that a snapshot has no record of that was measured alike."""
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


def _snapshots(run_dir: Path, config: RunConfig) -> Iterator[Path]:
    """Yield each snapshot once, the newest first, as they come; end with the run."""
    seen: set[str] = set()
    while True:
        new = [folder for folder in complete_snapshots(run_dir) if folder.name not in seen]
        if new:
            seen.add(new[-1].name)
            yield new[-1]
        elif _is_complete(run_dir, config):
            return
        else:
            time.sleep(POLL_SECONDS)


def _is_complete(run_dir: Path, config: RunConfig) -> bool:
    snapshots = complete_snapshots(run_dir)
    return bool(snapshots) and int(snapshots[-1].name) >= round(config.output.total_kimg * 1000)
