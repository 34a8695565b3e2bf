"""`stylegan report`: all that one can see of a network, on one page."""

import io
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from stylegan import images
from stylegan.cli import figures
from stylegan.cli.attribute import calibration_place
from stylegan.cli.drawing import (
    Class,
    Network,
    PerceptualOption,
    WeightsDir,
)
from stylegan.cli.figures import Analysis, Drawing
from stylegan.cli.measuring import dependencies_for, protocols_of, reading, target_of
from stylegan.cli.options import Device, Seed, console, progress
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError, StyleganError
from stylegan.interop.load import complete_snapshots, is_run, origin_of, weights_path
from stylegan.latent.attribution import Calibration, roc_curve
from stylegan.latent.directions import factorize
from stylegan.latent.grids import PADDING, TRUNCATION_PSIS, mixing_grid, truncation_grid
from stylegan.latent.interpolate import loop_through
from stylegan.latent.layers import parse_layers
from stylegan.latent.project import DEFAULTS
from stylegan.latent.render import map_latents, render
from stylegan.latent.seeds import latents_from_seeds
from stylegan.latent.statistics import sample_styles
from stylegan.latent.targets import read_targets
from stylegan.metrics.protocols import PathLengthProtocol
from stylegan.metrics.ranking import ranking_sheets
from stylegan.metrics.suite import evaluate
from stylegan.models.base import num_parameters
from stylegan.models.registry import family_of
from stylegan.progress import ProgressBar
from stylegan.training.log import read_log
from stylegan.workflows.curves import charts, evenly, metric_charts
from stylegan.workflows.networks import (
    check_suffix,
    label_of,
    load_generator,
)
from stylegan.workflows.page import Block, Chart, Figure, Section, Table, Text, write_page
from stylegan.workflows.project import open_projector

logger = logging.getLogger(__name__)

SHOWN_SIDE = 128  # pixels, to which larger pictures are reduced on the page
SHOWN_WIDTH = 1800  # pixels of a sheet: twice the page's width, for fine screens
NUM_SAMPLES = 32
NUM_REALIZATIONS = 25
PSI = 0.7
LOOP_KEYS, LOOP_FRAMES, LOOP_TILES, LOOP_FPS = 4, 10, 6, 20.0
MAX_SNAPSHOTS = 12
STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)

