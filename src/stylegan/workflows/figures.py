"""The papers' analyses of networks as numbers, pictures and curves."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.analysis.droplets import (
    AGREEMENT,
    COMPACT,
    FEWEST_CHANNELS,
    THRESHOLD,
    Droplets,
    find_droplets,
    magnitude_maps,
)
from stylegan.analysis.phase import Sticking, mean_sticking, row_over_time, stick_score
from stylegan.analysis.spectra import Spectrum, mean_spectrum
from stylegan.analysis.usage import check_usage, resolution_usage
from stylegan.analysis.variation import (
    DISPLAY_GAIN,
    GROUPS,
    fine_from,
    layers_of,
    variation,
    with_noise_of,
)
from stylegan.captions import Captions, default_scale
from stylegan.data.dataset import ImageDataset
from stylegan.image_size import ImageSize
from stylegan.images import from_uint8, grid, over_checkerboard
from stylegan.latent.render import map_latents
from stylegan.latents import lerp
from stylegan.models.base import AbstractGenerator
from stylegan.progress import Progress
from stylegan.rng import generator_for
from stylegan.workflows.page import Block, Chart, Figure, Section, Table, Text, frame

PATH_FRAMES = 33  # frames of a path between two latents
SCORED_SIDE = 256  # pixels; larger frames are reduced
HEAT_TOP = 2 * THRESHOLD  # magnitude at full brightness
MIN_SHOWN_SIDE = 256  # pixels; smaller pictures are enlarged on a page
MARK = 3  # pixels from a peak to the box around it


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A network, and how its images are sampled.

    Attributes:
        name: the network's name in results.
        generator: in eval mode, on its device.
        label: [c_dim]; None for an unconditional generator.
        psi: truncation.
        seed: seed of the latents.
        progress: called after each batch of latents.
    """

    name: str
    generator: AbstractGenerator
    label: Tensor | None = None
    psi: float = 1.0
    seed: int = 0
    progress: Progress | None = None

    @property
    def setting(self) -> str:
        """The seed and psi, for captions."""
        return f"seed {self.seed}, psi {self.psi:g}"

    @property
    def size(self) -> ImageSize:
        """Height and width of the images."""
        return self.generator.current_size

    @property
    def batch(self) -> int:
        """Batch size: features take about the same memory at any resolution."""
        return max(1, min(32, 1024 // max(self.size.height, self.size.width)))

    def styles(self, num: int, *, first: int = 0, purpose: str = "analysis") -> Tensor:
        """Sample ws [num, num_ws, w_dim]; each depends only on the seed and its index."""
        rows = [
            torch.randn(
                self.generator.z_dim, generator=generator_for(purpose, seed=self.seed, nimg=index)
            )
            for index in range(first, first + num)
        ]
        return map_latents(self.generator, torch.stack(rows), c=self.label, psi=self.psi)

    def batches(self, num: int) -> Iterator[Tensor]:
        """Yield ws of `num` images in batches."""
        for start in range(0, num, self.batch):
            stop = min(start + self.batch, num)
            yield self.styles(stop - start, first=start)
            self.report("images", stop, num)

    def report(self, what: str, completed: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(f"{what} of {self.name}", completed, total)

    def images(self, num: int) -> Iterator[Tensor]:
        """Yield `num` images in batches: float [N, C, R, R], with random noise."""
        for index, ws in enumerate(self.batches(num)):
            stream = generator_for("analysis noise", seed=self.seed, nimg=index)
            with torch.no_grad():
                yield self.generator.synthesis(ws, noise_mode="random", generator=stream)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The result of an analysis. A notebook shows its figures.

    Attributes:
        name: name of its files.
        title: title of its section in a report.
        numbers: the results as JSON-like values.
        blocks: figures, charts and tables, by the names of their files.
        summary: the results in one line.
        record: what is written as JSON: the numbers with everything that they depend on.
        folder: the folder of its files; None if none were written.
    """

    name: str
    title: str
    numbers: Mapping[str, Any]
    blocks: Mapping[str, Block]
    summary: str
    record: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __str__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        blocks = [Text(text=self.summary), *self.blocks.values()]
        return frame(self.title, sections=[Section(title=self.title, blocks=blocks)])


def analyze_droplets(
    samplers: Sequence[Sampler], *, num: int, num_shown: int = 8, captions: bool = True
) -> Analysis:
    """Find droplets in each network, and show images with the strongest ones."""
    found = {each.name: find_droplets(each.generator, each.batches(num)) for each in samplers}
    blocks: dict[str, Block] = {}
    for index, (sampler, droplets) in enumerate(zip(samplers, found.values(), strict=True)):
        suffix = f"-{index + 1}" if len(samplers) > 1 else ""
        blocks[f"droplets{suffix}"] = _droplet_sheet(
            sampler, droplets, num, num_shown, captions=captions
        )
        blocks[f"droplets-layers{suffix}"] = _droplet_table(sampler, droplets)
    summary = "; ".join(
        f"{name}: droplets in {each.share:.1%} of {each.num_images} images"
        for name, each in found.items()
    )
    rule = {
        "score_above": THRESHOLD,
        "agreement_above": AGREEMENT,
        "area_at_most": COMPACT,
        "fewest_channels": FEWEST_CHANNELS,
    }
    return Analysis(
        name="droplets",
        title="Droplets",
        numbers={"rule": rule, **{name: asdict(each) for name, each in found.items()}},
        blocks=blocks,
        summary=summary,
    )


def analyze_phase(
    samplers: Sequence[Sampler],
    *,
    num: int,
    num_frames: int = PATH_FRAMES,
    captions: bool = True,
) -> Analysis:
    """Score whether details stick to pixels along paths between random latents."""
    found: dict[str, Sticking] = {}
    blocks: dict[str, Block] = {}
    for index, sampler in enumerate(samplers):
        scores: list[float | None] = []
        kept: tuple[float, Tensor] | None = None
        for path in range(num):
            frames = _path_frames(sampler, path, num_frames)
            score = stick_score(from_uint8(frames))
            scores.append(score)
            sampler.report("paths", path + 1, num)
            if score is not None and (kept is None or score > kept[0]):
                kept = score, frames
        found[sampler.name] = mean_sticking(scores)
        if kept is None:
            kept = math.nan, frames
        suffix = f"-{index + 1}" if len(samplers) > 1 else ""
        blocks[f"phase{suffix}"] = _phase_sheet(sampler, kept[1], kept[0], captions=captions)
    numbers = {name: asdict(each) for name, each in found.items()}
    rows = [
        [
            name,
            "too little motion" if each.score is None else f"{each.score:.3f}",
            "" if each.error is None else f"{each.error:.3f}",
            f"{sum(score is not None for score in each.paths)} of {len(each.paths)}",
        ]
        for name, each in found.items()
    ]
    blocks["phase-scores"] = Table(
        header=["network", "sticking", "standard error", "paths with motion"],
        rows=rows,
        caption="1: details stick to pixels; 0: they move with the content. Without noise.",
    )
    return Analysis(
        name="phase",
        title="Details that stick to pixels",
        numbers=numbers,
        blocks=blocks,
        summary="; ".join(
            f"{row[0]}: sticking {row[1]} ± {row[2] or '?'} ({row[3]} paths)" for row in rows
        ),
    )


def analyze_usage(
    sampler: Sampler, *, num: int, history: Sequence[tuple[float, Sampler]] = ()
) -> Analysis:
    """Measure what each resolution adds to the image, also over training.

    Args:
        sampler: the network.
        num: number of images.
        history: (kimg, network) of the snapshots of a run, oldest first.
    """
    check_usage(sampler.generator, sampler.name)
    now = resolution_usage(sampler.generator, sampler.batches(num))
    sizes = {side: sampler.generator.img_size.at(side) for side in now.shares}
    rows = [
        [str(sizes[side]), f"{now.deviations[side]:.4f}", f"{100 * share:.1f}"]
        for side, share in now.shares.items()
    ]
    numbers: dict[str, Any] = {
        "num_images": now.num_images,
        "deviations": now.deviations,
        "shares": now.shares,
    }
    blocks: dict[str, Block] = {
        "usage-table": Table(
            header=["resolution", "std", "fraction, %"],
            rows=rows,
            caption=f"Standard deviation of the pixels that a resolution adds, over {num} images.",
        )
    }
    if history:
        over = [
            (kimg, resolution_usage(each.generator, each.batches(num)).shares)
            for kimg, each in history
        ]
        numbers["history"] = [{"kimg": kimg, "shares": shares} for kimg, shares in over]
        series = {
            str(sizes[side]): [(kimg, 100 * shares[side]) for kimg, shares in over]
            for side in now.shares
        }
        blocks["usage-history"] = Chart(
            title="Contribution of each resolution over training",
            series=series,
            x_label="thousands of real images shown",
            y_label="fraction, %",
        )
    top = max(now.shares, key=now.shares.__getitem__)
    return Analysis(
        name="usage",
        title="Resolution usage",
        numbers=numbers,
        blocks=blocks,
        summary=", ".join(f"{sizes[side].stored}: {part:.1%}" for side, part in now.shares.items())
        + f"; most from {sizes[top]}",
    )


def analyze_spectra(
    sampler: Sampler, *, num: int, reals: ImageDataset | None = None, captions: bool = True
) -> Analysis:
    """Compare the mean power spectra of generated and of real images."""
    pixels = sampler.generator.pixels
    found = {"generated": mean_spectrum(pixels.flat(each) for each in sampler.images(num))}
    if reals is not None:
        found["real"] = mean_spectrum(_real_batches(reals, num, sampler.batch))
    series = {
        name: [
            (float(frequency), 10 * math.log10(max(power, 1e-12)))
            for frequency, power in enumerate(each.radial)
            if frequency > 0
        ]
        for name, each in found.items()
    }
    blocks: dict[str, Block] = {
        "spectra-radial": Chart(
            title="Mean power spectrum",
            series=series,
            x_label="cycles per image"
            if sampler.size.is_square
            else "cycles per shorter side of the image",
            y_label="power, dB",
            caption="Over all directions; Hann window; white noise of variance 1 lies at 0 dB.",
        ),
        "spectra": _spectrum_sheet(found, captions=captions),
    }
    numbers: dict[str, Any] = {
        name: {"num_images": each.num_images, "radial": each.radial} for name, each in found.items()
    }
    summary = f"{found['generated'].num_images} generated images"
    if reals is not None:
        upper = slice(len(found["real"].radial) // 2, None)
        pairs = zip(found["generated"].radial[upper], found["real"].radial[upper], strict=True)
        gap = [10 * math.log10(max(a, 1e-12) / max(b, 1e-12)) for a, b in pairs]
        numbers["upper_half_difference_db"] = sum(gap) / len(gap)
        summary += (
            f" against {found['real'].num_images} real ones: "
            f"{numbers['upper_half_difference_db']:+.2f} dB in the upper half of the frequencies"
        )
    return Analysis(
        name="spectra", title="Power spectra", numbers=numbers, blocks=blocks, summary=summary
    )


def analyze_noise(
    sampler: Sampler, *, num: int, num_realizations: int = 100, captions: bool = True
) -> Analysis:
    """Show the effect of noise in all, no, fine and coarse layers."""
    generator = sampler.generator
    layers_of(generator, "all")
    cells: list[Tensor] = []
    deviations: dict[str, list[float]] = {group: [] for group in GROUPS}
    for index in range(num):
        ws = sampler.styles(1, first=index)
        rendered = (with_noise_of(generator, ws, group).cpu()[0] for group in GROUPS)
        cells += [picture_of(generator, image) for image in rendered]
        deviations["none"].append(0.0)
        for group in GROUPS:
            if group == "none":
                continue
            found = variation(
                generator,
                ws,
                num=num_realizations,
                group=group,
                seed=sampler.seed,
                batch=sampler.batch,
            )
            deviations[group].append(found.deviation.mean().item())
            if group == "all":
                shown = (DISPLAY_GAIN * 255 * found.deviation).clamp(0, 255).to(torch.uint8)
                heat = shown[None].expand(cells[-1].shape[0], -1, -1)
        cells.append(heat)
        sampler.report("images", index + 1, num)
    means = {group: sum(each) / len(each) for group, each in deviations.items()}
    border = fine_from(generator.img_size)
    rows = [
        [group, str(len(layers_of(generator, group))), f"{255 * means[group]:.2f}"]
        for group in GROUPS
    ]
    texts = Captions(
        columns=[*GROUPS, "std"],
        rows=[f"image {index}, {sampler.setting}" for index in range(num)],
    )
    return Analysis(
        name="noise",
        title="Noise",
        numbers={
            "realizations": num_realizations,
            "fine_from": border.stored,
            "mean_deviation": means,
            "layers": {group: layers_of(generator, group) for group in GROUPS},
        },
        blocks={
            "noise": _figure(
                cells,
                columns=len(GROUPS) + 1,
                captions=texts if captions else None,
                caption="From left to right: noise in all layers, in none, in the fine ones "
                f"(from {border}), in the coarse ones; and the standard deviation over "
                f"{num_realizations} realizations, times {DISPLAY_GAIN}.",
            ),
            "noise-table": Table(
                header=["noise in", "layers", "mean std of a pixel, of 255"],
                rows=rows,
                caption=f"Over {num_realizations} realizations of {num} images.",
            ),
        },
        summary=", ".join(f"{group} {255 * means[group]:.2f}" for group in GROUPS)
        + " of 255 is the mean std of a pixel",
    )


def _droplet_sheet(
    sampler: Sampler, droplets: Droplets, num: int, num_shown: int, *, captions: bool
) -> Figure:
    """Show images above their features in the layer with the strongest peaks, which are marked."""
    layer = max(droplets.layers, key=lambda each: (each.share, each.median_score)).layer
    ranked = [index for index, place in enumerate(droplets.places) if place is not None]
    ranked += [index for index in range(num) if index not in ranked]
    shown = ranked[:num_shown]
    top: list[Tensor] = []
    bottom: list[Tensor] = []
    for index in shown:
        pictures, spikes = magnitude_maps(sampler.generator, sampler.styles(1, first=index), layer)
        picture = picture_of(sampler.generator, pictures.cpu()[0]).expand(3, -1, -1)
        heat = _heat(spikes.magnitude[0] / spikes.magnitude[0].median() / HEAT_TOP)
        heat = F.interpolate(heat[None].float(), size=picture.shape[-2:])[0].to(torch.uint8)
        if spikes.found[0]:
            share = (spikes.place[0].double() + 0.5) / torch.tensor(spikes.magnitude.shape[1:])
            heat = _marked(heat, share * torch.tensor(heat.shape[1:]))
        top.append(picture)
        bottom.append(heat)
    texts = Captions(columns=[f"image {index}" for index in shown], rows=[sampler.setting, layer])
    return _figure(
        [*top, *bottom],
        columns=len(shown),
        captions=texts if captions else None,
        caption=f"{sampler.name}: images, and below each the magnitude of its features in "
        f"{layer}, white at {HEAT_TOP:g} times the median; droplets are boxed.",
    )


def _droplet_table(sampler: Sampler, droplets: Droplets) -> Table:
    return Table(
        header=["layer", "channels", "median score", "highest", "images with a droplet, %"],
        rows=[
            [
                each.layer,
                str(each.num_channels),
                f"{each.median_score:.1f}",
                f"{each.highest_score:.1f}",
                f"{100 * each.share:.1f}"
                if each.num_channels >= FEWEST_CHANNELS
                else "too few channels",
            ]
            for each in droplets.layers
        ],
        caption=f"{sampler.name}: peak of the features over their median; a droplet is a peak "
        f"above {THRESHOLD:g} that is compact and occurs in most channels.",
    )


def _path_frames(sampler: Sampler, path: int, num_frames: int) -> Tensor:
    """Render a path between two latents without noise: uint8 [T, C, H, W].

    Images whose shorter side is above 256 pixels are reduced. C is 1 for grey, else 3, as of
    `PixelFormat.seen`.
    """
    ends = sampler.styles(2, first=2 * path, purpose="path")
    frames = []
    for index in range(num_frames):
        ws = lerp(ends[:1], ends[1:], index / (num_frames - 1))
        with torch.no_grad():
            image = sampler.generator.synthesis(ws, noise_mode="none")
        # a power of two, which divides both sides
        factor = 1 << max(min(image.shape[2:]) // SCORED_SIDE, 1).bit_length() - 1
        if factor > 1:
            image = F.avg_pool2d(image, factor)
        frames.append(sampler.generator.pixels.seen(image).cpu())
    return torch.cat(frames)


def _phase_sheet(sampler: Sampler, frames: Tensor, score: float, *, captions: bool) -> Figure:
    """Show frames of a path above one row of pixels over time."""
    picture, row = row_over_time(frames)
    height, width = frames.shape[2:]
    places = torch.linspace(0, len(frames) - 1, 6).round().long()
    # the row over time is six pictures wide and two high
    wide = F.interpolate(picture[None].float(), size=(2 * height, 6 * width))[0].to(torch.uint8)
    tiles = wide.reshape(-1, 2, height, 6, width).permute(1, 3, 0, 2, 4)
    texts = Captions(
        columns=[f"frame {place}" for place in places.tolist()],
        rows=[sampler.setting, f"row {row} of all frames"],
    )
    score_text = "no path with enough motion" if math.isnan(score) else f"sticking {score:.2f}"
    return _figure(
        [*frames[places], *tiles.flatten(0, 1)],
        columns=6,
        padding=0,
        captions=texts if captions else None,
        caption=f"{sampler.name}: a path through w ({score_text}), and below row {row} of all its "
        f"{len(frames)} frames from top to bottom. Sticking details form vertical lines.",
    )


def _spectrum_sheet(found: Mapping[str, Spectrum], *, captions: bool) -> Figure:
    maps = [(10 * each.power.clamp_min(1e-12).log10()) for each in found.values()]
    # the mean is removed, so frequency zero is ignored
    low = min(each.flatten().sort().values[1].item() for each in maps)
    high = max(each.max().item() for each in maps)
    cells = [
        ((each - low) / max(high - low, 1e-9) * 255).clamp(0, 255).to(torch.uint8)[None]
        for each in maps
    ]
    return _figure(
        cells,
        columns=len(found),
        captions=Captions(columns=list(found)) if captions else None,
        caption=f"Mean power of {' and '.join(found)} images, frequency zero in the middle; "
        f"black is {low:.0f} dB, white {high:.0f} dB.",
    )


def _real_batches(reals: ImageDataset, num: int, batch: int) -> Iterator[Tensor]:
    """Yield real images at even distances over the set."""
    num = min(num, len(reals))
    indices = [index * len(reals) // num for index in range(num)]
    for start in range(0, num, batch):
        yield reals.pixels.flat(reals.pixels.to_float(reals.gather(indices[start : start + batch])))


def picture_of(generator: AbstractGenerator, image: Tensor) -> Tensor:
    """Return an image of a network, float [C, R, R], as a picture: uint8 [1 or 3, R, R].

    Transparency is shown on a checkerboard.
    """
    picture = generator.pixels.shown(image)
    return over_checkerboard(picture) if picture.shape[0] == 4 else picture


def _heat(values: Tensor) -> Tensor:
    """Color [H, W] from black over red and yellow to white at 1: uint8 [3, H, W]."""
    bands = torch.stack([3 * values, 3 * values - 1, 3 * values - 2])
    return (bands.clamp(0, 1) * 255).to(torch.uint8)


def _marked(picture: Tensor, place: Tensor) -> Tensor:
    """Draw a box around a position (row, column) in uint8 [3, H, W]."""
    marked = picture.clone()
    height, width = picture.shape[1:]
    reach = max(MARK, min(height, width) // 24)
    y, x = map(int, place.tolist())
    top, left = max(0, y - reach), max(0, x - reach)
    bottom, right = min(height - 1, y + reach), min(width - 1, x + reach)
    color = torch.tensor([64, 200, 255], dtype=torch.uint8)[:, None]
    for rows, cols in (
        (slice(top, top + 1), slice(left, right + 1)),
        (slice(bottom, bottom + 1), slice(left, right + 1)),
        (slice(top, bottom + 1), slice(left, left + 1)),
        (slice(top, bottom + 1), slice(right, right + 1)),
    ):
        marked[:, rows, cols] = color[..., None]
    return marked


def _figure(
    cells: Sequence[Tensor],
    *,
    columns: int,
    captions: Captions | None,
    caption: str,
    padding: int = 2,
) -> Figure:
    """Return a grid of images as a figure, in which small images are enlarged.

    With captions the pixels of the file are enlarged, else only its display on the page.
    """
    side = cells[0].shape[-1]
    scale = _scale(side, columns)
    if captions is not None:
        scale = max(scale, default_scale(side))
    sheet = grid(
        torch.stack([*cells]),
        columns=columns,
        padding=padding,
        captions=captions,
        scale=1 if captions is None else scale,
    )
    return Figure.of(sheet, caption=caption, scale=scale if captions is None else 1)


def scale_of(sheet: Tensor, *, columns: int) -> int:
    """Return the scale at which the pictures of a grid are visible on a page."""
    return _scale(sheet.shape[-1] / columns, columns)


def _scale(side: float, columns: int) -> int:
    return max(1, round(min(MIN_SHOWN_SIDE / side, 900 / (columns * side), 4)))
