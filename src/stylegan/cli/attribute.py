"""`stylegan attribute`: which network made an image, if any."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.table import Table
from rich.text import Text

import stylegan
from stylegan import images
from stylegan.cli.drawing import Class, PerceptualOption, WeightsDir
from stylegan.cli.options import Device, Seed, console
from stylegan.errors import ConfigError, DataError
from stylegan.files import write_atomic
from stylegan.images import to_uint8
from stylegan.interop.load import weights_path
from stylegan.latent.attribution import (
    FEWEST,
    Calibration,
    Verdict,
    decide,
    histogram_edges,
    own_image,
    roc_curve,
)
from stylegan.latent.project import DEFAULTS
from stylegan.latent.projection_folder import BatchProjector, ProjectionFolder
from stylegan.latent.targets import Target, read_targets
from stylegan.plotting import OWN, REAL, write_plot
from stylegan.workflows.networks import check_batch
from stylegan.workflows.project import open_projector

logger = logging.getLogger(__name__)

FIRST_SEED = 1_000_000  # of own images to calibrate with; people choose smaller ones
FALSE_POSITIVE_RATE = 0.05
MAX_PAIRS = 32  # pictures on the sheet
_CALIBRATION = "attribution.json"

_ATTRIBUTE = """Say whether a network made an image, by how near the image's projection comes.

First calibrate each network once, with its own images and with real ones; the result is stored
beside the weights. Then ask, of one network or of several. Both go on with the same line where
they were stopped.

