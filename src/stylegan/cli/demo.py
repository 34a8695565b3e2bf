"""`stylegan demo`: train a small network for some minutes, and show what came of it."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from torch import Tensor

from stylegan import __version__, images
from stylegan.cli import options
from stylegan.cli.live import LiveLine
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError, DataError, decided
from stylegan.files import write_atomic
from stylegan.interop.load import load
from stylegan.latent.grids import TRUNCATION_PSIS, mixing_grid, sample_grid, truncation_grid
from stylegan.latent.interpolate import loop_through
from stylegan.latent.layers import parse_layers
from stylegan.latent.render import map_latents, render
from stylegan.latent.seeds import latents_from_seeds
from stylegan.metrics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein_distance
from stylegan.models import io
from stylegan.models.base import AbstractGenerator, num_parameters
from stylegan.rng import generator_for
from stylegan.training.checkpoint import check_run_folder
from stylegan.training.config import RunConfig
from stylegan.training.configure import configure
from stylegan.training.log import read_log
from stylegan.training.loop import Outcome, Progress, train
from stylegan.training.state import TrainState
from stylegan.workflows.curves import charts, evenly, metric_charts
from stylegan.workflows.page import Figure, Row, Section, Table, Text, write_page

PRESET = "stylegan2-small"
RESOLUTION = 32
SNAPSHOT_KIMG = 2.5
DATA = Path("demo", "emoji64.zip")
FINISHED = "demo.json"  # written when the time is over, with what it was
SWD_IMAGES = 2048
SWD_BATCH = 64
PSI = 0.7
STRIP_FIGURES = 6
LOOP_TILES = 12
LOOP_KEYS = 4
LOOP_FRAMES_PER_KEY = 15
LOOP_FPS = 20.0

_DEMO = """Train a small StyleGAN2 on 3,391 emoji for some minutes, and show what came of it.

It ends by itself and writes OUT/report.html: samples over training, truncation, style mixing, an
interpolation, loss curves and the sliced Wasserstein distance. The same line goes on after an
interruption; with more --minutes it trains on.

