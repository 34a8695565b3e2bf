"""`stylegan analyze`: the analyses of the papers, each as numbers and pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

import stylegan
from stylegan.cli import figures
from stylegan.cli.drawing import (
    Class,
    Network,
    PerceptualOption,
    Psi,
    WeightsDir,
)
from stylegan.cli.figures import Analysis, Drawing
from stylegan.cli.measuring import (
    dependencies_for,
    describe,
    protocols_of,
    reading,
    target_of,
)
from stylegan.cli.options import Device, DeviceName, Seed, console
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError
from stylegan.files import write_atomic
from stylegan.interop.load import complete_snapshots, is_run, origin_of, weights_path
from stylegan.metrics.protocols import PathLengthProtocol
from stylegan.metrics.ranking import save_ranking
from stylegan.metrics.suite import evaluate
from stylegan.plotting import import_matplotlib, write_plot
from stylegan.progress import ProgressBar
from stylegan.workflows.networks import (
    check_psi,
    check_truncation,
    label_of,
    load_generator,
)
from stylegan.workflows.page import Chart, Figure

_DROPLETS = """Look for the blob artifact in the features of each layer (StyleGAN2, section 2).

Several networks are set side by side, such as one with AdaIN and one that demodulates.

Example: stylegan analyze droplets --network runs/faces --out analysis"""

_PHASE = """Score whether details stick to pixels while the content moves (StyleGAN2, section 4.1).

Several networks are set side by side, such as one that grew and one that did not.

Example: stylegan analyze phase --network runs/grown --network runs/flat --out analysis"""

_USAGE = """Measure what each resolution adds to the image (StyleGAN2, figure 8).

Of a run folder, its snapshots show how that changed over training.

Example: stylegan analyze usage --network runs/faces --out analysis"""

_SPECTRA = """Compare the mean power spectra of generated and of real images.

Example: stylegan analyze spectra --network runs/faces --data faces.zip --out analysis"""

_NOISE = """Show what noise does, in all, no, fine and coarse layers (StyleGAN, figures 4 and 5).

Example: stylegan analyze noise --network runs/faces --out analysis"""

_PATH_LENGTH = """Sort images by their perceptual path length (StyleGAN2, section 3).

