"""Attribution: which of several networks generated an image, if any."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import stylegan
from stylegan.captions import Captions
from stylegan.devices import DeviceName
from stylegan.errors import ConfigError, DataError, command_line
from stylegan.extras import import_extra
from stylegan.files import write_atomic
from stylegan.images import enlarge, grid, read
from stylegan.latent.attribution import (
    CONFIDENCE,
    ERROR_RATE,
    MIN_CERTAIN,
    MIN_IMAGES,
    Calibration,
    Verdict,
    decide,
    histogram_edges,
    image_with_seeded_noise,
    roc_curve,
)
from stylegan.latent.project import DEFAULTS
from stylegan.latent.projection_folder import BatchProjector, identity
from stylegan.latent.targets import Target, read_targets
from stylegan.models.base import AbstractGenerator
from stylegan.notebook import Picture, TextResult, text_table
from stylegan.perceptual.detector import AbstractDistance
from stylegan.plotting import GENERATED, REAL, write_plot
from stylegan.progress import Progress
from stylegan.workflows.networks import Network, Perceptual, check_batch, check_folder, check_scale
from stylegan.workflows.project import Images, open_projector, targets_for

logger = logging.getLogger(__name__)

FIRST_SEED = 1_000_000  # of generated images of a calibration; users choose smaller seeds
NUM_IMAGES = 50
MAX_PAIRS = 32  # rows of pairs.png
_CALIBRATION = "attribution.json"


@dataclass(frozen=True, kw_only=True)
class StoredCalibration:
    """A calibration and its file.

    Attributes:
        network: the network as it was passed; for a loaded generator its class name.
        path: of the file; None if none was written.
        calibration: the distances.
    """

    network: str
    path: Path | None
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class AttributedImage:
    """The verdict on one image.

    Attributes:
        name: the image's file name without its suffix.
        path: of the image.
        distances: after projection into each network.
        probabilities: that each network generated the image.
        none: probability that none of them did.
        made_by: the most likely network; None if "none of them" is more likely.
        is_certain: as of `Verdict`.
        own_p_values: of the hypothesis that each network generated the image; see `Calibration`.
        real_p_values: of the hypothesis that the image is real, by each network's calibration.
        exceeds_real: for each network, whether the distance is larger than that of every real
            image of its calibration.
        verdict: the result in words.
        target: the image in the first network's size, uint8 [C, R, R].
        projections: what each network makes of it, uint8 [C, R, R] each.
    """

    name: str
    path: str
    distances: Sequence[float]
    probabilities: Sequence[float]
    none: float
    made_by: str | None
    is_certain: bool
    own_p_values: Sequence[float]
    real_p_values: Sequence[float]
    exceeds_real: Sequence[bool]
    verdict: str
    target: Tensor
    projections: Sequence[Tensor]


@dataclass(frozen=True, kw_only=True)
class Attribution(TextResult):
    """The result of `attribute`; a notebook shows it as a table.

    Attributes:
        networks: names of the networks.
        images: the verdicts; empty after a calibration.
        calibrations: of each network, as they were used or made.
        folder: with the files; None if none were written.
    """

    networks: Sequence[str]
    images: Sequence[AttributedImage]
    calibrations: Sequence[StoredCalibration]
    folder: Path | None

    def picture(self, *, captions: bool = True, scale: int | None = None) -> Picture:
        """Return a grid with a row for each image: the image, and each network's projection.

        Options as of `attribute`.
        """
        return Picture(pixels=_pairs(self.images, self.networks, captions, scale))

    def __str__(self) -> str:
        """Return a table of the verdicts, or of the calibrations."""
        if not self.images:
            return "\n".join(map(_describe, self.calibrations))
        notes = [note for stored in self.calibrations if (note := _note(stored))]
        header = ["image"]
        for network in self.networks:
            header += [f"distance, {network}", "probability"]
        rows = []
        for image in self.images:
            row = [image.name]
            for distance, probability in zip(image.distances, image.probabilities, strict=True):
                row += [f"{distance:.4f}", f"{probability:.3f}"]
            rows.append([*row, image.verdict])
        table = text_table([*header, "verdict"], rows, left=["image", "verdict"])
        return "\n".join([table, *notes])


def attribute(
    images: Images = (),
    networks: Sequence[str] | Sequence[Network] | Network = (),
    *,
    out: Path | str | None = None,
    calibrate: bool = False,
    data: Path | str | None = None,
    num: int | None = None,
    calibrations: Sequence[Path] = (),
    steps: int | None = None,
    perceptual: Perceptual | AbstractDistance = "auto",
    weights_dir: Path | None = None,
    class_index: str | int | None = None,
    captions: bool = True,
    scale: int | None = None,
    batch: int | None = None,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Decide whether a network generated an image, by the distance after projection.

    First calibrate each network once with `calibrate`, with its own and with real images; the
    result is stored beside the weights. Then pass images, and one network or several. Both are
    resumed by the same call if they were interrupted.

    Args:
        images: image files, and folders or zips of them.
        networks: one or several networks: run folders, native folders, weight files, URLs or
            known names.
        out: the folder to write to.
        calibrate: calibrate the networks instead of attributing images.
        data: real images for `calibrate`: a folder or zip.
        num: number of generated and of real images for `calibrate`, each (default 50).
        calibrations: the file of each network's calibration, in the order of the networks
            (default: beside the weights).
        steps: optimization steps of a projection (default 1000).
        perceptual: the distance: "lpips", whose weights are downloaded once; "efficientnet", which
            is EfficientNet-Lite0 of the extra [metrics]; "discriminator", the network's own; or
            "auto", LPIPS if its weights are on this machine, else EfficientNet-Lite0.
        weights_dir: a folder that holds weights of feature networks, to avoid a download.
        class_index: the class of networks with labels: its name, or its number from 0.
        captions: in pairs.png, write the verdict beside each image, and names and probabilities.
        scale: in pairs.png, enlarge the images by this whole number (default: with captions to 64
            pixels or more).
        batch: images at once (default: suits their size).
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        seed: seed of the projections.
        progress: called after each step of a projection.

    Returns:
        The verdicts, or the calibrations.

    Raises:
        StyleganError: if an option or a file cannot be used, or a network is not calibrated.
    """
    sources = [networks] if isinstance(networks, str | Path | AbstractGenerator) else [*networks]
    has_images = isinstance(images, Tensor | str | Path) or len(images) > 0
    folder = None if out is None else Path(out)
    check_folder(folder)
    check_scale(scale)
    if not sources:
        raise ConfigError("attribute needs at least one network")
    if calibrations and len(calibrations) != len(sources):
        raise ConfigError(
            f"{len(calibrations)} calibrations were given for {len(sources)} networks"
        )
    if batch is not None:
        check_batch(batch)
    if calibrate and has_images:
        raise ConfigError("--calibrate takes its images from --data; leave out the others")
    if calibrate and data is None:
        raise ConfigError(
            "--calibrate needs --data", fix="pass images like the network's training images"
        )
    if calibrate and num is not None and num < MIN_IMAGES:
        raise ConfigError(f"--num must be {MIN_IMAGES} or more, got {num}")
    if not calibrate and (data is not None or num is not None):
        raise ConfigError("--data and --num only apply to --calibrate")
    if not calibrate and not has_images:
        raise ConfigError("attribute needs an image, or --calibrate")
    import_extra("sklearn", extra="metrics", purpose="attribute")  # before the long work
    config = DEFAULTS["w"]
    if steps is not None:
        config = replace(config, num_steps=steps)
    subjects = []
    for index, source in enumerate(sources):
        projector, path = open_projector(
            source,
            perceptual=perceptual,
            weights_dir=weights_dir,
            class_index=class_index,
            config=config,
            device=device,
            seed=seed,
            progress=progress,
        )
        if calibrations:
            place: Path | None = Path(calibrations[index])
        else:
            place = None if path is None else calibration_path(path)
        subjects.append(
            _Network(
                name=type(source).__name__ if path is None else str(source),
                projector=projector,
                calibration_file=place,
                folder=_subfolder(folder, index, len(sources)),
            )
        )
    if calibrate:
        assert data is not None
        made = [
            subject.calibrate(Path(data), num or NUM_IMAGES, batch=batch, progress=progress)
            for subject in subjects
        ]
        return Attribution(
            networks=[subject.name for subject in subjects],
            images=(),
            calibrations=made,
            folder=folder,
        )
    stored = [subject.read_calibration() for subject in subjects]
    attributed = _attribute(images, subjects, stored, batch=batch, progress=progress)
    result = Attribution(
        networks=[subject.name for subject in subjects],
        images=attributed,
        calibrations=stored,
        folder=folder,
    )
    if folder is not None:
        record = _record(result, [subject.projector.setting for subject in subjects])
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        write_atomic(folder / "verdict.json", text)
        picture = result.picture(captions=captions, scale=scale)
        picture.write(folder / "pairs.png")
    for image in attributed:
        if all(image.exceeds_real):
            logger.warning(
                "%s has a larger distance than every real image of the calibration, so the "
                "probability is not reliable",
                image.path,
            )
    return result


