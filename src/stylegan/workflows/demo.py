"""A small network, trained for a few minutes, with a report."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan import __version__, images
from stylegan.data.dataset import ImageDataset
from stylegan.devices import DeviceName, resolve_device
from stylegan.errors import DataError, check_positive, command_line, decided
from stylegan.files import write_atomic
from stylegan.interop.load import complete_snapshots, load
from stylegan.latent.grids import (
    TRUNCATION_PSIS,
    mixing_captions,
    mixing_grid,
    sample_grid,
    truncation_grid,
)
from stylegan.latent.interpolate import loop_through
from stylegan.latent.layers import parse_layers
from stylegan.latent.render import map_latents, render
from stylegan.latent.saved import name_of
from stylegan.latent.seeds import latents_from_seeds
from stylegan.metrics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein_distance
from stylegan.models import io
from stylegan.models.base import AbstractGenerator, num_parameters
from stylegan.notebook import TextResult, picture_html
from stylegan.progress import Progress, counter
from stylegan.rng import generator_for
from stylegan.training import loop
from stylegan.training.checkpoint import check_run_folder
from stylegan.training.config import DataConfig, RunConfig
from stylegan.training.configure import configure
from stylegan.training.log import read_log
from stylegan.training.loop import Outcome
from stylegan.training.state import TrainState
from stylegan.workflows.curves import charts, evenly, metric_charts
from stylegan.workflows.page import Figure, Row, Section, Table, Text, write_page
from stylegan.workflows.training_set import open_training_set

PRESET = "stylegan2-small"
RESOLUTION = 32
SNAPSHOT_KIMG = 2.5
DATA = Path("demo", "emoji64.zip")
FINISHED = "demo.json"
"""File with the minutes trained, written when they are over."""
SWD_IMAGES = 2048
SWD_BATCH = 64
PSI = 0.7
GRID_SCALE = 3  # of grids with captions
ROW_FIGURES = 6
LOOP_TILES = 12
LOOP_KEYS = 4
LOOP_FRAMES_PER_KEY = 15
LOOP_FPS = 20.0

_SAMPLES = """Samples of the same 16 latents by the moving average of the generator, without
truncation."""
_DISTANCE = """The distance between generated and real images by 7x7 patches of their Laplacian
pyramids (Karras et al. 2018, section 5). It needs no pretrained network."""
_TRUNCATION = "Seeds 0 to 5 by rows, psi {} by columns. Psi 0 is the mean image.".format(
    ", ".join(f"{psi:g}" for psi in TRUNCATION_PSIS)
)
_MIXING = f"""Each image has the coarse styles (4x4 and 8x8) of the image at the top of its column,
and the other styles of the image at the left of its row. Psi {PSI:g}."""
_INTERPOLATION = f"""Twelve closed walks in w, each through {LOOP_KEYS} seeds, along splines. Psi
{PSI:g}, constant noise."""


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Sliced Wasserstein distances to real images, all between sets of the same size.

    Attributes:
        start: distance of the generator before training.
        end: distance of the trained generator.
        real: distance of other real images, which a perfect generator would reach.
    """

    start: SlicedWasserstein
    end: SlicedWasserstein
    real: SlicedWasserstein


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
        return None if self.distances is None else self.out / "report.html"

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
    out: Path = Path("runs", "demo"),
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    on_start: Callable[[str], None] | None = None,
    observe: Callable[[loop.Progress], None] | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Train a small StyleGAN2 for a few minutes and write a report.

    By default it trains on 3,391 emoji at 32x32. The report, OUT/report.html, has samples over
    training, truncation, style mixing, an interpolation, the curves of the log and the sliced
    Wasserstein distance. The same command continues after an interruption; with more minutes it
    trains for the difference.

    Args:
        minutes: time to train, without start and report.
        data: folder or zip of images. Default: the emoji.
        out: folder of the run.
        device: "auto" uses a CUDA device or Apple's GPU if there is one, else the CPU.
        seed: seed of everything random.
        on_start: called with a line about the run before it is trained.
        observe: called with the state of the run after each iteration.
        progress: called while the report is written.

    Raises:
        DataError: if there are no images, or only one.
        CheckpointError: if the folder holds another run.
    """
    check_positive("minutes", minutes)
    path = find_data(None if data is None else Path(data))
    dataset = open_training_set(
        DataConfig(path=str(path)), resolution=RESOLUTION, run_dir=out, progress=progress
    )
    if not isinstance(dataset, ImageDataset):
        raise DataError(f"{path} is a set in shards; the demo takes a folder or zip of images")
    if len(dataset) < 2:
        raise DataError(f"{path} has one image only; the demo needs hundreds")
    options = {
        "data": dataset.path,
        "snapshot_kimg": SNAPSHOT_KIMG,
        "seed": seed,
        "device": resolve_device(device).type,
    }
    config, _ = configure(PRESET, options, resolution=RESOLUTION, img_channels=dataset.num_channels)
    if on_start is not None:
        on_start(
            f"{minutes:g} minutes of {PRESET} at {RESOLUTION}x{RESOLUTION} on {len(dataset):,} "
            f"images of {path}, in {out}"
        )
    outcome = _train_for(minutes, config, run_dir=out, dataset=dataset, observe=observe)
    distances = None
    if outcome is None or outcome.signal is None:
        distances = _write_report(config, out, dataset=dataset, progress=progress)
    return DemoResult(out=out, outcome=outcome, distances=distances)


def _train_for(
    minutes: float,
    config: RunConfig,
    *,
    run_dir: Path,
    dataset: ImageDataset,
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
        observe=observe_until_end,
        max_minutes=max(minutes_left, 0.0),
    )
    if outcome.signal is None:
        _write_json(run_dir / FINISHED, {"minutes": minutes})
    return outcome


def trained_minutes(run_dir: Path) -> float:
    """Return how long a run has been trained, 0 for a new one.

    For an interrupted run, it is the time up to the last line of the log.
    """
    try:
        finished = float(json.loads((run_dir / FINISHED).read_text(encoding="utf-8"))["minutes"])
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        finished = 0.0
    logged: float = sum(record["time"]["seconds"] for record in ticks(run_dir)) / 60
    return max(finished, logged)


def ticks(run_dir: Path) -> list[dict[str, Any]]:
    """Return the records of the log about training."""
    return [record for record in read_log(run_dir) if record["kind"] == "tick"]


def _write_report(
    config: RunConfig, run_dir: Path, *, dataset: ImageDataset, progress: Progress | None
) -> Distances:
    """Write figures, distances and the report of a trained run into its folder."""
    count = counter(progress, "report, parts")
    device = torch.device(decided(config.runtime.device, "runtime.device"))
    # Initial weights are a function of the seed, so these are the weights before training.
    start = TrainState(config, device).generator_ema
    trained = load(run_dir).to(device)
    distances = measure(start, trained, reals=dataset, seed=config.seed)
    if count is not None:
        count(1, 3)
    pictures = draw(trained, run_dir / "report")
    row = samples_over_training(start, run_dir, device=device)
    if count is not None:
        count(2, 3)
    sections = [
        Section(title="What this is", blocks=[_summary(config, run_dir, trained)]),
        Section(title="Samples over training", blocks=[Text(text=_SAMPLES), row]),
        *_picture_sections(pictures, _some(dataset, 64, config.seed)),
        Section(
            title="Sliced Wasserstein distance",
            blocks=[Text(text=_DISTANCE), distance_table(distances)],
        ),
        Section(
            title="Training", blocks=[*charts(ticks(run_dir)), *metric_charts(read_log(run_dir))]
        ),
    ]
    title = f"stylegan demo: {dataset.name} at {RESOLUTION}x{RESOLUTION}"
    write_page(run_dir / "report.html", title, sections=sections)
    _write_json(run_dir / "report" / "swd.json", asdict(distances))
    if count is not None:
        count(3, 3)
    return distances


def draw(generator: AbstractGenerator, folder: Path) -> dict[str, bytes]:
    """Write the figures of the papers, and return the files by name."""

    def latents(first: int, num: int) -> Tensor:
        return latents_from_seeds(range(first, first + num), generator.z_dim)

    grids = {
        "samples": sample_grid(generator, latents(0, 64), columns=8, psi=PSI),
        "truncation": truncation_grid(
            generator, map_latents(generator, latents(0, 6)), names=_names(0, 6), scale=GRID_SCALE
        ),
        "mixing": mixing_grid(
            generator,
            map_latents(generator, latents(100, 5), psi=PSI),
            sources=map_latents(generator, latents(200, 6), psi=PSI),
            layers=parse_layers("coarse", generator.num_ws),
            captions=mixing_captions(_names(100, 5), sources=_names(200, 6), layers="coarse"),
            scale=GRID_SCALE,
        ),
    }
    for name, grid in grids.items():
        images.write_grid(grid, folder / f"{name}.png")
    images.write_gif(interpolation_frames(generator), folder / "interpolation.gif", fps=LOOP_FPS)
    files = {path.stem: path.read_bytes() for path in folder.glob("*.png")}
    return files | {"interpolation": (folder / "interpolation.gif").read_bytes()}


def _names(first: int, num: int) -> list[str]:
    return [name_of(seed) for seed in range(first, first + num)]


def samples_over_training(start: AbstractGenerator, run_dir: Path, *, device: torch.device) -> Row:
    """Return samples of the same latents before training and at snapshots."""
    z = latents_from_seeds(range(16), start.z_dim)

    def figure(generator: AbstractGenerator, nimg: int) -> Figure:
        grid = sample_grid(generator, z, columns=4)
        return Figure(data=images.png_bytes(grid), caption=f"{nimg / 1000:.1f} kimg")

    figures = [figure(start, 0)]
    for folder in evenly(complete_snapshots(run_dir), ROW_FIGURES - 1):
        generator = io.load(folder, only=["generator_ema"]).generator_ema
        assert generator is not None
        figures.append(figure(generator.eval().to(device), int(folder.name)))
    return Row(figures=figures)


def find_data(path: Path | None) -> Path:
    """Return `path`, or the demo set in the current folder or the source checkout.

    Raises:
        DataError: if it does not exist.
    """
    checkout = Path(__file__).parents[3]
    candidates = [DATA, checkout / DATA] if path is None else [path]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DataError(
        f"no images at {candidates[0]}; run the demo in a checkout of the source, make a set with "
        f"{command_line('data', 'prepare', 'SRC', candidates[0], '--resolution', 64)}, or name one "
        "with --data"
    )


def measure(
    start: AbstractGenerator, end: AbstractGenerator, *, reals: ImageDataset, seed: int
) -> Distances:
    """Compare both generators, and other real images, with the same real images.

    Generators run without truncation and with random noise. Every set has the same size, at
    most 2,048 and at most half of the real images.

    Args:
        start: before training.
        end: after training.
        reals: real images, two at least.
        seed: seed of the choice of images, latents and noise.
    """
    order = torch.randperm(len(reals), generator=generator_for("swd reals", seed=seed)).tolist()
    num = min(SWD_IMAGES, len(reals) // 2)
    first, others = (
        reals.pixels.seen_stored(reals.gather(part)) for part in (order[:num], order[num : 2 * num])
    )
    return Distances(
        start=sliced_wasserstein_distance(first, sample(start, num, seed=seed), seed=seed),
        end=sliced_wasserstein_distance(first, sample(end, num, seed=seed), seed=seed),
        real=sliced_wasserstein_distance(first, others, seed=seed),
    )


def sample(generator: AbstractGenerator, num: int, *, seed: int) -> Tensor:
    """Return images for a metric, uint8 [num, 1 or 3, R, R]: no truncation, random noise."""
    device = next(generator.parameters()).device
    noise = generator_for("swd noise", seed=seed)
    z = torch.randn(num, generator.z_dim, generator=generator_for("swd latents", seed=seed))
    blocks = []
    with torch.no_grad():
        for start in range(0, num, SWD_BATCH):
            block = z[start : start + SWD_BATCH].to(device)
            generated = generator(block, noise_mode="random", generator=noise)
            blocks.append(generator.pixels.seen(generated).cpu())
    return torch.cat(blocks)


def interpolation_frames(generator: AbstractGenerator) -> list[Tensor]:
    """Return the frames of several closed walks in w side by side, uint8 [C, 2 R, 6 R] each."""
    z = latents_from_seeds(range(LOOP_KEYS * LOOP_TILES), generator.z_dim)
    ws = map_latents(generator, z, psi=PSI)
    keys = ws.view(LOOP_KEYS, LOOP_TILES, generator.num_ws, generator.w_dim)
    return [
        images.grid(torch.stack(list(render(generator, tiles))), columns=LOOP_TILES // 2)
        for tiles in loop_through(keys, LOOP_FRAMES_PER_KEY)
    ]


def distance_table(distances: Distances) -> Table:
    """Return a table of the distances by pyramid level."""
    results = (distances.start, distances.end, distances.real)
    rows = [
        [f"{level}x{level}", *(f"{result.levels[level]:.1f}" for result in results)]
        for level in distances.start.levels
    ]
    rows.append(["average", *(f"{result.average:.1f}" for result in results)])
    ratio = distances.end.average / distances.start.average
    return Table(
        header=["level", "before training", "trained", "other real images"],
        rows=rows,
        caption=f"Times 1e3; {distances.start.num_images:,} images on each side; lower is better. "
        f"Training reduced the average to {ratio:.0%} of its initial value; the last column is "
        "what a perfect generator would reach.",
    )


def _summary(config: RunConfig, run_dir: Path, generator: AbstractGenerator) -> Table:
    nimg = max(int(folder.name) for folder in complete_snapshots(run_dir))
    return Table(
        header=["what", "value"],
        rows=[
            ["preset", config.preset],
            ["images", config.data.path],
            ["resolution", f"{config.generator.resolution}x{config.generator.resolution}"],
            ["parameters of the generator", f"{num_parameters(generator):,}"],
            ["real images shown", f"{nimg:,}"],
            ["time of training", f"{trained_minutes(run_dir):.1f} minutes"],
            ["device", f"{config.runtime.device}, {torch.get_num_threads()} threads"],
            ["seed", str(config.seed)],
            ["versions", f"stylegan {__version__}, PyTorch {torch.__version__}"],
        ],
    )


def _picture_sections(pictures: Mapping[str, bytes], reals: Tensor) -> list[Section]:
    real_grid = images.png_bytes(images.grid(reals, columns=8))
    generated = f"Generated, not selected: seeds 0 to 63, psi {PSI:g}."
    side_by_side = [
        Figure(data=real_grid, caption="Real images, chosen at random.", scale=2),
        Figure(data=pictures["samples"], caption=generated, scale=2),
    ]
    sections = [Section(title="Real and generated", blocks=[Row(figures=side_by_side)])]
    for title, name, caption, scale in (
        ("Truncation", "truncation", _TRUNCATION, 1),
        ("Style mixing", "mixing", _MIXING, 1),
        ("Interpolation", "interpolation", _INTERPOLATION, 2),
    ):
        figure = Figure(data=pictures[name], caption=caption, scale=scale)
        sections.append(Section(title=title, blocks=[figure]))
    return sections


def _some(reals: ImageDataset, num: int, seed: int) -> Tensor:
    stream = generator_for("report reals", seed=seed)
    order = torch.randperm(len(reals), generator=stream)[:num].tolist()
    return reals.pixels.shown_stored(reals.gather(order))


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=2) + "\n")
