"""The papers' analyses of networks."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import stylegan
from stylegan.data.dataset import ImageDataset
from stylegan.data.readers import reading_for
from stylegan.devices import DeviceName
from stylegan.errors import ConfigError
from stylegan.files import write_atomic
from stylegan.interop.load import complete_snapshots, is_run, origin_of, weights_path
from stylegan.latent.render import device_of
from stylegan.metrics import suite
from stylegan.metrics.protocols import PathLengthProtocol
from stylegan.metrics.ranking import ranking_grids, save_ranking
from stylegan.metrics.records import describe
from stylegan.metrics.suite import load_dependencies
from stylegan.metrics.targets import network_target
from stylegan.models.base import AbstractGenerator
from stylegan.plotting import write_plot
from stylegan.progress import Progress, counter
from stylegan.workflows.figures import (
    PATH_FRAMES,
    Analysis,
    Sampler,
    analyze_droplets,
    analyze_noise,
    analyze_phase,
    analyze_spectra,
    analyze_usage,
)
from stylegan.workflows.networks import (
    Network,
    Perceptual,
    check_folder,
    check_psi,
    check_truncation,
    choose_perceptual,
    class_number,
    fingerprint_of,
    label_of,
    load_generator,
)
from stylegan.workflows.page import Block, Chart, Figure, Table

logger = logging.getLogger(__name__)

Device = DeviceName | torch.device


def droplets(
    network: Sequence[Network] | Network,
    out: Path | None = None,
    *,
    num: int = 64,
    psi: float = 1.0,
    class_index: str | int | None = None,
    captions: bool = True,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Look for the blob artifact in the features of each layer (StyleGAN2, section 2).

    Several networks are compared side by side, such as one with AdaIN and one with demodulation.

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator; several are
            possible.
        out: the folder to write to.
        num: number of images.
        psi: truncation: 1 for full variation, 0 for the mean image.
        class_index: the class of a conditional generator: its name, or its number from 0.
        captions: name the image of each column, and the seed, psi and layer of the rows.
        device: where to compute; a loaded generator stays on its device.
        seed: seed of the latents.
        progress: called after each batch.

    Returns:
        The fraction of images with a droplet, and the scores of each layer.
    """
    samplers = _samplers(network, num, out, psi, class_index, device, seed, progress)
    analysis = analyze_droplets(samplers, num=num, captions=captions)
    return _finish(analysis, samplers, network, out, num=num, class_index=class_index)