def calibration_path(path: Path) -> Path:
    """Return where the calibration of weights is stored: in their folder, or beside their file."""
    return path / _CALIBRATION if path.is_dir() else path.with_name(f"{path.name}.{_CALIBRATION}")


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A network, the file of its calibration, and the folder for its projections."""

    name: str
    projector: BatchProjector
    calibration_file: Path | None
    folder: Path | None

    def project(
        self, targets: Sequence[Target], part: str, batch: int | None, progress: Progress | None
    ) -> Iterator[tuple[float, Tensor]]:
        """Yield the distance and the network's image of each target."""
        if self.folder is None:
            for projection in self.projector.project(targets, batch=batch, progress=progress):
                yield projection.distance, projection.image
            return
        folders = self.projector.project_to_folders(
            targets, self.folder / part, batch=batch, progress=progress
        )
        for each in folders:
            yield each.distance, read(each.folder / "projected.png")

    def calibrate(
        self, data: Path, num: int, *, batch: int | None, progress: Progress | None
    ) -> StoredCalibration:
        """Project generated and real images, and store their distances."""
        path, projector = self.calibration_file, self.projector
        if path is not None:
            folder = path.parent if path.parent.exists() else Path()
            if not os.access(folder, os.W_OK):
                raise ConfigError(
                    f"{folder} cannot be written to",
                    fix="name another file for the calibration by --calibration",
                )
        reals = read_targets(
            [data], size=projector.size, pixels=projector.generator.pixels, num=num
        )
        if len(reals) < num:
            logger.warning("%s has %d usable images, not %d", data, len(reals), num)
        generated = [_generated_target(projector, FIRST_SEED + index) for index in range(num)]
        distances = {
            part: [distance for distance, _ in self.project(targets, part, batch, progress)]
            for part, targets in (("own", generated), ("real", reals))
        }
        content = "".join(target.sha256 for target in reals)
        data_record = {
            "path": str(data),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }
        calibration = Calibration(
            generated=distances["own"],
            real=distances["real"],
            facts={**projector.setting, "data": data_record, "versions": _versions()},
        )
        if path is not None:
            text = json.dumps(calibration.to_json(), indent=2, allow_nan=False) + "\n"
            write_atomic(path, text)
        if self.folder is not None:
            _plot(calibration, projector.distance.name, self.folder)
        return StoredCalibration(network=self.name, path=path, calibration=calibration)

    def read_calibration(self) -> StoredCalibration:
        """Read the network's calibration.

        Raises:
            DataError: if there is none, or it was made with something else.
        """
        path = self.calibration_file
        words = ["--calibrate", "--network", self.name, "--data", "DATA", "--out", "DIR"]
        fix = f"run {command_line('attribute', *words)}"
        if path is None:
            raise ConfigError("a loaded generator needs its calibration file; pass calibrations")
        try:
            calibration = Calibration.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise DataError(f"there is no calibration at {path}", fix=fix) from None
        except (ValueError, DataError) as error:
            text = " ".join(str(error).split())[:80]
            raise DataError(f"{path} is not a readable calibration ({text})", fix=fix) from None
        setting = self.projector.setting
        changed = [
            name
            for name in ("network", "class", "options", "distance")
            if identity(name, calibration.facts.get(name)) != identity(name, setting[name])
        ]
        if changed:
            raise DataError(
                f"{path} is a calibration with another {', '.join(changed)}",
                fix=f"repeat its options, or {fix} with the new ones",
            )
        return StoredCalibration(network=self.name, path=path, calibration=calibration)


