"""`stylegan evaluate --watch RUN`: measure the snapshots of a run as they come."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.text import Text

from stylegan import dist
from stylegan.cli import options
from stylegan.cli.measuring import describe, measuring, reading, reals_of, subject_of
from stylegan.data.dataset import ImageDataset
from stylegan.errors import CheckpointError, ConfigError
from stylegan.interop.load import complete_snapshots, load
from stylegan.metrics import records
from stylegan.metrics.measure import Tools
from stylegan.metrics.protocols import AbstractProtocol
from stylegan.metrics.suite import check, evaluate
from stylegan.training.best import keep_best
from stylegan.training.checkpoint import read_config
from stylegan.training.config import RunConfig
from stylegan.training.log import METRICS, read_metrics

POLL_SECONDS = 20.0


def watch(
    run_dir: Path,
    protocols: Sequence[AbstractProtocol],
    tools: Tools,
    *,
    device: torch.device,
    data: str | None = None,
    seed: int = 0,
) -> None:
    """Measure each snapshot that has no record yet, the newest first, until the run is complete.

    Records go to the run's `metrics.jsonl`, the best snapshot by each metric to its `best/`, as
    when training measures itself. Snapshots of a run that grows are passed over until it makes
    images of the full size.

    Args:
        run_dir: the run's folder.
        protocols: of the metrics.
        tools: what they need beside images.
        device: of the generator.
        data: the real images, where they do not lie where the run says.
        seed: of latents, labels, noise and flips.

    Raises:
        StyleganError: if there is no run, or as `evaluate`.
    """
    if dist.is_launched():
        raise ConfigError(
            "--watch in several processes",
            expected="one: they would find different snapshots",
            fix="leave torchrun out",
        )
    config = _config_of(run_dir)
    with reading() as move:
        dataset = ImageDataset(
            data or config.data.path,
            resolution=config.generator.resolution,
            on_bad=config.data.on_bad,
            progress=move,
        )
    reals = reals_of(dataset, config.data.mirror, seed=seed)
    out = options.console()
    for snapshot in _snapshots(run_dir, config, protocols):
        generator = load(snapshot).to(device)
        if generator.lod >= 1:  # images of another size are another metric
            continue
        subject = subject_of(generator, snapshot, dataset, seed=seed)
        check(protocols, subject, reals, tools)
        with measuring() as progress:
            for result in evaluate(protocols, subject, reals, tools, progress=progress):
                nimg = int(snapshot.name)
                record = result.record | {"nimg": nimg, "snapshot": f"snapshots/{snapshot.name}"}
                records.append(run_dir / METRICS, record)
                is_best = keep_best(run_dir, record, snapshot)
                note = "  best" if is_best else ""
                out.print(Text(f"kimg {nimg / 1000:g}: {describe(record)}{note}"))


def _config_of(run_dir: Path) -> RunConfig:
    config = read_config(run_dir)
    if config is None:
        raise CheckpointError(
            f"{run_dir} is no run folder", expected="config.json in it", fix="check the path"
        )
    return config


def _snapshots(
    run_dir: Path, config: RunConfig, protocols: Sequence[AbstractProtocol]
) -> Iterator[Path]:
    """Yield snapshots that lack a record, the newest first, as they come; end with the run."""
    seen: set[str] = set()
    while True:
        measured = _measured(read_metrics(run_dir))
        missing = [
            folder
            for folder in complete_snapshots(run_dir)
            if folder.name not in seen
            and any((each.name, int(folder.name)) not in measured for each in protocols)
        ]
        if missing:
            seen.add(missing[-1].name)
            yield missing[-1]
        elif _is_complete(run_dir, config):
            return
        else:
            time.sleep(POLL_SECONDS)


def _measured(found: Sequence[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(record["metric"], record["nimg"]) for record in found}


def _is_complete(run_dir: Path, config: RunConfig) -> bool:
    snapshots = complete_snapshots(run_dir)
    return bool(snapshots) and int(snapshots[-1].name) >= round(config.output.total_kimg * 1000)
