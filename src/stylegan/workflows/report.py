"""A report of a network: all figures and numbers on one page."""

import io
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan import images
from stylegan.data.array_files import reduce
from stylegan.data.dataset import ImageDataset
from stylegan.data.readers import reading_for
from stylegan.data.sources.open import check_exists
from stylegan.devices import DeviceName
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
from stylegan.models.base import AbstractGenerator, num_parameters
from stylegan.models.registry import family_of
from stylegan.progress import Progress, counter
from stylegan.training.log import read_log, read_metrics
from stylegan.training.outputs import REALS
from stylegan.workflows import figures
from stylegan.workflows.analyze import path_length_protocol, rank_by_path_length
from stylegan.workflows.attribute import calibration_path
from stylegan.workflows.curves import charts, evenly, metric_charts
from stylegan.workflows.figures import Analysis, Sampler
from stylegan.workflows.networks import (
    Network,
    Perceptual,
    check_suffix,
    choose_perceptual,
    fingerprint_of,
    label_of,
    load_generator,
)
from stylegan.workflows.page import (
    Block,
    Chart,
    Figure,
    Row,
    Section,
    Table,
    Text,
    frame,
    write_page,
)
from stylegan.workflows.project import open_projector

logger = logging.getLogger(__name__)

SHOWN_SIDE = 128  # pixels; larger pictures are reduced
SHOWN_WIDTH = 1800  # pixels of a grid: twice the width of the page, for high-resolution screens
NUM_SAMPLES = 32
NUM_REALIZATIONS = 25
PSI = 0.7
LOOP_KEYS, LOOP_FRAMES, LOOP_TILES, LOOP_FPS = 4, 10, 6, 20.0
MAX_SNAPSHOTS = 12
STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report of a network as one HTML page. A notebook shows it.

    Attributes:
        title: the heading.
        sections: in their order.
        path: the written file; None if none was written.
    """

    title: str
    sections: Sequence[Section]
    path: Path | None = None

    def __str__(self) -> str:
        size = 0 if self.path is None else self.path.stat().st_size / 1e6
        place = "" if self.path is None else f", {size:.1f} MB, in {self.path}"
        return f"{len(self.sections)} sections{place}"

    def _repr_html_(self) -> str:
        return frame(self.title, sections=self.sections)


def report(
    network: Network,
    data: str | Path | None = None,
    *,
    out: Path | None = Path("report.html"),
    num: int = 128,
    projections: int = 2,
    steps: int = 200,
    perceptual: Perceptual = "auto",
    weights_dir: Path | None = None,
    class_index: str | int | None = None,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Write one HTML page with every figure and number that applies to a network.

    The page contains everything that it shows, loads nothing, and is readable on a phone. A section
    that does not apply to the network, or lacks data or an extra, gives the reason instead.

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator.
        data: real images like those of the training set: a folder or zip.
        out: the page to write.
        num: number of images for the analyses; more take longer.
        projections: number of images of `data` to project; 0 for none.
        steps: optimization steps of these projections.
        perceptual: the distance: "lpips", whose weights are downloaded once; "efficientnet", which
            is EfficientNet-Lite0 of the extra [metrics]; "discriminator", the network's own; or
            "auto", LPIPS if its weights are on this machine, else EfficientNet-Lite0.
        weights_dir: a folder with manually downloaded weights of feature networks.
        class_index: the class of a conditional generator: its name, or its number from 0.
        device: where to compute; a loaded generator stays on its device.
        seed: seed of all random numbers.
        progress: called after each section, and within some.

    Returns:
        The report.

    Raises:
        StyleganError: if an option or the network cannot be used.
    """
    check_suffix(out, ".html")
    for name, value, least in (
        ("num", num, 8),
        ("projections", projections, 0),
        ("steps", steps, 1),
    ):
        if value < least:
            raise ConfigError(f"--{name} must be {least} or more, got {value}")
    if data is not None:
        check_exists(data)
    builder = ReportBuilder(
        network,
        data,
        num=num,
        projections=projections,
        steps=steps,
        perceptual=perceptual,
        weights_dir=weights_dir,
        class_index=class_index,
        device=device,
        seed=seed,
        progress=progress,
    )
    sections = []
    for title, build in builder.parts:
        sections.append(_section(title, build))
        if progress is not None:
            progress("sections", len(sections), len(builder.parts))
    title = f"{builder.name}: report"
    if out is not None:
        write_page(out, title, sections=sections)
    return Report(title=title, sections=sections, path=out)


