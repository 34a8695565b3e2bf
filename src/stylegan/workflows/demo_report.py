"""The pages of the demo: of a network trained from scratch, and of a fine-tuned one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan import __version__, images
from stylegan.data.dataset import ImageDataset
from stylegan.errors import decided
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
from stylegan.progress import Progress, counter
from stylegan.rng import generator_for
from stylegan.training.config import RunConfig
from stylegan.training.log import read_log
from stylegan.training.state import TrainState
from stylegan.workflows.curves import charts, evenly, metric_charts
from stylegan.workflows.page import Block, Figure, Row, Section, Table, Text, write_page
from stylegan.workflows.report import ReportBuilder, build_section

PAGE = "report.html"
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
NUM_COMPARED = 32
COMPARED_COLUMNS = 4
SHOWN_SIDE = 64  # pixels of each image of the comparison; smaller ones are enlarged
PROJECTION_STEPS = 100

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
_COMPARED = f"""The same latents before and after fine-tuning, not selected: seeds 0 to
{NUM_COMPARED - 1}, psi {PSI:g}."""


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


def write_report(
    config: RunConfig, run_dir: Path, *, dataset: ImageDataset, progress: Progress | None
) -> Distances:
    """Write figures, distances and the report of a run from scratch into its folder."""
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
    _write(config, run_dir, sections, dataset=dataset, distances=distances)
    if count is not None:
        count(3, 3)
    return distances


def write_comparison(
    config: RunConfig,
    run_dir: Path,
    *,
    start: AbstractGenerator,
    dataset: ImageDataset,
    progress: Progress | None,
) -> Distances:
    """Write figures, distances and the report of a fine-tuned network into the run's folder.

    Args:
        config: of the run; `init_from` is the name of the network before.
        run_dir: folder of the run.
        start: the generator before fine-tuning.
        dataset: the images of the run.
        progress: called after each part.
    """
    device = torch.device(decided(config.runtime.device, "runtime.device"))
    trained = load(run_dir).to(device)
    builder = ReportBuilder(
        run_dir,
        dataset.path,
        num=8,
        projections=1,
        steps=PROJECTION_STEPS,
        perceptual="discriminator",  # which is here; others may have to be downloaded
        weights_dir=None,
        class_index=None,
        device=device,
        seed=config.seed,
        progress=None,
        space="w+",
    )

    def over_training() -> list[Block]:
        return [Text(text=_SAMPLES), samples_over_training(start, run_dir, device=device)]

    def distance() -> list[Block]:
        return [Text(text=_DISTANCE), distance_table(distances)]

    parts: list[tuple[str, Callable[[], Sequence[Block]]]] = [
        ("What this is", lambda: [_summary(config, run_dir, trained)]),
        ("Before and after", lambda: compare(config, run_dir, start, trained, dataset)),
        ("Samples over fine-tuning", over_training),
        ("Interpolation", builder.interpolation),
        ("Style mixing", builder.mixing),
        ("Truncation", builder.truncation),
        ("Projection", builder.projection),
        ("Sliced Wasserstein distance", distance),
        ("Training", builder.training),
    ]
    count = counter(progress, "report, sections")
    if count is not None:
        count(0, len(parts))
    distances = measure(start, trained, reals=dataset, seed=config.seed)
    sections = []
    for title, build in parts:
        sections.append(build_section(title, build))
        if count is not None:
            count(len(sections), len(parts))
    _write(config, run_dir, sections, dataset=dataset, distances=distances)
    return distances


def compare(
    config: RunConfig,
    run_dir: Path,
    start: AbstractGenerator,
    trained: AbstractGenerator,
    dataset: ImageDataset,
) -> list[Text | Row]:
    """Show images of the same latents before and after fine-tuning, and some real images."""
    before, after = (compared_grid(generator) for generator in (start, trained))
    reals = images.grid(_some(dataset, NUM_COMPARED, config.seed), columns=COMPARED_COLUMNS)
    images.write_grid(before, run_dir / "report" / "before.png")
    images.write_grid(after, run_dir / "report" / "samples.png")
    scale = max(1, SHOWN_SIDE // dataset.size.width)
    shown = [
        Figure.of(grid, caption=caption, scale=scale)
        for grid, caption in (
            (before, f"Before: {config.init_from}."),
            (after, f"After {trained_minutes(run_dir):.1f} minutes."),
            (reals, f"Images of {dataset.name}, chosen at random."),
        )
    ]
    return [Text(text=_COMPARED), Row(figures=shown)]


def compared_grid(generator: AbstractGenerator) -> Tensor:
    """Return the images of the comparison by one generator, uint8 [C, H, W]."""
    z = latents_from_seeds(range(NUM_COMPARED), generator.z_dim)
    return sample_grid(generator, z, columns=COMPARED_COLUMNS, psi=PSI)


def _write(
    config: RunConfig,
    run_dir: Path,
    sections: list[Section],
    *,
    dataset: ImageDataset,
    distances: Distances,
) -> None:
    title = f"stylegan demo: {dataset.name} at {config.generator.size}"
    write_page(run_dir / PAGE, title, sections=sections)
    write_json(run_dir / "report" / "swd.json", asdict(distances))


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

    def distance_of(generator: AbstractGenerator) -> SlicedWasserstein:
        generated = sample(generator, num, seed=seed)
        if generated.shape[1] > first.shape[1]:  # an RGB network was fine-tuned on grey images
            generated = generated.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
        return sliced_wasserstein_distance(first, generated, seed=seed)

    return Distances(
        start=distance_of(start),
        end=distance_of(end),
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
        f"The average after training is {ratio:.0%} of that before; the last column is what a "
        "perfect generator would reach.",
    )


def _summary(config: RunConfig, run_dir: Path, generator: AbstractGenerator) -> Table:
    nimg = max(int(folder.name) for folder in complete_snapshots(run_dir))
    return Table(
        header=["what", "value"],
        rows=[
            ["preset", config.preset],
            ["initial weights", config.init_from or "random"],
            ["images", config.data.path],
            ["resolution", str(config.generator.size)],
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


def trained_minutes(run_dir: Path) -> float:
    """Return for how many minutes a run has been trained, 0 for a new one.

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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file, atomically."""
    write_atomic(path, json.dumps(data, indent=2) + "\n")