def phase(
    network: Sequence[Network] | Network,
    out: Path | None = None,
    *,
    num: int = 8,
    frames: int = PATH_FRAMES,
    psi: float = 1.0,
    class_index: str | int | None = None,
    captions: bool = True,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Score whether details stick to pixels while the content moves (StyleGAN2, section 4.1).

    Several networks are compared side by side, such as one that grew and one that did not.

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator; several are
            possible.
        out: the folder to write to.
        num: number of paths between two latents.
        frames: frames of each path.
        psi: truncation: 1 for full variation, 0 for the mean image.
        class_index: the class of a conditional generator: its name, or its number from 0.
        captions: number the frames, and name the seed, psi and the row of pixels.
        device: where to compute; a loaded generator stays on its device.
        seed: seed of the latents.
        progress: called after each path.

    Returns:
        The score of each network: 1 if details stay at their pixels, 0 if they move along.
    """
    if frames < 2:
        raise ConfigError(f"--frames must be 2 or more, got {frames}")
    samplers = _samplers(network, num, out, psi, class_index, device, seed, progress)
    analysis = analyze_phase(samplers, num=num, num_frames=frames, captions=captions)
    return _finish(analysis, samplers, network, out, num=num, class_index=class_index)


def usage(
    network: Network,
    out: Path | None = None,
    *,
    num: int = 1024,
    history: bool = True,
    psi: float = 1.0,
    class_index: str | int | None = None,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Measure what each resolution adds to the image (StyleGAN2, figure 8).

    For a run folder, all snapshots are measured, which shows how that changed over training.

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator.
        out: the folder to write to.
        num: number of images.
        history: also measure every snapshot of a run.
        psi: truncation: 1 for full variation, 0 for the mean image.
        class_index: the class of a conditional generator: its name, or its number from 0.
        device: where to compute; a loaded generator stays on its device.
        seed: seed of the latents.
        progress: called after each batch.

    Returns:
        The standard deviation of the pixels that each resolution adds.
    """
    samplers = _samplers(network, num, out, psi, class_index, device, seed, progress)
    snapshots = []
    if history and not isinstance(network, AbstractGenerator) and is_run(Path(network)):
        for snapshot in complete_snapshots(Path(network)):
            options = (psi, class_index, device, seed, progress)
            snapshots += [
                (int(snapshot.name) / 1000, sampler)
                for sampler in _samplers(snapshot, num, out, *options)
            ]
    analysis = analyze_usage(samplers[0], num=num, history=snapshots)
    return _finish(analysis, samplers, network, out, num=num, class_index=class_index)


def spectra(
    network: Network,
    out: Path | None = None,
    *,
    data: str | Path | None = None,
    num: int = 512,
    psi: float = 1.0,
    class_index: str | int | None = None,
    captions: bool = True,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Compare the mean power spectra of generated and of real images.

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator.
        out: the folder to write to.
        data: real images to compare with: a folder or zip.
        num: number of images.
        psi: truncation: 1 for full variation, 0 for the mean image.
        class_index: the class of a conditional generator: its name, or its number from 0.
        captions: name the images of each spectrum.
        device: where to compute; a loaded generator stays on its device.
        seed: seed of the latents.
        progress: called after each batch.

    Returns:
        The power at each frequency.
    """
    samplers = _samplers(network, num, out, psi, class_index, device, seed, progress)
    reals = None
    if data is not None:
        reals = ImageDataset(
            data,
            resolution=samplers[0].size,
            reading=reading_for(samplers[0].generator.pixels),
            progress=counter(progress, "reading images"),
        )
    analysis = analyze_spectra(samplers[0], num=num, reals=reals, captions=captions)
    return _finish(analysis, samplers, network, out, num=num, class_index=class_index)


def noise(
    network: Network,
    out: Path | None = None,
    *,
    num: int = 4,
    realizations: int = 100,
    psi: float = 1.0,
    class_index: str | int | None = None,
    captions: bool = True,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Show the effect of noise in all, no, fine and coarse layers (StyleGAN, figures 4 and 5).

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator.
        out: the folder to write to.
        num: number of images.
        realizations: realizations of noise for each image; 100 in the paper.
        psi: truncation: 1 for full variation, 0 for the mean image.
        class_index: the class of a conditional generator: its name, or its number from 0.
        captions: name the layers with noise of each column, and the image, seed and psi of each
            row.
        device: where to compute; a loaded generator stays on its device.
        seed: seed of the latents and of the noise.
        progress: called after each image.

    Returns:
        The standard deviation of pixels over realizations of the noise.
    """
    if realizations < 2:
        raise ConfigError(f"--realizations must be 2 or more, got {realizations}")
    samplers = _samplers(network, num, out, psi, class_index, device, seed, progress)
    analysis = analyze_noise(samplers[0], num=num, num_realizations=realizations, captions=captions)
    return _finish(analysis, samplers, network, out, num=num, class_index=class_index)


def path_length(
    network: Network,
    out: Path | None = None,
    *,
    num: int = 1000,
    perceptual: Perceptual = "auto",
    weights_dir: Path | None = None,
    data: str | Path | None = None,
    captions: bool = True,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Sort images by their perceptual path length (StyleGAN2, section 3).

    Args:
        network: a run folder, a native folder, a weight file, or a loaded generator.
        out: the folder to write to.
        num: number of images.
        perceptual: the distance: "lpips", whose weights are downloaded once; "efficientnet", which
            is EfficientNet-Lite0 of the extra [metrics]; or "auto", LPIPS if its weights are on
            this machine, else EfficientNet-Lite0.
        weights_dir: a folder with manually downloaded weights of feature networks.
        data: the training set of a conditional network, from which labels are drawn.
        captions: write the path length below each image.
        device: where to compute; a loaded generator stays on its device.
        seed: seed of latents, labels and noise.
        progress: called after each chunk of images.

    Returns:
        The metric, and the images with the shortest and the longest paths.
    """
    _check_num(num)
    check_folder(out)
    perceptual = choose_perceptual(perceptual, weights_dir=weights_dir)
    protocol = path_length_protocol(num, perceptual)
    path = None if isinstance(network, AbstractGenerator) else weights_path(network)
    generator = load_generator(network if path is None else path, device, progress=progress)
    dataset = None if data is None else ImageDataset(data)
    analysis = rank_by_path_length(
        generator,
        protocol,
        dataset=dataset,
        origin={} if path is None else origin_of(path),
        weights_dir=weights_dir,
        seed=seed,
        out=out,
        captions=captions,
        progress=progress,
    )
    return analysis if out is None else _written(analysis, out)


def path_length_protocol(num: int, perceptual: Perceptual) -> PathLengthProtocol:
    """Return the metric by which images are sorted.

    Raises:
        ConfigError: for the network's own discriminator, whose values are not comparable.
    """
    if perceptual == "discriminator":
        raise ConfigError(
            "--perceptual discriminator does not give path lengths that can be compared; choose "
            "lpips or efficientnet"
        )
    protocol = PathLengthProtocol(num_fake=num)
    return protocol if perceptual == "lpips" else protocol.with_features("efficientnet-lite0")


def rank_by_path_length(
    generator: AbstractGenerator,
    protocol: PathLengthProtocol,
    *,
    dataset: ImageDataset | None,
    origin: dict[str, object],
    weights_dir: Path | None,
    seed: int,
    out: Path | None = None,
    captions: bool = True,
    progress: Progress | None = None,
) -> Analysis:
    """Measure path lengths and sort the images by them.

    Args:
        generator: in eval mode, on its device.
        protocol: of `path_length_protocol`.
        dataset: the source of labels of a conditional generator.
        origin: what identifies the weights, for the record.
        weights_dir: a folder with manually downloaded weights of feature networks.
        seed: seed of latents, labels and noise.
        out: the folder for the values of all images; None for no file.
        captions: write the path length below each image.
        progress: called after each chunk of images.
    """
    dependencies = load_dependencies(
        [protocol],
        weights_dir=weights_dir,
        device=device_of(generator),
        progress=counter(progress, "download, MB", scale=1e-6),
    )
    target = network_target(generator, dataset, origin=origin, seed=seed)
    suite.check([protocol], target, None, dependencies)
    (result,) = suite.evaluate([protocol], target, None, dependencies, progress=progress)
    if out is not None:
        save_ranking(out, result, protocol, target, captions=captions)
    record = result.record
    row = [record["metric"], f"{record['value']:.4g}", str(protocol.num_fake)]
    blocks: dict[str, Block] = {
        "path-length-table": Table(header=["metric", "value", "images"], rows=[row])
    }
    name = record["metric"].replace(":", "-")
    for which, image in ranking_grids(result, protocol, target, captions=captions).items():
        blocks[f"{name}-{which}"] = Figure.of(
            image, caption=f"The {which} paths, the extreme one first, and their lengths."
        )
    return Analysis(
        name="path-length",
        title="Images by path length",
        numbers=record["values"],
        blocks=blocks,
        summary=describe(record),
        record=record,
    )


def _check_num(num: int) -> None:
    if num < 1:
        raise ConfigError(f"--num must be 1 or more, got {num}")


def _samplers(
    network: Sequence[Network] | Network,
    num: int,
    out: Path | None,
    psi: float,
    class_index: str | int | None,
    device: Device,
    seed: int,
    progress: Progress | None,
) -> list[Sampler]:
    """Check options and load networks, each under a unique name."""
    _check_num(num)
    check_psi(psi)
    check_folder(out)
    networks = _as_list(network)
    if not networks:
        raise ConfigError("no --network is given")
    names = [_name_of(each) for each in networks]
    samplers = []
    for index, (each, name) in enumerate(zip(networks, names, strict=True)):
        generator = load_generator(
            each if isinstance(each, AbstractGenerator) else weights_path(each),
            device,
            progress=progress,
        )
        check_truncation(psi, None, generator)
        samplers.append(
            Sampler(
                name=name if names.count(name) == 1 else f"{name} ({index + 1})",
                generator=generator,
                label=label_of(class_index, generator),
                psi=psi,
                seed=seed,
                progress=progress,
            )
        )
    return samplers


def _as_list(network: Sequence[Network] | Network) -> list[Network]:
    return [network] if isinstance(network, str | Path | AbstractGenerator) else list(network)


def _name_of(network: Network) -> str:
    return "network" if isinstance(network, AbstractGenerator) else str(network)


def _finish(
    analysis: Analysis,
    samplers: Sequence[Sampler],
    network: Sequence[Network] | Network,
    out: Path | None,
    *,
    num: int,
    class_index: str | int | None,
) -> Analysis:
    """Add the record of everything that the numbers depend on, and write the files."""
    origins: dict[str, Any] = {}
    for sampler, each in zip(samplers, _as_list(network), strict=True):
        if isinstance(each, AbstractGenerator):
            origins[sampler.name] = {"path": None, "sha256": fingerprint_of(each)}
        else:
            origins[sampler.name] = origin_of(weights_path(each))
    record = {
        "analysis": analysis.name,
        "networks": origins,
        "num": num,
        "psi": samplers[0].psi,
        "class": class_number(class_index, samplers[0].generator),
        "seed": samplers[0].seed,
        "versions": {"stylegan": stylegan.__version__, "torch": torch.__version__},
        "result": analysis.numbers,
    }
    analysis = replace(analysis, record=record)
    return analysis if out is None else _written(analysis, out)


def _written(analysis: Analysis, folder: Path) -> Analysis:
    """Write the record as JSON, and pictures and charts as PNG files."""
    text = json.dumps(analysis.record, indent=2) + "\n"
    write_atomic(folder / f"{analysis.name}.json", text)
    for name, block in analysis.blocks.items():
        if isinstance(block, Figure):
            write_atomic(folder / f"{name}.png", block.data)
        elif isinstance(block, Chart):
            _write_chart(block, folder / f"{name}.png", stacked=name == "usage-history")
    return replace(analysis, folder=folder)


def _write_chart(chart: Chart, path: Path, *, stacked: bool) -> None:
    """Draw a chart as a PNG file; without matplotlib, warn and go on."""

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

    try:
        write_plot(draw, path, what=path.name)
    except ConfigError as error:
        logger.warning("%s is not drawn: %s", path.name, error)