Example: stylegan analyze path-length --network runs/faces --num 1000 --out analysis"""

Networks = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        name="network",
        metavar="NET",
        help="A run folder, a native folder or a weight file; may be given several times.",
    ),
]
Out = Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder to write to.")]
Num = Annotated[int, tyro.conf.arg(metavar="N", help="Images.")]


@dataclass(frozen=True, kw_only=True)
class Droplets:
    """Options of `stylegan analyze droplets`."""

    networks: Networks
    out: Out
    num: Num = 64
    psi: Psi = 1.0
    class_index: Class = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Look for droplets."""
        _check_num(self.num)
        drawings = _drawings(self.networks, self.device, self.psi, self.class_index, self.seed)
        return _write(figures.analyze_droplets(drawings, num=self.num), self, drawings)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Options of `stylegan analyze phase`."""

    networks: Networks
    out: Out
    num: Annotated[int, tyro.conf.arg(metavar="N", help="Paths between two latents.")] = 8
    frames: Annotated[int, tyro.conf.arg(metavar="N", help="Frames of a path.")] = (
        figures.PATH_FRAMES
    )
    psi: Psi = 1.0
    class_index: Class = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Score paths."""
        _check_num(self.num)
        if self.frames < 2:
            raise ConfigError(f"--frames {self.frames}", expected="at least 2", fix="leave it out")
        drawings = _drawings(self.networks, self.device, self.psi, self.class_index, self.seed)
        found = figures.analyze_phase(drawings, num=self.num, num_frames=self.frames)
        return _write(found, self, drawings)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Options of `stylegan analyze usage`."""

    network: Network
    out: Out
    num: Num = 1024
    history: Annotated[
        bool, tyro.conf.arg(help="Of a run, measure every snapshot, with an eighth of the images.")
    ] = True
    psi: Psi = 1.0
    class_index: Class = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Measure the network, and the snapshots of a run."""
        _check_num(self.num)
        (drawing,) = _drawings((self.network,), self.device, self.psi, self.class_index, self.seed)
        history = []
        if self.history and is_run(Path(self.network)):
            for snapshot in complete_snapshots(Path(self.network)):
                (then,) = _drawings(
                    (str(snapshot),), self.device, self.psi, self.class_index, self.seed
                )
                history.append((int(snapshot.name) / 1000, then))
        found = figures.analyze_usage(drawing, num=self.num, history=history)
        return _write(found, self, [drawing])


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """Options of `stylegan analyze spectra`."""

    network: Network
    out: Out
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DATA", help="Real images to compare with: a folder or zip."),
    ] = None
    num: Num = 512
    psi: Psi = 1.0
    class_index: Class = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Average the spectra."""
        _check_num(self.num)
        (drawing,) = _drawings((self.network,), self.device, self.psi, self.class_index, self.seed)
        reals = None
        if self.data is not None:
            with reading() as tell:
                reals = ImageDataset(self.data, resolution=drawing.side, progress=tell)
        return _write(figures.analyze_spectra(drawing, num=self.num, reals=reals), self, [drawing])


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Options of `stylegan analyze noise`."""

    network: Network
    out: Out
    num: Num = 4
    realizations: Annotated[
        int, tyro.conf.arg(metavar="N", help="Of noise for each image, 100 in the paper.")
    ] = 100
    psi: Psi = 1.0
    class_index: Class = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Vary the noise."""
        _check_num(self.num)
        if self.realizations < 2:
            raise ConfigError(
                f"--realizations {self.realizations}", expected="at least 2", fix="leave it out"
            )
        (drawing,) = _drawings((self.network,), self.device, self.psi, self.class_index, self.seed)
        found = figures.analyze_noise(drawing, num=self.num, num_realizations=self.realizations)
        return _write(found, self, [drawing])


@dataclass(frozen=True, kw_only=True)
class PathLength:
    """Options of `stylegan analyze path-length`."""

    network: Network
    out: Out
    num: Num = 1000
    perceptual: PerceptualOption = "lpips"
    weights_dir: WeightsDir = None
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DATA", help="What labels are drawn from, of a network with labels."),
    ] = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Measure, and draw the sheets."""
        _check_num(self.num)
        if self.perceptual == "discriminator":
            raise ConfigError(
                "--perceptual discriminator of path lengths",
                expected="lpips or efficientnet, whose values can be compared",
                fix="choose one of them",
            )
        path = weights_path(self.network)
        generator = load_generator(path, self.device)
        dataset = None if self.data is None else ImageDataset(self.data)
        suffix = ":efficientnet-lite0" if self.perceptual == "efficientnet" else ""
        protocols = protocols_of(f"ppl2_{self.num}_wend{suffix}")
        device = next(generator.parameters()).device
        dependencies = dependencies_for(
            protocols, classifiers=None, weights_dir=self.weights_dir, device=device
        )
        target = target_of(generator, path, dataset, seed=self.seed)
        with ProgressBar(transient=True) as progress:
            (result,) = evaluate(protocols, target, None, dependencies, progress=progress)
        (protocol,) = protocols
        assert isinstance(protocol, PathLengthProtocol)
        files = save_ranking(self.out, result, protocol, target)
        text = json.dumps(result.record, indent=2, allow_nan=False) + "\n"
        write_atomic(self.out / "path-length.json", text)
        console().print(describe(result.record), markup=False)
        console().print(f"in {self.out}: {', '.join(file.name for file in files)}", markup=False)
        return 0


def _check_num(num: int) -> None:
    if num < 1:
        raise ConfigError(f"--num {num}", expected="at least 1", fix="leave it out")