Example: stylegan demo --minutes 5 --out runs/demo"""

_SAMPLES = """The same 16 latents at each moment, by the running average of the generator, without
truncation."""
_DISTANCE = """How far generated images are from real ones, by 7x7 patches of their Laplacian
pyramids (Karras et al. 2018, section 5). It needs no pretrained network."""
_TRUNCATION = "Seeds 0 to 5 by rows; psi {} by columns. 0 is the mean image.".format(
    ", ".join(f"{psi:g}" for psi in TRUNCATION_PSIS)
)
_MIXING = f"""Each picture has the coarse styles (4x4 and 8x8) of the image at the head of its
column, and the others of the image at the head of its row. Psi {PSI:g}."""
_INTERPOLATION = f"""Twelve walks in w, each through {LOOP_KEYS} seeds and back, along splines. Psi
{PSI:g}, constant noise."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Options of `stylegan demo`."""

    minutes: Annotated[float, tyro.conf.arg(help="Time to train, without start and report.")] = 5.0
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DATA", help="A folder or zip of images; left out: the emoji."),
    ] = None
    out: Annotated[Path, tyro.conf.arg(metavar="RUN", help="The folder of the run.")] = Path(
        "runs", "demo"
    )
    device: options.Device = "auto"
    seed: options.Seed = 0


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan demo` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command: Demo = tyro.cli(Demo, prog="stylegan demo", description=_DEMO, args=arguments)
    if not command.minutes > 0:
        raise ConfigError(
            f"--minutes {command.minutes:g}", expected="more than 0", fix="leave it out for 5"
        )
    data = find_data(command.data)
    dataset = ImageDataset(data, resolution=RESOLUTION)
    if len(dataset) < 2:
        raise DataError(
            f"one image in {data}", expected="hundreds of images", fix="name others with --data"
        )
    chosen = {
        "data": str(data),
        "snapshot_kimg": SNAPSHOT_KIMG,
        "seed": command.seed,
        "device": options.resolve_device(command.device).type,
    }
    config, _ = configure(PRESET, chosen, resolution=RESOLUTION, img_channels=dataset.num_channels)
    console = options.console()
    console.print(
        f"{command.minutes:g} minutes of {PRESET} at {RESOLUTION}x{RESOLUTION} on {len(dataset):,} "
        f"images of {data}, in {command.out}",
        markup=False,
    )
    outcome = train_for(
        command.minutes, config, run_dir=command.out, dataset=dataset, console=console
    )
    if outcome is not None and outcome.signal is not None:
        console.print("interrupted and saved; the same line goes on", markup=False)
        return 128 + outcome.signal
    show(config, command.out, dataset=dataset, console=console)
    return 0


def train_for(
    minutes: float, config: RunConfig, *, run_dir: Path, dataset: ImageDataset, console: Console
) -> Outcome | None:
    """Train until the run has been trained for `minutes`; None if it already has."""
    check_run_folder(run_dir, config, fingerprint=dataset.fingerprint)  # refuses another run's
    minutes_left = minutes - trained_minutes(run_dir)
    if minutes_left <= 0 and snapshots(run_dir):
        return None
    end_s = time.monotonic() + 60 * minutes_left
    with LiveLine(console) as line:

        def observe(progress: Progress) -> None:
            # The time ends before the run does.
            seconds_left = min(progress.seconds_left, max(end_s - time.monotonic(), 0.0))
            line.update(replace(progress, seconds_left=seconds_left))

        outcome = train(
            config, run_dir, dataset=dataset, observe=observe, max_minutes=max(minutes_left, 0.0)
        )
    if outcome.signal is None:
        _write_json(run_dir / FINISHED, {"minutes": minutes})
    return outcome


def trained_minutes(run_dir: Path) -> float:
    """Return how long a run has been training; 0 for a new one.

    The log tells of a run that was interrupted, up to its last line.
    """
    try:
        finished = float(json.loads((run_dir / FINISHED).read_text(encoding="utf-8"))["minutes"])
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        finished = 0.0
    logged: float = sum(record["time"]["seconds"] for record in ticks(run_dir)) / 60
    return max(finished, logged)


def ticks(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of the log that report training."""
    return [record for record in read_log(run_dir) if record["kind"] == "tick"]


def show(config: RunConfig, run_dir: Path, *, dataset: ImageDataset, console: Console) -> None:
    """Write pictures, distances and the report of a trained run into its folder."""
    device = torch.device(decided(config.runtime.device, "runtime.device"))
    # As it was at the start: weights are a function of the seed.
    start = TrainState(config, device).generator_ema
    trained = load(run_dir).to(device)
    with options.progress() as bar:
        task = bar.add_task("distances", total=3)
        distances = measure(start, trained, reals=dataset, seed=config.seed)
        bar.update(task, description="pictures", advance=1)
        pictures = draw(trained, run_dir / "report")
        strip = samples_over_training(start, run_dir, device=device)
        bar.update(task, description="report", advance=1)
        sections = [
            Section(title="What this is", blocks=[_summary(config, run_dir, trained)]),
            Section(title="Samples over training", blocks=[Text(text=_SAMPLES), strip]),
            *_picture_sections(pictures, _some(dataset, 64, config.seed)),
            Section(
                title="Sliced Wasserstein distance",
                blocks=[Text(text=_DISTANCE), distance_table(distances)],
            ),
            Section(
                title="Training",
                blocks=[*charts(ticks(run_dir)), *metric_charts(read_log(run_dir))],
            ),
        ]
        title = f"stylegan demo: {dataset.name} at {RESOLUTION}x{RESOLUTION}"
        write_page(run_dir / "report.html", title, sections=sections)
        bar.advance(task)
    _write_json(run_dir / "report" / "swd.json", asdict(distances))
    before, after = distances.start.average, distances.end.average
    console.print(
        f"sliced Wasserstein distance x1e3, {distances.start.num_images} images: {before:.1f} "
        f"before training, {after:.1f} trained ({after / before:.0%}), "
        f"{distances.real.average:.1f} other real images",
        markup=False,
    )
    console.print(f"report: {run_dir / 'report.html'}", markup=False)


def draw(generator: AbstractGenerator, folder: Path) -> dict[str, bytes]:
    """Write the papers' figures, and return the files by name."""

    def latents(first: int, num: int) -> Tensor:
        return latents_from_seeds(range(first, first + num), generator.z_dim)

    sheets = {
        "samples": sample_grid(generator, latents(0, 64), columns=8, psi=PSI),
        "truncation": truncation_grid(generator, map_latents(generator, latents(0, 6))),
        "mixing": mixing_grid(
            generator,
            map_latents(generator, latents(100, 5), psi=PSI),
            sources=map_latents(generator, latents(200, 6), psi=PSI),
            layers=parse_layers("coarse", generator.num_ws),
        ),
    }
    for name, sheet in sheets.items():
        images.write(sheet, folder / f"{name}.png")
    images.write_gif(interpolation_frames(generator), folder / "interpolation.gif", fps=LOOP_FPS)
    files = {path.stem: path.read_bytes() for path in folder.glob("*.png")}
    return files | {"interpolation": (folder / "interpolation.gif").read_bytes()}


def snapshots(run_dir: Path) -> list[Path]:
    """Return the folders of a run's snapshots, oldest first."""
    folders = (run_dir / "snapshots").glob("*")
    return sorted(folder for folder in folders if folder.name.isdecimal() and io.is_native(folder))


def samples_over_training(start: AbstractGenerator, run_dir: Path, *, device: torch.device) -> Row:
    """Show the same latents by the generators of the snapshots, and before training."""
    z = latents_from_seeds(range(16), start.z_dim)

    def figure(generator: AbstractGenerator, nimg: int) -> Figure:
        sheet = sample_grid(generator, z, columns=4)
        return Figure(data=images.png_bytes(sheet), caption=f"{nimg / 1000:.1f} kimg")

    figures = [figure(start, 0)]
    for folder in evenly(snapshots(run_dir), STRIP_FIGURES - 1):
        generator = io.load(folder, only=["generator_ema"]).generator_ema
        assert generator is not None
        figures.append(figure(generator.eval().to(device), int(folder.name)))
    return Row(figures=figures)


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Sliced Wasserstein distances to real images, all between sets of the same size.

    Args:
        start: of the generator before training.
        end: of the trained generator.
        real: of other real images: what a perfect generator would have.
    """

    start: SlicedWasserstein
    end: SlicedWasserstein
    real: SlicedWasserstein


def find_data(path: Path | None) -> Path:
    """Return `path`, or the demo set of the current folder or of the source checkout.

    Raises:
        DataError: if it is not there.
    """
    checkout = Path(__file__).parents[3]
    candidates = [DATA, checkout / DATA] if path is None else [path]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DataError(
        f"no images at {candidates[0]}",
        expected="a folder or zip of images",
        fix="run the demo in a checkout of the source, or make a set with "
        f"`stylegan data prepare SRC {candidates[0]} --resolution 64`, or name one with --data",
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
        seed: decides everything that is drawn.
    """
    order = torch.randperm(len(reals), generator=generator_for("swd reals", seed=seed)).tolist()
    num = min(SWD_IMAGES, len(reals) // 2)
    first = reals.gather(order[:num])
    others = reals.gather(order[num : 2 * num])
    return Distances(
        start=sliced_wasserstein_distance(first, sample(start, num, seed=seed), seed=seed),
        end=sliced_wasserstein_distance(first, sample(end, num, seed=seed), seed=seed),
        real=sliced_wasserstein_distance(first, others, seed=seed),
    )


def sample(generator: AbstractGenerator, num: int, *, seed: int) -> Tensor:
    """Make uint8 [num, C, R, R] for a metric: without truncation, with random noise."""
    device = next(generator.parameters()).device
    noise = generator_for("swd noise", seed=seed)
    z = torch.randn(num, generator.z_dim, generator=generator_for("swd latents", seed=seed))
    blocks = []
    with torch.no_grad():
        for start in range(0, num, SWD_BATCH):
            block = z[start : start + SWD_BATCH].to(device)
            pictures = generator(block, noise_mode="random", generator=noise)
            blocks.append(images.to_uint8(pictures).cpu())
    return torch.cat(blocks)


def interpolation_frames(generator: AbstractGenerator) -> list[Tensor]:
    """Make the frames of a loop in w, several walks side by side: uint8 [C, 2 R, 6 R] each."""
    z = latents_from_seeds(range(LOOP_KEYS * LOOP_TILES), generator.z_dim)
    ws = map_latents(generator, z, psi=PSI)
    keys = ws.view(LOOP_KEYS, LOOP_TILES, generator.num_ws, generator.w_dim)
    return [
        images.grid(torch.stack(list(render(generator, tiles))), columns=LOOP_TILES // 2)
        for tiles in loop_through(keys, LOOP_FRAMES_PER_KEY)
    ]


def distance_table(distances: Distances) -> Table:
    """Show distances by level."""
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
        f"Training has brought the average to {ratio:.0%} of where it started; the last column "
        "is what a perfect generator would have.",
    )


def _summary(config: RunConfig, run_dir: Path, generator: AbstractGenerator) -> Table:
    shown = max(int(folder.name) for folder in snapshots(run_dir))
    return Table(
        header=["what", "value"],
        rows=[
            ["preset", config.preset],
            ["images", config.data.path],
            ["resolution", f"{config.generator.resolution}x{config.generator.resolution}"],
            ["parameters of the generator", f"{num_parameters(generator):,}"],
            ["real images shown", f"{shown:,}"],
            ["time of training", f"{trained_minutes(run_dir):.1f} minutes"],
            ["device", f"{config.runtime.device}, {torch.get_num_threads()} threads"],
            ["seed", str(config.seed)],
            ["versions", f"stylegan {__version__}, PyTorch {torch.__version__}"],
        ],
    )


def _picture_sections(pictures: Mapping[str, bytes], reals: Tensor) -> list[Section]:
    real_sheet = images.png_bytes(images.grid(reals, columns=8))
    generated = f"Generated, not chosen: seeds 0 to 63, psi {PSI:g}."
    side_by_side = [
        Figure(data=real_sheet, caption="Real images, chosen at random.", scale=2),
        Figure(data=pictures["samples"], caption=generated, scale=2),
    ]
    sections = [Section(title="Real and generated", blocks=[Row(figures=side_by_side)])]
    for title, name, caption in (
        ("Truncation", "truncation", _TRUNCATION),
        ("Style mixing", "mixing", _MIXING),
        ("Interpolation", "interpolation", _INTERPOLATION),
    ):
        figure = Figure(data=pictures[name], caption=caption, scale=2)
        sections.append(Section(title=title, blocks=[figure]))
    return sections


def _some(reals: ImageDataset, num: int, seed: int) -> Tensor:
    stream = generator_for("report reals", seed=seed)
    order = torch.randperm(len(reals), generator=stream)[:num].tolist()
    return reals.gather(order)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=2) + "\n")