_REPORT = """Write one HTML page with every figure and number that applies to a network.

It holds all it shows, loads nothing, and can be read on a phone. What a network does not have, and
what lacks data or an extra, is said in its place.

Example: stylegan report --network runs/faces --data faces.zip --out report.html"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Options of `stylegan report`."""

    network: Network
    out: Annotated[Path, tyro.conf.arg(metavar="PAGE.html", help="The page to write.")] = Path(
        "report.html"
    )
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DATA", help="Real images like the training set's: folder or zip."),
    ] = None
    num: Annotated[
        int, tyro.conf.arg(metavar="N", help="Images for numbers; more take longer.")
    ] = 128
    projections: Annotated[
        int, tyro.conf.arg(metavar="N", help="Images of --data to project; 0 for none.")
    ] = 2
    steps: Annotated[int, tyro.conf.arg(metavar="N", help="Steps of these projections.")] = 200
    perceptual: PerceptualOption = "efficientnet"
    weights_dir: WeightsDir = None
    class_index: Class = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Write the page."""
        check_suffix(self.out, ".html")
        for name, value, least in (
            ("num", self.num, 8),
            ("projections", self.projections, 0),
            ("steps", self.steps, 1),
        ):
            if value < least:
                raise ConfigError(
                    f"--{name} {value}", expected=f"at least {least}", fix="leave it out"
                )
        made = _Made(self)
        sections = []
        with progress() as bar:
            task = bar.add_task("report", total=len(made.parts))
            for title, part in made.parts:
                bar.update(task, description=title)
                sections.append(_section(title, part))
                bar.advance(task)
        write_page(self.out, f"{made.name}: report", sections=sections)
        size = self.out.stat().st_size / 1e6
        console().print(f"{len(sections)} sections, {size:.1f} MB, in {self.out}", markup=False)
        return 0


def _section(title: str, part: Callable[[], Sequence[Block]]) -> Section:
    """Make a section; what does not apply, or fails, is said in its place."""
    try:
        return Section(title=title, blocks=part())
    except StyleganError as error:
        return Section(title=title, blocks=[Text(text=f"Left out: {error}.")])
    except (RuntimeError, MemoryError) as error:
        # such as too little memory: one figure must not cost the others
        logger.warning("%s failed (%s)", title, str(error)[:200])
        return Section(title=title, blocks=[Text(text=f"Failed: {str(error)[:200]}")])


class _Made:
    """The parts of a page, made when they are asked for."""

    def __init__(self, command: Report) -> None:
        self.command = command
        self.path = weights_path(command.network)
        self.generator = load_generator(self.path, command.device)
        self.label = label_of(command.class_index, self.generator)
        self.has_mean = self.generator.w_avg is not None
        self.psi = PSI if self.has_mean else 1.0
        self.name = command.network
        self.drawing = Drawing(
            name=command.network,
            generator=self.generator,
            label=self.label,
            seed=command.seed,
        )
        self.parts: list[tuple[str, Callable[[], Sequence[Block]]]] = [
            ("Network", self.describe),
            ("Samples", self.samples),
            ("Truncation", self.truncation),
            ("Style mixing", self.mixing),
            ("Interpolation", self.interpolation),
            ("Noise", self.noise),
            ("Directions", self.directions),
            ("Resolution usage", self.usage),
            ("Droplets", self.droplets),
            ("Details that stick to pixels", self.phase),
            ("Power spectra", self.spectra),
            ("Images by path length", self.path_length),
            ("Projection", self.projection),
            ("Attribution", self.attribution),
            ("Training", self.training),
        ]

    @cached_property
    def reals(self) -> ImageDataset | None:
        """The real images at the network's size."""
        if self.command.data is None:
            return None
        with reading() as tell:
            return ImageDataset(self.command.data, resolution=self.drawing.side, progress=tell)

    def describe(self) -> list[Block]:
        """Say what the network is."""
        origin = origin_of(self.path)
        generator = self.generator
        rows = [
            ["weights", str(origin["path"])],
            ["SHA-256", str(origin["sha256"])],
            ["family", family_of(generator)],
            ["images", f"{self.drawing.side}x{self.drawing.side}, {generator.img_channels} colors"],
            ["parameters", f"{num_parameters(generator):,}"],
            ["style inputs", f"{generator.num_ws} of width {generator.w_dim}"],
            ["labels", str(generator.c_dim) if generator.c_dim > 0 else "none"],
        ]
        if isinstance(origin["nimg"], int):
            rows.append(["real images shown", f"{origin['nimg']:,}"])
        return [Table(header=["", ""], rows=rows)]

    def samples(self) -> list[Block]:
        """Show samples, not chosen."""
        blocks: list[Block] = []
        for psi in dict.fromkeys([1.0, self.psi]):
            ws = self._styles(0, NUM_SAMPLES, psi)
            pictures = torch.stack([_small(each) for each in render(self.generator, ws)])
            blocks.append(
                _figure(
                    images.grid(pictures, columns=8),
                    f"Seeds 0 to {NUM_SAMPLES - 1}, not chosen; psi {psi:g}.",
                    columns=8,
                )
            )
        return blocks

    def truncation(self) -> list[Block]:
        """Show truncation."""
        if not self.has_mean:
            raise ConfigError(
                "a network without a mapping network",
                expected="a mean of w that images could approach",
                fix="use a StyleGAN or StyleGAN2",
            )
        sheet = truncation_grid(self.generator, self._styles(0, 4, 1.0))
        told = ", ".join(f"{psi:g}" for psi in TRUNCATION_PSIS)
        caption = f"Seeds 0 to 3 by rows; psi {told} by columns. 0 is the mean image."
        return [_figure(self._reduced(sheet), caption, columns=len(TRUNCATION_PSIS))]

    def mixing(self) -> list[Block]:
        """Show mixing at each range of layers."""
        if self.generator.num_ws == 1:
            raise ConfigError(
                "a network with one style input",
                expected="several, to mix",
                fix="use a StyleGAN or StyleGAN2 with styles",
            )
        blocks: list[Block] = []
        rows, columns = self._styles(100, 3, self.psi), self._styles(200, 5, self.psi)
        for layers in ("coarse", "middle", "fine"):
            try:
                indices = parse_layers(layers, self.generator.num_ws)
            except ConfigError:
                continue  # a small network has no fine layers
            sheet = mixing_grid(self.generator, rows, sources=columns, layers=indices)
            caption = f"Rows keep their image, but for the {layers} styles of the columns."
            blocks.append(_figure(self._reduced(sheet), caption, columns=6))
        return blocks

    def interpolation(self) -> list[Block]:
        """Show a short loop as a GIF."""
        ws = self._styles(0, LOOP_KEYS * LOOP_TILES, self.psi)
        keys = ws.view(LOOP_KEYS, LOOP_TILES, *ws.shape[1:])
        frames = [
            images.grid(
                torch.stack([_small(each) for each in render(self.generator, tiles)]),
                columns=LOOP_TILES // 2,
            )
            for tiles in loop_through(keys, LOOP_FRAMES)
        ]
        buffer = io.BytesIO()
        images.save_gif(frames, buffer, fps=LOOP_FPS)
        caption = f"{LOOP_TILES} closed walks through {LOOP_KEYS} latents each; noise is fixed."
        scale = max(1, 128 // (frames[0].shape[-1] // 6))
        return [Figure(data=buffer.getvalue(), caption=caption, scale=min(3, scale))]

    def noise(self) -> list[Block]:
        """Show what noise does."""
        return _blocks(
            figures.analyze_noise(self.drawing, num=3, num_realizations=NUM_REALIZATIONS)
        )

    def directions(self) -> list[Block]:
        """Show the first directions of each range of layers."""
        generator = self.generator
        w = sample_styles(generator, num=2000, c=self.label).cpu()
        base = self._styles(0, 1, self.psi)
        blocks: list[Block] = []
        ranges: Sequence[Literal["all", "coarse", "middle", "fine"]] = (
            ("all",) if generator.num_ws == 1 else ("coarse", "middle", "fine")
        )
        for layers in ranges:
            try:
                indices = parse_layers(layers, generator.num_ws)
            except ConfigError:
                continue
            found = factorize(generator, w, layers=indices, num=min(4, generator.w_dim))
            rows = torch.cat(
                [found.apply(base, {name: s}) for name in found.names for s in STRENGTHS]
            )
            pictures = torch.stack([_small(each) for each in render(generator, rows)])
            caption = (
                f"The first four directions in the {layers} layers by rows (closed-form "
                "factorization); from left to right -3 to 3 deviations."
            )
            sheet = images.grid(pictures, columns=len(STRENGTHS), padding=PADDING)
            blocks.append(_figure(sheet, caption, columns=len(STRENGTHS)))
        return blocks

    def usage(self) -> list[Block]:
        """Show the contribution of each resolution."""
        history = []
        run = Path(self.command.network)
        if is_run(run):
            for snapshot in evenly(complete_snapshots(run), MAX_SNAPSHOTS):
                then = load_generator(snapshot, self.command.device)
                history.append((int(snapshot.name) / 1000, replace(self.drawing, generator=then)))
        return _blocks(figures.analyze_usage(self.drawing, num=self.command.num, history=history))

    def droplets(self) -> list[Block]:
        """Look for droplets."""
        return _blocks(figures.analyze_droplets([self.drawing], num=min(64, self.command.num)))

    def phase(self) -> list[Block]:
        """Score a few paths."""
        return _blocks(figures.analyze_phase([self.drawing], num=4))

    def spectra(self) -> list[Block]:
        """Compare spectra."""
        return _blocks(
            figures.analyze_spectra(self.drawing, num=self.command.num, reals=self.reals)
        )

    def path_length(self) -> list[Block]:
        """Sort images by path length."""
        command = self.command
        if command.perceptual == "discriminator":
            raise ConfigError(
                "--perceptual discriminator of path lengths",
                expected="lpips or efficientnet, whose values can be compared",
                fix="choose one of them",
            )
        suffix = ":efficientnet-lite0" if command.perceptual == "efficientnet" else ""
        protocols = protocols_of(f"ppl2_{command.num}_wend{suffix}")
        device = next(self.generator.parameters()).device
        dependencies = dependencies_for(
            protocols, classifiers=None, weights_dir=command.weights_dir, device=device
        )
        target = target_of(self.generator, self.path, self.reals, seed=command.seed)
        with ProgressBar(transient=True) as tell:
            (result,) = evaluate(protocols, target, None, dependencies, progress=tell)
        (protocol,) = protocols
        assert isinstance(protocol, PathLengthProtocol)
        sheets = ranking_sheets(result, protocol, target)
        blocks: list[Block] = [
            Table(
                header=["metric", "value", "images"],
                rows=[[result.record["metric"], f"{result.record['value']:.4g}", str(command.num)]],
            )
        ]
        for which, sheet in sheets.items():
            caption = f"The {which} paths, the extreme one first."
            blocks.append(_figure(self._reduced(sheet), caption, columns=8))
        return blocks

    def projection(self) -> list[Block]:
        """Project a few real images."""
        command = self.command
        if command.data is None or command.projections == 0:
            raise ConfigError(
                "no images to project", expected="--data, and --projections above 0", fix="pass it"
            )
        projector, _ = open_projector(
            command.network,
            device=command.device,
            perceptual=command.perceptual,
            weights_dir=command.weights_dir,
            class_index=command.class_index,
            config=replace(DEFAULTS["w"], num_steps=command.steps),
            seed=command.seed,
        )
        targets = read_targets(
            [command.data],
            side=projector.side,
            num_channels=self.generator.img_channels,
            num=command.projections,
        )
        found = projector.project(targets)
        blocks: list[Block] = []
        for target, each in zip(targets, found, strict=True):
            pair = torch.stack([_small(target.image), _small(each.image)])
            caption = (
                f"{target.name} and its projection into w, {command.steps} steps: "
                f"{projector.distance.name} {each.distance:.3f}, PSNR {each.psnr:.1f} dB."
            )
            blocks.append(
                _figure(images.grid(pair, columns=2, padding=PADDING), caption, columns=2)
            )
        return blocks

    def attribution(self) -> list[Block]:
        """Show a stored calibration."""
        place = calibration_place(self.path)
        if not place.exists():
            raise ConfigError(
                f"no calibration at {place}",
                expected="one of `stylegan attribute --calibrate`",
                fix="make one",
            )
        found = Calibration.from_json(json.loads(place.read_text(encoding="utf-8")))
        false, true = roc_curve(found.own, found.real)
        rows = [
            ["own, real images", f"{len(found.own)}, {len(found.real)}"],
            ["area under the curve", f"{found.area:.4f} ± {found.area_error:.4f}"],
            ["overlap of the histograms", f"{found.overlap:.2f}"],
        ]
        return [
            Table(header=["", ""], rows=rows),
            Chart(
                title="ROC curve",
                series={"own images found": list(zip(false, true, strict=True))},
                x_label="real images taken for own",
                y_label="own images found",
            ),
        ]

    def training(self) -> list[Block]:
        """Show the curves of a run."""
        run = Path(self.command.network)
        if not is_run(run):
            raise ConfigError(
                "weights without a run", expected="a run folder", fix="pass it by --network"
            )
        log = read_log(run)
        ticks = [record for record in log if record["kind"] == "tick"]
        return [*charts(ticks), *metric_charts(log)]

    def _styles(self, first: int, num: int, psi: float) -> Tensor:
        z = latents_from_seeds(range(first, first + num), self.generator.z_dim)
        return map_latents(self.generator, z, c=self.label, psi=psi)

    def _reduced(self, sheet: Tensor) -> Tensor:
        """Reduce a sheet of pictures as `_small` does one."""
        factor = max(1, self.drawing.side // SHOWN_SIDE)
        return _averaged(sheet, factor)


def _blocks(found: Analysis) -> list[Block]:
    return [Text(text=found.summary), *(_bounded(each) for each in found.blocks.values())]


def _bounded(block: Block) -> Block:
    """Reduce a figure that is wider than a page shows, so that the page stays small."""
    if not isinstance(block, Figure):
        return block
    sheet = images.read(io.BytesIO(block.data))
    factor = math.ceil(sheet.shape[-1] / SHOWN_WIDTH)
    if factor == 1:
        return block
    return replace(block, data=images.png_bytes(_averaged(sheet, factor)))


def _small(picture: Tensor) -> Tensor:
    """Reduce uint8 [C, R, R] to 128 pixels or less."""
    return _averaged(picture, max(1, picture.shape[-1] // SHOWN_SIDE))


def _averaged(picture: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return picture
    mean = F.avg_pool2d(picture[None].float(), factor, ceil_mode=True)
    return mean[0].round().to(torch.uint8)


def _figure(sheet: Tensor, caption: str, *, columns: int) -> Figure:
    return Figure(
        data=images.png_bytes(sheet),
        caption=caption,
        scale=figures.scale_of(sheet, columns=columns),
    )


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan report` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command = tyro.cli(Report, prog="stylegan report", description=_REPORT, args=arguments)
    return command.run()