def _section(title: str, build: Callable[[], Sequence[Block]]) -> Section:
    """Build a section; if that is not possible, it gives the reason."""
    try:
        return Section(title=title, blocks=build())
    except StyleganError as error:
        return Section(title=title, blocks=[Text(text=f"Left out: {error}.")])
    except (RuntimeError, MemoryError) as error:  # out of memory: the other sections may fit
        message = str(error)[:200]
        logger.warning("%s failed (%s)", title, message, exc_info=True)
        return Section(title=title, blocks=[Text(text=f"Failed: {message}")])


class ReportBuilder:
    """Builds the sections of a report; arguments as of `report`.

    Attributes:
        name: the network's name.
        parts: titles of the sections, with the functions that build their blocks.
    """

    def __init__(
        self,
        network: Network,
        data: str | Path | None,
        *,
        num: int,
        projections: int,
        steps: int,
        perceptual: Perceptual,
        weights_dir: Path | None,
        class_index: str | int | None,
        device: DeviceName | torch.device,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.network = network
        self.path = None if isinstance(network, AbstractGenerator) else weights_path(network)
        self.name = "network" if self.path is None else str(network)
        self.data, self.num, self.projections, self.steps = data, num, projections, steps
        self.perceptual = choose_perceptual(perceptual, weights_dir=weights_dir)
        self.weights_dir, self.class_index, self.seed = weights_dir, class_index, seed
        self.device, self.progress = device, progress
        self.generator = load_generator(
            network if self.path is None else self.path, device, progress=progress
        )
        self.label = label_of(class_index, self.generator)
        self.has_mean = self.generator.w_avg is not None
        self.psi = PSI if self.has_mean else 1.0
        self.sampler = Sampler(
            name=self.name,
            generator=self.generator,
            label=self.label,
            seed=seed,
            progress=progress,
        )
        self.parts: list[tuple[str, Callable[[], Sequence[Block]]]] = [
            ("Network", self.describe),
            ("Metrics", self.metrics),
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
        """The real images in the network's size."""
        if self.data is None:
            return None
        return ImageDataset(
            self.data,
            resolution=self.sampler.size,
            reading=reading_for(self.generator.pixels),
            progress=counter(self.progress, "reading images"),
        )

    @property
    def run(self) -> Path | None:
        """The run's folder; None for other networks."""
        if isinstance(self.network, AbstractGenerator) or not is_run(Path(self.network)):
            return None
        return Path(self.network)

    def describe(self) -> list[Block]:
        """Describe the network."""
        generator = self.generator
        origin = {} if self.path is None else origin_of(self.path)
        rows = [
            ["weights", str(origin.get("path", self.name))],
            ["SHA-256", str(origin.get("sha256") or fingerprint_of(generator))],
            ["family", family_of(generator)],
            [
                "images",
                f"{self.sampler.size}, {generator.img_channels} channels"
                + ("" if generator.pixels.is_plain else f" ({generator.pixels})"),
            ],
            ["parameters", f"{num_parameters(generator):,}"],
            ["style inputs", f"{generator.num_ws} of width {generator.w_dim}"],
            ["labels", str(generator.c_dim) if generator.c_dim > 0 else "none"],
        ]
        if isinstance(nimg := origin.get("nimg"), int):
            rows.append(["real images shown", f"{nimg:,}"])
        return [Table(header=["", ""], rows=rows)]

    def metrics(self) -> list[Block]:
        """List the metrics that were measured for a run."""
        records = [] if self.run is None else read_metrics(self.run)
        if not records:
            raise ConfigError(
                "no measured metrics; pass a run folder whose training, or "
                "`stylegan evaluate --watch`, has measured some"
            )
        return [metric_table(records)]

    def samples(self) -> list[Block]:
        """Show samples, not chosen, beside real images if there are some."""
        figures_shown = []
        for psi in dict.fromkeys([1.0, self.psi]):
            ws = self._styles(0, NUM_SAMPLES, psi)
            caption = f"Seeds 0 to {NUM_SAMPLES - 1}, not chosen; psi {psi:g}."
            figures_shown.append(self._sheet(list(render(self.generator, ws)), caption))
        real = self._real_figure()
        if real is None:
            return [*figures_shown]
        return [Row(figures=[real, figures_shown[0]]), *figures_shown[1:]]

    def _real_figure(self) -> Figure | None:
        """Return a figure of real images: of the data, else those that the run's folder shows."""
        if self.reals is not None:
            num = min(NUM_SAMPLES, len(self.reals))
            chosen = self.reals.gather([index * len(self.reals) // num for index in range(num)])
            pictures = self.reals.pixels.shown_stored(chosen)
            return self._sheet([*pictures], f"Real images, at even distances in {self.data}.")
        path = None if self.run is None else self.run / REALS
        if path is None or not path.exists():
            return None
        caption = "The first real images of the run, as the networks get them."
        return Figure.of(self._reduced(images.read(path)), caption=caption)

    def _sheet(self, pictures: Sequence[Tensor], caption: str) -> Figure:
        """Return a figure of pictures in rows of eight."""
        small = torch.stack([small_picture(picture) for picture in pictures])
        return _figure(images.grid(small, columns=8), caption, columns=8)

    def truncation(self) -> list[Block]:
        """Show truncation."""
        if not self.has_mean:
            raise ConfigError("a network without a mapping network has no mean of w")
        sheet = truncation_grid(self.generator, self._styles(0, 4, 1.0))
        psis = ", ".join(f"{psi:g}" for psi in TRUNCATION_PSIS)
        caption = f"Seeds 0 to 3 by rows; psi {psis} by columns. 0 is the mean image."
        return [_figure(self._reduced(sheet), caption, columns=len(TRUNCATION_PSIS))]

    def mixing(self) -> list[Block]:
        """Show mixing at each range of layers."""
        if self.generator.num_ws == 1:
            raise ConfigError("a network with one style input has no styles to mix")
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
                torch.stack([small_picture(each) for each in render(self.generator, tiles)]),
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
            figures.analyze_noise(self.sampler, num=3, num_realizations=NUM_REALIZATIONS)
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
            pictures = torch.stack([small_picture(each) for each in render(generator, rows)])
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
        if self.run is not None:
            for snapshot in evenly(complete_snapshots(self.run), MAX_SNAPSHOTS):
                generator = load_generator(snapshot, self.device)
                sampler = replace(self.sampler, generator=generator)
                history.append((int(snapshot.name) / 1000, sampler))
        return _blocks(figures.analyze_usage(self.sampler, num=self.num, history=history))

    def droplets(self) -> list[Block]:
        """Look for droplets."""
        return _blocks(
            figures.analyze_droplets([self.sampler], num=min(64, self.num), captions=False)
        )

    def phase(self) -> list[Block]:
        """Score a few paths."""
        return _blocks(figures.analyze_phase([self.sampler], num=4, captions=False))

    def spectra(self) -> list[Block]:
        """Compare spectra."""
        return _blocks(figures.analyze_spectra(self.sampler, num=self.num, reals=self.reals))

    def path_length(self) -> list[Block]:
        """Sort images by path length."""
        analysis = rank_by_path_length(
            self.generator,
            path_length_protocol(self.num, self.perceptual),
            dataset=self.reals if self.generator.c_dim > 0 else None,
            origin={},
            weights_dir=self.weights_dir,
            seed=self.seed,
            progress=self.progress,
        )
        return _blocks(analysis)

    def projection(self) -> list[Block]:
        """Project a few real images."""
        if self.data is None or self.projections == 0:
            raise ConfigError("no images to project, as --data or --projections above 0 is missing")
        projector, _ = open_projector(
            self.network if self.path is None else self.path,
            device=self.device,
            perceptual=self.perceptual,
            weights_dir=self.weights_dir,
            class_index=self.class_index,
            config=replace(DEFAULTS["w"], num_steps=self.steps),
            seed=self.seed,
            progress=self.progress,
        )
        targets = read_targets(
            [Path(self.data)],
            size=projector.size,
            pixels=self.generator.pixels,
            num=self.projections,
        )
        blocks: list[Block] = []
        for target, projection in zip(targets, projector.project(targets), strict=True):
            pair = torch.stack([small_picture(target.picture), small_picture(projection.image)])
            caption = (
                f"{target.name} and its projection into w, {self.steps} steps: "
                f"{projector.distance.name} {projection.distance:.3f}, "
                f"PSNR {projection.psnr:.1f} dB."
            )
            image = images.grid(pair, columns=2, padding=PADDING)
            blocks.append(_figure(image, caption, columns=2))
        return blocks

    def attribution(self) -> list[Block]:
        """Show a stored calibration."""
        place = None if self.path is None else calibration_path(self.path)
        if place is None or not place.exists():
            raise ConfigError(
                f"no calibration at {place}; `stylegan attribute --calibrate` makes one"
            )
        found = Calibration.from_json(json.loads(place.read_text(encoding="utf-8")))
        false, true = roc_curve(found.generated, found.real)
        rows = [
            ["own, real images", f"{len(found.generated)}, {len(found.real)}"],
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
        if self.run is None:
            raise ConfigError("weights without a run; pass a run folder for the training curves")
        log = read_log(self.run)
        ticks = [record for record in log if record["kind"] == "tick"]
        return [*charts(ticks), *metric_charts(log)]

    def _styles(self, first: int, num: int, psi: float) -> Tensor:
        z = latents_from_seeds(range(first, first + num), self.generator.z_dim)
        return map_latents(self.generator, z, c=self.label, psi=psi)

    def _reduced(self, sheet: Tensor) -> Tensor:
        """Reduce a sheet of pictures as `small_picture` does one."""
        factor = max(1, max(self.sampler.size.height, self.sampler.size.width) // SHOWN_SIDE)
        return _averaged(sheet, factor)


def metric_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of all metrics of a run: the last values, and those of the best snapshot.

    The best is that with the best main value among the snapshots measured as the last one.

    Args:
        records: of the run's `metrics.jsonl`, oldest first.
    """
    rows = []
    for last in {record["metric"]: record for record in records}.values():
        same = [
            record
            for record in records
            if (record["metric"], record.get("comparable"))
            == (last["metric"], last.get("comparable"))
        ]
        choose = min if last.get("lower_is_better", True) else max
        best = choose(same, key=lambda record: record["value"])
        for name, value in last.get("values", {"value": last["value"]}).items():
            best_value = best.get("values", {}).get(name, best["value"])
            rows.append(
                [
                    last["metric"],
                    name,
                    f"{value:.4g}",
                    f"{last['nimg'] / 1000:g}",
                    f"{best_value:.4g}",
                    f"{best['nimg'] / 1000:g}",
                    f"{last['fake']['num']:,}" if "fake" in last else "",
                ]
            )
    return Table(
        header=["metric", "value of", "last", "at kimg", "best", "at kimg", "images"],
        rows=rows,
        caption="Of snapshots of this run. kimg: thousands of real images shown.",
    )


def _blocks(analysis: Analysis) -> list[Block]:
    return [Text(text=analysis.summary), *map(_bounded, analysis.blocks.values())]


def _bounded(block: Block) -> Block:
    """Reduce a figure that is wider than a page shows, so that the page stays small."""
    if not isinstance(block, Figure):
        return block
    sheet = images.read(io.BytesIO(block.data))
    factor = math.ceil(sheet.shape[-1] / SHOWN_WIDTH)
    if factor == 1:
        return block
    return replace(block, data=images.png_bytes(_averaged(sheet, factor)))


def small_picture(picture: Tensor) -> Tensor:
    """Reduce uint8 [C, H, W] to about 128 pixels."""
    return _averaged(picture, max(1, max(picture.shape[1:]) // SHOWN_SIDE))


def _averaged(picture: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return picture
    if picture.shape[0] == 4 and not any(side % factor for side in picture.shape[1:]):
        return reduce(picture, factor, has_alpha=True)
    if picture.shape[0] == 4:
        picture = images.over_checkerboard(picture)
    mean = F.avg_pool2d(picture[None].float(), factor, ceil_mode=True)
    return mean[0].round().to(torch.uint8)


def _figure(sheet: Tensor, caption: str, *, columns: int) -> Figure:
    return Figure(
        data=images.png_bytes(sheet),
        caption=caption,
        scale=figures.scale_of(sheet, columns=columns),
    )