def _subfolder(folder: Path | None, index: int, num: int) -> Path | None:
    return folder if folder is None or num == 1 else folder / f"network{index + 1}"


def _generated_target(projector: BatchProjector, seed: int) -> Target:
    image, _ = image_with_seeded_noise(projector.generator, seed, c=projector.label)
    pixels = projector.generator.pixels
    stored = pixels.to_stored(image).cpu()[0]
    return Target(name=f"seed{seed}", path=f"seed {seed}", image=stored, pixels=pixels)


def _attribute(
    images: Images,
    networks: Sequence[_Network],
    stored: Sequence[StoredCalibration],
    *,
    batch: int | None,
    progress: Progress | None,
) -> list[AttributedImage]:
    by_network = []
    for network in networks:
        targets = targets_for(images, network.projector)
        projected = network.project(targets, "", batch, progress)
        by_network.append(list(zip(targets, projected, strict=True)))
    names = [network.name for network in networks]
    attributed = []
    for of_image in zip(*by_network, strict=True):
        distances = [distance for _, (distance, _) in of_image]
        pairs = list(zip((each.calibration for each in stored), distances, strict=True))
        verdict = decide([calibration for calibration, _ in pairs], distances)
        target = of_image[0][0]
        attributed.append(
            AttributedImage(
                name=target.name,
                path=target.path,
                distances=distances,
                probabilities=verdict.probabilities,
                none=verdict.none,
                made_by=None if verdict.best is None else names[verdict.best],
                is_certain=verdict.is_certain,
                own_p_values=[each.own_p_value(distance) for each, distance in pairs],
                real_p_values=[each.real_p_value(distance) for each, distance in pairs],
                exceeds_real=[
                    calibration.exceeds_real(distance) for calibration, distance in pairs
                ],
                verdict=_in_words(verdict, names),
                target=target.image,
                projections=[image for _, (_, image) in of_image],
            )
        )
    return attributed


