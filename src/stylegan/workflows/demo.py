"""The demo: the bundled network, fine-tuned for a few minutes, with a report."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan import images
from stylegan.data.dataset import ImageDataset
from stylegan.data.sources.open import check_exists
from stylegan.devices import DeviceName, resolve_device
from stylegan.errors import DataError, WeightsError, check_positive, command_line
from stylegan.image_size import Resolution
from stylegan.interop import catalogue
from stylegan.interop.load import complete_snapshots
from stylegan.latent.grids import sample_grid
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models.base import AbstractGenerator, Networks
from stylegan.notebook import TextResult, picture_html
from stylegan.progress import Progress
from stylegan.training import loop
from stylegan.training.checkpoint import (
    PICTURES,
    check_folder_is_free,
    check_run_folder,
    read_run_record,
)
from stylegan.training.config import DataConfig, RunConfig
from stylegan.training.configure import configure
from stylegan.training.loop import Outcome
from stylegan.workflows.demo_report import (
    FINISHED,
    PAGE,
    PSI,
    Distances,
    trained_minutes,
    write_comparison,
    write_json,
    write_report,
)
from stylegan.workflows.initial import find_initial
from stylegan.workflows.networks import load_generator
from stylegan.workflows.training_set import open_training_set

PRESET = "stylegan2-small"
MODEL = "emoji64"
"""Name of the bundled network that is fine-tuned."""
PORTRAITS = catalogue.BUNDLED / "portraits64.zip"
"""The bundled set that it is fine-tuned on."""
NUM_PICTURES, PICTURE_COLUMNS = 64, 8
FINE_TUNING: Mapping[str, Any] = {
    "init_from": MODEL,
    "augment": "ada",
    # The half-life of the preset is longer than the demo: the average would stay the old network.
    "ema.rampup": 0.1,
    "output.tick_kimg": 0.1,
    "output.snapshot_kimg": 1.0,
    "output.checkpoint_kimg": 0.5,
}

EMOJI = Path("demo", "emoji64.zip")
RESOLUTION = 32
"""Of a demo from scratch; a fine-tuned network keeps its own."""
FROM_SCRATCH: Mapping[str, Any] = {"snapshot_kimg": 2.5}


@dataclass(frozen=True, kw_only=True)
class DemoResult(TextResult):
    """A demo after training.

    Attributes:
        out: folder of the run.
        outcome: why training ended; None if the run had been trained long enough before.
        distances: distances to real images; None if a signal ended the training.
    """

    out: Path
    outcome: Outcome | None
    distances: Distances | None

    @property
    def report(self) -> Path | None:
        """The HTML page; None if a signal ended the training."""
        return None if self.distances is None else self.out / PAGE

    def __str__(self) -> str:
        """Return the distances before and after training, and where the report is."""
        if self.distances is None:
            return "interrupted and saved; the same command continues the run"
        before, after = self.distances.start.average, self.distances.end.average
        return (
            f"sliced Wasserstein distance x1e3, {self.distances.start.num_images} images: "
            f"{before:.1f} before training, {after:.1f} trained ({after / before:.0%}), "
            f"{self.distances.real.average:.1f} other real images\nreport: {self.report}"
        )

    def _repr_html_(self) -> str:
        samples = self.out / "report" / "samples.png"
        picture = "" if self.distances is None else picture_html(images.read(samples))
        return super()._repr_html_() + picture


def demo(
    *,
    minutes: float = 5.0,
    data: str | Path | None = None,
    from_scratch: bool = False,
    out: Path = Path("runs", "demo"),
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    on_start: Callable[[str], None] | None = None,
    observe: Callable[[loop.Progress], None] | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Fine-tune the bundled network on other images for a few minutes and write a report.

    Images of the network as it comes, OUT/pictures.png, are there within seconds. Then it is
    trained on 270 portraits, or on your own images, with adaptive augmentation. The report,
    OUT/report.html, has the same latents before and after, an interpolation, style mixing,
    truncation, the projection of a real image, and the curves of the log. The same command
    continues after an interruption; with more minutes it trains for the difference.

    Args:
        minutes: time to train, without start and report.
        data: folder or zip of images of any size. Default: the portraits; from scratch, 3,391
            emoji.
        from_scratch: train a small network from random weights instead, at 32x32, with samples
            over training in the report.
        out: folder of the run.
        device: "auto" uses a CUDA device or Apple's GPU if there is one, else the CPU.
        seed: seed of everything random.
        on_start: called with a line about the pictures, and one about the run before it is trained.
        observe: called with the state of the run after each iteration.
        progress: called while images are read, and while the report is written.

    Returns:
        The distances to real images, and where the report is.

    Raises:
        DataError: if there are no images, or only one.
        WeightsError: if the bundled network is not there.
        CheckpointError: if the folder holds another run.
    """
    check_positive("minutes", minutes)
    device = resolve_device(device)
    start: AbstractGenerator | None = None
    resolution: Resolution
    if from_scratch:
        path = find_data(None if data is None else Path(data))
        resolution, options = RESOLUTION, FROM_SCRATCH
    else:
        path = PORTRAITS if data is None else Path(data)
        check_exists(path)
        start = load_generator(_bundled(), device)
        resolution, options = start.img_size.stored, FINE_TUNING
        if (pictures := write_pictures(start, out)) is not None and on_start is not None:
            on_start(f"images of the bundled network {MODEL}: {pictures}")
    dataset = _open(path, resolution=resolution, run_dir=out, progress=progress)
    config, initial = _configure(dataset, options, out=out, device=device, seed=seed)
    if on_start is not None:
        name = f"{PRESET} from scratch" if start is None else f"fine-tuning of {MODEL}"
        on_start(
            f"{minutes:g} minutes of {name} at {dataset.size} on {len(dataset):,} "
            f"images of {path}, in {out}"
        )
    outcome = _train_for(
        minutes, config, run_dir=out, dataset=dataset, initial=initial, observe=observe
    )
    distances = None
    if outcome is None or outcome.signal is None:
        if start is None:
            distances = write_report(config, out, dataset=dataset, progress=progress)
        else:
            distances = write_comparison(
                config, out, start=start, dataset=dataset, progress=progress
            )
    return DemoResult(out=out, outcome=outcome, distances=distances)