Example:
    stylegan attribute --calibrate --network runs/faces --data faces.zip --out calibration
    stylegan attribute image.png --network runs/faces --network runs/other --out verdict"""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """Options of `stylegan attribute`."""

    paths: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE...", help="Pictures, and folders or zips of them."),
    ] = ()
    networks: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            name="network",
            metavar="NET",
            help="A run folder, a native folder or a weight file; may be given several times.",
        ),
    ]
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder to write to.")]
    calibrate: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="Measure own and real images, and store that beside the network."),
    ] = False
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DATA", help="Real images to calibrate with: a folder or zip."),
    ] = None
    num: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N", help="Own and real images each, with --calibrate; 50 if left out."
        ),
    ] = None
    calibrations: Annotated[
        tuple[Path, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            name="calibration",
            metavar="FILE",
            help="Where a network's calibration is, in the order of the networks; left out: "
            "beside its weights.",
        ),
    ] = ()
    steps: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Steps of a projection; left out: 1000.")
    ] = None
    perceptual: PerceptualOption = "lpips"
    weights_dir: WeightsDir = None
    class_index: Class = None
    batch: Annotated[
        int | None,
        tyro.conf.arg(metavar="N", help="Pictures at once; left out: as many as suit their size."),
    ] = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Calibrate, or attribute."""
        self._check()
        if self.calibrate:
            for index in range(len(self.networks)):
                self._calibrate(index)
            return 0
        return self._attribute()

    def _check(self) -> None:
        if not self.networks:
            raise ConfigError("no --network", expected="at least one", fix="name a network")
        if self.calibrations and len(self.calibrations) != len(self.networks):
            raise ConfigError(
                f"{len(self.calibrations)} --calibration for {len(self.networks)} networks",
                expected="one for each network, or none",
                fix="give one after each --network",
            )
        if self.batch is not None:
            check_batch(self.batch)
        if self.out.is_file():
            raise ConfigError(
                f"--out {self.out} is a file", expected="a folder", fix="choose another name"
            )
        if self.calibrate and (self.data is None or self.paths):
            raise ConfigError(
                "--calibrate with IMAGE" if self.paths else "--calibrate without --data",
                expected="real images by --data, and no others",
                fix="pass a folder or zip like the network's training images",
            )
        if self.calibrate and self.num is not None and self.num < FEWEST:
            raise ConfigError(
                f"--num {self.num}", expected=f"at least {FEWEST}", fix="leave it out for 50"
            )
        if not self.calibrate and (self.data is not None or self.num is not None):
            raise ConfigError(
                "--data or --num without --calibrate",
                expected="both with it only",
                fix="add --calibrate, or leave them out",
            )
        if not self.calibrate and not self.paths:
            raise ConfigError(
                "no IMAGE", expected="pictures, or --calibrate", fix="name at least one"
            )

    def _open(self, index: int) -> BatchProjector:
        config = DEFAULTS["w"]
        if self.steps is not None:
            config = replace(config, num_steps=self.steps)
        projector, _ = open_projector(
            self.networks[index],
            device=self.device,
            perceptual=self.perceptual,
            weights_dir=self.weights_dir,
            class_index=self.class_index,
            config=config,
            seed=self.seed,
        )
        return projector

    def _place(self, index: int) -> Path:
        """Return where the calibration of a network is."""
        if self.calibrations:
            return self.calibrations[index]
        return calibration_place(weights_path(self.networks[index]))

    def _calibrate(self, index: int) -> None:
        assert self.data is not None
        work = self._open(index)
        place = self._place(index)
        folder = place.parent if place.parent.exists() else Path()
        if not os.access(folder, os.W_OK):
            raise ConfigError(
                f"{folder} cannot be written to",
                expected="a place for the calibration",
                fix="name another file by --calibration",
            )
        num = self.num or 50
        reals = read_targets(
            [self.data], side=work.side, num_channels=work.generator.img_channels, num=num
        )
        if len(reals) < num:
            logger.warning("%s has %d usable images, not %d", self.data, len(reals), num)
        owns = [_own_target(work, FIRST_SEED + number) for number in range(num)]
        out = self._folder(index)
        own = [job.distance for job in work.project_to_folders(owns, out / "own", batch=self.batch)]
        real = [
            job.distance for job in work.project_to_folders(reals, out / "real", batch=self.batch)
        ]
        content = hashlib.sha256("".join(target.sha256 for target in reals).encode()).hexdigest()
        found = Calibration(
            own=own,
            real=real,
            facts={
                **work.setting,
                "data": {"path": str(self.data), "sha256": content},
                "versions": {"stylegan": stylegan.__version__, "torch": torch.__version__},
            },
        )
        write_atomic(place, json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n")
        _plot(found, out)
        name, below = work.distance.name, found.threshold(FALSE_POSITIVE_RATE)
        console().print(
            f"{place}: {len(own)} own and {len(real)} real images, {name}; AUC {found.area:.4f} "
            f"± {found.area_error:.4f}, overlap {found.overlap:.2f}; "
            f"{FALSE_POSITIVE_RATE:.0%} of the real ones lie below {below:.4f}",
            markup=False,
        )

    def _folder(self, index: int) -> Path:
        return self.out if len(self.networks) == 1 else self.out / f"network{index + 1}"

    def _attribute(self) -> int:
        works = [self._open(index) for index in range(len(self.networks))]
        found = [
            _read(self._place(index), work, self.networks[index])
            for index, work in enumerate(works)
        ]
        jobs: list[list[ProjectionFolder]] = []
        for index, work in enumerate(works):
            targets = read_targets(
                self.paths, side=work.side, num_channels=work.generator.img_channels
            )
            jobs.append(work.project_to_folders(targets, self._folder(index), batch=self.batch))
        rows: list[dict[str, Any]] = []
        for of_image in zip(*jobs, strict=True):
            distances = [job.distance for job in of_image]
            alone = [each.probability(d) for each, d in zip(found, distances, strict=True)]
            verdict = decide(alone)
            rows.append(
                {
                    "image": of_image[0].target.path,
                    "name": of_image[0].target.name,
                    "networks": [
                        {
                            "network": network,
                            "distance": distance,
                            "probability": probability,
                            "is_further_than_all_real": each.is_unlike(distance),
                        }
                        for network, distance, probability, each in zip(
                            self.networks, distances, verdict.probabilities, found, strict=True
                        )
                    ],
                    "none": verdict.none,
                    "made_by": None if verdict.best is None else self.networks[verdict.best],
                    "is_certain": verdict.is_certain,
                    "verdict": self._say(verdict),
                }
            )
        record = {
            "images": rows,
            "networks": [
                work.setting | {"area_under_curve": each.area}
                for work, each in zip(works, found, strict=True)
            ],
            "versions": {"stylegan": stylegan.__version__, "torch": torch.__version__},
        }
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        write_atomic(self.out / "verdict.json", text)
        _draw_pairs(jobs, self.out / "pairs.png")
        console().print(self._table(rows))
        for row in rows:
            if all(each["is_further_than_all_real"] for each in row["networks"]):
                logger.warning(
                    "%s lies further than every real image of the calibration: the probability "
                    "says little of such pictures",
                    row["image"],
                )
        return 0

    def _say(self, verdict: Verdict) -> str:
        sure = "" if verdict.is_certain else "probably "
        if verdict.best is not None:
            return f"{sure}made by {self.networks[verdict.best]}"
        return f"{sure}made by none of them" if len(self.networks) > 1 else f"{sure}not made by it"

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("image")
        for network in self.networks:
            table.add_column(Text(f"distance, {network}"), justify="right")
            table.add_column("probability", justify="right")
        table.add_column("verdict")
        for row in rows:
            cells = []
            for each in row["networks"]:
                cells += [f"{each['distance']:.4f}", f"{each['probability']:.3f}"]
            table.add_row(Text(row["name"]), *cells, Text(row["verdict"]))
        return table


def calibration_place(path: Path) -> Path:
    """Return where the calibration of weights is stored: in their folder, or beside their file."""
    return path / _CALIBRATION if path.is_dir() else path.with_name(f"{path.name}.{_CALIBRATION}")


def _own_target(work: BatchProjector, seed: int) -> Target:
    """Make an image of the network, with noise of its own."""
    image, _ = own_image(work.generator, seed, c=work.label)
    return Target(name=f"seed{seed}", path=f"seed {seed}", image=to_uint8(image).cpu()[0])


def _read(path: Path, work: BatchProjector, network: str) -> Calibration:
    """Read a calibration, and refuse one of something else."""
    line = f"stylegan attribute --calibrate --network {network} --data DATA --out DIR"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Calibration.from_json(content)
    except FileNotFoundError:
        raise DataError(
            f"no calibration at {path}", expected="one of this network", fix=f"run `{line}`"
        ) from None
    except (ValueError, DataError) as error:
        raise DataError(
            f"{path} cannot be read ({' '.join(str(error).split())[:80]})",
            expected="a calibration",
            fix=f"run `{line}`",
        ) from None
    changed = [
        name
        for name in ("network", "class", "options", "distance")
        if _key(name, found.facts.get(name)) != _key(name, work.setting[name])
    ]
    if changed:
        raise DataError(
            f"{path} is a calibration with another {', '.join(changed)}",
            expected="the network, class, steps and distance asked for",
            fix=f"repeat its options, or run `{line}` with these",
        )
    return found


def _key(name: str, value: Any) -> Any:
    return value.get("sha256") if name == "network" and isinstance(value, dict) else value


def _draw_pairs(jobs: Sequence[Sequence[ProjectionFolder]], path: Path) -> None:
    """Draw each picture beside what each network makes of it, a row for each picture."""
    rows = list(zip(*jobs, strict=True))[:MAX_PAIRS]
    cells = []
    for of_image in rows:
        cells.append(of_image[0].target.image)
        cells += [images.read(job.folder / "projected.png") for job in of_image]
    side = max(cell.shape[-1] for cell in cells)
    enlarged = [cell.repeat_interleave(side // cell.shape[-1], 1) for cell in cells]
    enlarged = [cell.repeat_interleave(side // cell.shape[-1], 2) for cell in enlarged]
    sheet = torch.stack([cell.expand(3, -1, -1) for cell in enlarged])
    images.write(images.grid(sheet, columns=1 + len(jobs), padding=2), path)


def _plot(found: Calibration, folder: Path) -> None:
    """Draw the two histograms, as figure 9, and the ROC curve; without matplotlib, neither."""
    name = found.facts["distance"]["name"]  # type: ignore[index]

    def histograms(axes: Any) -> None:
        edges = histogram_edges(found.own, found.real)
        for values, label, color in ((found.own, "own", OWN), (found.real, "real", REAL)):
            axes.hist(values, edges, alpha=0.7, color=color, label=f"{len(values)} {label} images")
        axes.set_xscale("log")
        axes.set_xlabel(f"distance after projection ({name})")
        axes.set_ylabel("images")
        axes.legend(frameon=False)

    def curve(axes: Any) -> None:
        false, true = roc_curve(found.own, found.real)
        axes.plot(false, true, color=OWN, drawstyle="steps-post")
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        axes.set_xlabel("real images taken for own")
        axes.set_ylabel("own images found")
        axes.set_title(f"area {found.area:.4f}", fontsize="medium")
        axes.set_aspect("equal")

    try:
        write_plot(histograms, folder / "histograms.png", what="histograms")
        write_plot(curve, folder / "roc.png", what="ROC curve")
    except ConfigError as error:
        logger.info("no histograms and no ROC curve: %s", error.fix)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan attribute` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command = tyro.cli(Attribute, prog="stylegan attribute", description=_ATTRIBUTE, args=arguments)
    return command.run()