def _in_words(verdict: Verdict, names: Sequence[str]) -> str:
    if verdict.is_undecided:
        return "undecided"
    probably = "" if verdict.is_certain else "probably "
    if verdict.best is not None:
        return f"{probably}made by {names[verdict.best]}"
    return f"{probably}made by none of them" if len(names) > 1 else f"{probably}not made by it"


def _record(result: Attribution, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [
        {
            "image": image.path,
            "name": image.name,
            "networks": [
                {
                    "network": network,
                    "distance": distance,
                    "probability": probability,
                    "own_p_value": own_p_value,
                    "real_p_value": real_p_value,
                    "is_further_than_all_real": exceeds_real,
                }
                for network, distance, probability, own_p_value, real_p_value, exceeds_real in zip(
                    result.networks,
                    image.distances,
                    image.probabilities,
                    image.own_p_values,
                    image.real_p_values,
                    image.exceeds_real,
                    strict=True,
                )
            ],
            "none": image.none,
            "made_by": image.made_by,
            "is_certain": image.is_certain,
            "verdict": image.verdict,
        }
        for image in result.images
    ]
    networks = [
        {
            **setting,
            "area_under_curve": stored.calibration.area,
            "num_own": len(stored.calibration.generated),
            "num_real": len(stored.calibration.real),
        }
        for setting, stored in zip(settings, result.calibrations, strict=True)
    ]
    return {"images": rows, "networks": networks, "versions": _versions()}


def _describe(stored: StoredCalibration) -> str:
    calibration = stored.calibration
    place = stored.network if stored.path is None else str(stored.path)
    lines = [
        f"{place}: {len(calibration.generated)} own and {len(calibration.real)} real images",
        f"  AUC {calibration.area:.4f} ± {calibration.area_error:.4f}, "
        f"overlap {calibration.overlap:.2f}",
        f"  {calibration.num_below_threshold(ERROR_RATE)} of these real images have a distance "
        f"below {calibration.threshold(ERROR_RATE):.4f},",
        f"  and at most {calibration.false_positive_bound(ERROR_RATE):.0%} of all real images "
        f"({CONFIDENCE:.0%} confidence)",
    ]
    return "\n".join([*lines, *([note] if (note := _note(stored)) else [])])


def _note(stored: StoredCalibration) -> str:
    """Return what a calibration on few images cannot decide; empty if it has enough."""
    calibration = stored.calibration
    notes = []
    if (num := len(calibration.generated)) < MIN_CERTAIN:
        notes.append(f'with {num} own images it cannot say "not made by it"')
    if (num := len(calibration.real)) < MIN_CERTAIN:
        notes.append(f'with {num} real images "made by it" is never certain')
    if not notes:
        return ""
    notes.append(f"calibrate with --num {MIN_CERTAIN} or more, better {NUM_IMAGES}")
    return f"{stored.network} is calibrated on few images:\n  " + ";\n  ".join(notes)


def _fitted(picture: Tensor, *, height: int, width: int) -> Tensor:
    """Enlarge uint8 [C, h, w] by a whole number, and center it on white [3, height, width]."""
    scale = min(height // picture.shape[1], width // picture.shape[2])
    enlarged = enlarge(picture, scale)
    canvas = enlarged.new_full((3, height, width), 255)
    top, left = (height - enlarged.shape[1]) // 2, (width - enlarged.shape[2]) // 2
    canvas[:, top : top + enlarged.shape[1], left : left + enlarged.shape[2]] = enlarged
    return canvas


def _pairs(
    images: Sequence[AttributedImage], networks: Sequence[str], captions: bool, scale: int | None
) -> Tensor:
    shown = images[:MAX_PAIRS]
    rows = [[image.target, *image.projections] for image in shown]
    shapes = [cell.shape[1:] for row in rows for cell in row]
    height, width = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    cells = [_fitted(cell, height=height, width=width) for row in rows for cell in row]
    texts = Captions(
        rows=[image.verdict for image in shown],
        columns=["image", *networks],
        tiles=[
            text
            for image in shown
            for text in (image.name, *(f"{value:.3f}" for value in image.probabilities))
        ],
    )
    return grid(
        torch.stack(cells),
        columns=len(rows[0]),
        padding=2,
        captions=texts if captions else None,
        scale=scale,
    )


def _plot(calibration: Calibration, distance: str, folder: Path) -> None:
    """Plot the two histograms of figure 9 and the ROC curve, if matplotlib is installed."""

    def histograms(axes: Any) -> None:
        edges = histogram_edges(calibration.generated, calibration.real)
        for values, label, color in (
            (calibration.generated, "own", GENERATED),
            (calibration.real, "real", REAL),
        ):
            axes.hist(values, edges, alpha=0.7, color=color, label=f"{len(values)} {label} images")
        axes.set_xscale("log")
        axes.set_xlabel(f"distance after projection ({distance})")
        axes.set_ylabel("images")
        axes.legend(frameon=False)

    def curve(axes: Any) -> None:
        false, true = roc_curve(calibration.generated, calibration.real)
        axes.plot(false, true, color=GENERATED, drawstyle="steps-post")
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        axes.set_xlabel("false positive rate (real images)")
        axes.set_ylabel("true positive rate (own images)")
        axes.set_title(f"area {calibration.area:.4f}", fontsize="medium")
        axes.set_aspect("equal")

    try:
        write_plot(histograms, folder / "histograms.png", what="histograms")
        write_plot(curve, folder / "roc.png", what="ROC curve")
    except ConfigError as error:
        logger.info("no histograms and no ROC curve were drawn: %s", error.fix)


def _versions() -> dict[str, str]:
    return {"stylegan": stylegan.__version__, "torch": torch.__version__}