def write_pictures(generator: AbstractGenerator, run_dir: Path) -> Path | None:
    """Write images of the bundled network into the folder of a run, and return the file.

    Nothing is written, and None returned, if the folder holds a run that does not start from the
    network; such a run is refused later, with the options that differ.

    Raises:
        CheckpointError: if the folder holds something that is no run.
    """
    record = read_run_record(run_dir)
    if record is None:
        check_folder_is_free(run_dir)
    elif record.config.init_from != MODEL:
        return None
    z = latents_from_seeds(range(NUM_PICTURES), generator.z_dim)
    path = run_dir / PICTURES
    images.write_grid(sample_grid(generator, z, columns=PICTURE_COLUMNS, psi=PSI), path)
    return path


def find_data(path: Path | None) -> Path:
    """Return `path`, or the emoji in the current folder or the source checkout.

    Raises:
        DataError: if it does not exist.
    """
    checkout = Path(__file__).parents[3]
    candidates = [EMOJI, checkout / EMOJI] if path is None else [path]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DataError(
        f"no images at {candidates[0]}; run the demo in a checkout of the source, make a set with "
        f"{command_line('data', 'prepare', 'SRC', candidates[0], '--resolution', 64)}, or name one "
        "with --data"
    )


def _bundled() -> Path:
    """Return the folder of the bundled network."""
    path = catalogue.bundled_path(MODEL)
    if path is not None:
        return path
    if Path(MODEL).exists():
        raise WeightsError(
            f"{MODEL} in the current folder hides the bundled network of this name",
            fix="run the demo in another folder",
        )
    raise WeightsError(
        f"this installation has no bundled network {MODEL}",
        fix="install the package again, or train a network with --from-scratch",
    )


def _open(
    path: Path, *, resolution: Resolution, run_dir: Path, progress: Progress | None
) -> ImageDataset:
    """Open the images, prepared first if they have other sizes."""
    dataset = open_training_set(
        DataConfig(path=str(path)), resolution=resolution, run_dir=run_dir, progress=progress
    )
    if not isinstance(dataset, ImageDataset):
        raise DataError(f"{path} is a set in shards; the demo takes a folder or zip of images")
    if len(dataset) < 2:
        raise DataError(f"{path} has one image only; the demo needs hundreds")
    return dataset


def _configure(
    dataset: ImageDataset,
    options: Mapping[str, Any],
    *,
    out: Path,
    device: torch.device,
    seed: int,
) -> tuple[RunConfig, Networks | None]:
    """Return the options of the run, and the networks that it starts from."""
    source = options.get("init_from")
    initial = find_initial(source, out)
    config, _ = configure(
        PRESET,
        {"data": dataset.path, "seed": seed, "device": device.type, **options},
        resolution=dataset.resolution,
        img_channels=dataset.num_channels,
        num_images=None if source is None else len(dataset),
        initial=initial.architectures,
        grown_to=initial.grown_to,
    )
    return config, initial.networks


def _train_for(
    minutes: float,
    config: RunConfig,
    *,
    run_dir: Path,
    dataset: ImageDataset,
    initial: Networks | None,
    observe: Callable[[loop.Progress], None] | None,
) -> Outcome | None:
    """Train until the run has been trained for `minutes`; None if it already has."""
    check_run_folder(run_dir, config, fingerprint=dataset.fingerprint)  # refuses another run
    minutes_left = minutes - trained_minutes(run_dir)
    if minutes_left <= 0 and complete_snapshots(run_dir):
        return None
    end_s = time.monotonic() + 60 * minutes_left

    def observe_until_end(state: loop.Progress) -> None:
        # the time limit comes before the end of the run
        seconds_left = min(state.seconds_left, max(end_s - time.monotonic(), 0.0))
        if observe is not None:
            observe(replace(state, seconds_left=seconds_left))

    outcome = loop.train(
        config,
        run_dir,
        dataset=dataset,
        initial=initial,
        observe=observe_until_end,
        max_minutes=max(minutes_left, 0.0),
    )
    if outcome.signal is None:
        write_json(run_dir / FINISHED, {"minutes": minutes})
    return outcome