def _drawings(
    networks: Sequence[str],
    device: DeviceName,
    psi: float,
    class_index: int | None,
    seed: int,
) -> list[Drawing]:
    """Load networks, each under a name of its own."""
    check_psi(psi)
    if not networks:
        raise ConfigError("no --network", expected="at least one", fix="name a network")
    found = []
    for index, network in enumerate(networks):
        generator = load_generator(weights_path(network), device)
        check_truncation(psi, None, generator)
        name = network if networks.count(network) == 1 else f"{network} ({index + 1})"
        label = label_of(class_index, generator)
        found.append(Drawing(name=name, generator=generator, label=label, psi=psi, seed=seed))
    return found


def _write(found: Analysis, command: Any, drawings: Sequence[Drawing]) -> int:
    """Write numbers, pictures and curves, and print the summary."""
    folder: Path = command.out
    if folder.is_file():
        raise ConfigError(
            f"--out {folder} is a file", expected="a folder", fix="choose another name"
        )
    names = command.networks if hasattr(command, "networks") else (command.network,)
    record = {
        "analysis": found.name,
        "networks": {
            drawing.name: origin_of(weights_path(network))
            for drawing, network in zip(drawings, names, strict=True)
        },
        "num": command.num,
        "psi": command.psi,
        "class": command.class_index,
        "seed": command.seed,
        "versions": {"stylegan": stylegan.__version__, "torch": torch.__version__},
        "result": found.numbers,
    }
    write_atomic(folder / f"{found.name}.json", json.dumps(record, indent=2) + "\n")
    for name, block in found.blocks.items():
        if isinstance(block, Figure):
            write_atomic(folder / f"{name}.png", block.data)
        elif isinstance(block, Chart):
            _write_chart(block, folder / f"{name}.png", stacked=name == "usage-history")
    console().print(found.summary, markup=False)
    console().print(f"in {folder}", markup=False)
    return 0


def _write_chart(chart: Chart, path: Path, *, stacked: bool) -> None:
    """Draw curves into a PNG file; where matplotlib is missing, say so and go on."""
    try:
        import_matplotlib(str(path))
    except ConfigError as error:
        console().print(f"{path.name} is not drawn: {error.fix}", markup=False)
        return

    def draw(axes: Any) -> None:
        if stacked:
            x = [place for place, _ in next(iter(chart.series.values()))]
            rows = [[value for _, value in curve] for curve in chart.series.values()]
            axes.stackplot(x, rows, labels=list(chart.series))
            axes.set_ylim(0, 100)
            axes.set_xlim(min(x), max(max(x), min(x) + 1e-9))
        else:
            for name, curve in chart.series.items():
                axes.plot(*zip(*curve, strict=True), label=name)
        axes.set_title(chart.title, fontsize="medium")
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1], labels[::-1], frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
        )

    write_plot(draw, path, what=path.name)


_Command = (
    Annotated[Droplets, tyro.conf.subcommand("droplets", description=_DROPLETS, prefix_name=False)]
    | Annotated[Phase, tyro.conf.subcommand("phase", description=_PHASE, prefix_name=False)]
    | Annotated[Usage, tyro.conf.subcommand("usage", description=_USAGE, prefix_name=False)]
    | Annotated[Spectra, tyro.conf.subcommand("spectra", description=_SPECTRA, prefix_name=False)]
    | Annotated[Noise, tyro.conf.subcommand("noise", description=_NOISE, prefix_name=False)]
    | Annotated[
        PathLength,
        tyro.conf.subcommand("path-length", description=_PATH_LENGTH, prefix_name=False),
    ]
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan analyze` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command: Droplets | Phase | Usage | Spectra | Noise | PathLength = tyro.cli(
        _Command,
        prog="stylegan analyze",
        description="See in a network what the papers saw in theirs.",
        args=arguments,
    )
    return command.run()
