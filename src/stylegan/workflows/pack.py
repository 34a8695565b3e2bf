"""A folder with a trained network that can be shared: weights, directions, pictures, a card."""

import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from stylegan import images
from stylegan.data.describe import preparation_facts
from stylegan.data.shards import is_shards
from stylegan.data.sources.open import check_exists, open_source
from stylegan.devices import DeviceName
from stylegan.errors import ConfigError
from stylegan.extras import import_extra
from stylegan.files import replace_folder, write_atomic
from stylegan.interop.load import complete_snapshots, is_run, newest_snapshot
from stylegan.latent.attribution import MIN_IMAGES, Calibration
from stylegan.latent.directions import write_directions
from stylegan.latent.grids import PADDING
from stylegan.latent.render import map_latents, render
from stylegan.latent.seeds import latents_from_seeds
from stylegan.metrics.protocols import parse_all
from stylegan.models import io
from stylegan.models.base import AbstractGenerator, Networks
from stylegan.notebook import TextResult
from stylegan.progress import Progress
from stylegan.training.best import best_folder
from stylegan.training.history import Stage, stages_of
from stylegan.training.log import METRICS, read_log, read_metrics
from stylegan.workflows import directions as direction_commands
from stylegan.workflows.attribute import attribute, calibration_path
from stylegan.workflows.card import UNKNOWN, Sample, Texts, render_card, size_of, without_folders
from stylegan.workflows.curves import charts, charts_png, metric_charts
from stylegan.workflows.directions import directions_path
from stylegan.workflows.evaluate import evaluate
from stylegan.workflows.networks import distance_option, load_generator
from stylegan.workflows.report import small_picture

logger = logging.getLogger(__name__)

CARD = "README.md"
NUM_SAMPLES, COLUMNS = 32, 8
LEAST_SIDE = 64  # of a sample in a grid, in pixels
PSI = 0.7
_LARGEST = {"float16": 65504.0, "float32": math.inf}
_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_CONTENTS = {
    "model.safetensors": "the weights: generator (moving average){discriminator}",
    "model.json": "the architecture, and how it was trained",
    "directions/factorize.safetensors": "directions in w by closed-form factorization",
    "directions/pca.safetensors": "directions in w, the principal components",
    "attribution.json": "calibration of `stylegan attribute`",
    METRICS: "the records of the metrics",
}


@dataclass(frozen=True, kw_only=True)
class PackedModel(TextResult):
    """A folder that `pack` wrote.

    Attributes:
        folder: the folder.
        snapshot: of the run, that was packed.
        files: names of the files in the folder.
        num_bytes: of all files.
    """

    folder: Path
    snapshot: Path
    files: Sequence[str]
    num_bytes: int

    def __str__(self) -> str:
        """Return what was packed, and where the card is."""
        return (
            f"{self.snapshot} packed: {len(self.files)} files, {self.num_bytes / 1e6:.1f} MB, in "
            f"{self.folder}; read {self.folder / CARD} before you share it"
        )


def pack(
    run: Path | str,
    out: Path | str,
    *,
    snapshot: str = "best",
    dtype: Literal["float16", "float32"] = "float16",
    discriminator: bool = True,
    metrics: str | None = None,
    calibrate: int = 0,
    data: str | Path | None = None,
    title: str = "",
    about: str = "",
    limits: str = "",
    license: str = "",
    data_license: str = "",
    weights_dir: Path | None = None,
    device: DeviceName | torch.device = "auto",
    progress: Progress | None = None,
) -> PackedModel:
    """Make a folder of a run that can be shared: weights, directions, pictures, a model card.

    All commands take the folder as a network. README.md is the card: what the network is, how to
    use it, its training images, the commands that train it again, curves, metrics, limits and
    license, from what the run and the runs before it recorded. An existing folder of a network is
    replaced, with all that is in it.

    Args:
        run: the run's folder; it may still be training.
        out: the folder to write.
        snapshot: "best", by the first metric of the run, else the last; "last"; the name of a
            metric; or the images shown, as the snapshots are named.
        dtype: of the stored weights; float16 halves the file and changes pixels by about 1 of 255.
        discriminator: include the discriminator, from which others can fine-tune.
        metrics: names of metrics to measure now, separated by commas; "none" for no metrics.
            Default: those that the run measured at this snapshot.
        calibrate: calibrate `stylegan attribute` with this number of generated and of real images;
            a thousand steps for each.
        data: the training images, if they are not where the run's configuration says.
        title: heading of the card (default: the folder's name).
        about: what the network is.
        limits: what it cannot do, and what it should not be used for.
        license: of the weights, such as apache-2.0.
        data_license: of the training images.
        weights_dir: a folder with manually downloaded weights of feature networks.
        device: where to compute.
        progress: called while images are generated and measured.

    Returns:
        The files.

    Raises:
        StyleganError: if an option or the run cannot be used.
    """
    run_dir, folder = Path(run), Path(out).absolute()
    chosen = choose_snapshot(run_dir, snapshot)
    names = "" if metrics in (None, "none") else str(metrics)
    if names:
        parse_all(names)
    if calibrate != 0 and calibrate < MIN_IMAGES:
        raise ConfigError(f"calibrate must be 0, or {MIN_IMAGES} or more, got {calibrate}")
    if calibrate:
        import_extra("sklearn", extra="metrics", purpose="calibrate")
    _check_out(folder, run_dir)
    stages = stages_of(chosen)
    if stages[-1]["run"] is None:
        raise ConfigError(f"{chosen} does not record the options of its run")
    data_path = str(data or stages[-1]["run"]["data"]["path"])
    if names or calibrate or data is not None:
        check_exists(data_path)
    kept = ["generator_ema", "discriminator"] if discriminator else ["generator_ema"]
    networks = io.load(chosen, only=kept)
    _check_range(networks, dtype)
    if calibrate and stages[-1]["run"]["data"]["labels"]:
        raise ConfigError(
            "a network with labels has a calibration for each class",
            fix="leave out --calibrate, and use `stylegan attribute --calibrate --class`",
        )
    temporary = folder.with_name(f".{folder.name}.pack")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        packing = _Packing(
            folder=temporary,
            name=folder.name,
            run_dir=run_dir,
            data_path=data_path,
            stages=[without_folders(stage) for stage in stages],
            weights_dir=weights_dir,
            device=device,
            progress=progress,
        )
        packing.write_networks(networks, dtype)
        generator = load_generator(temporary, device)
        directions = packing.write_directions(generator)
        samples = packing.write_samples(generator)
        curves = packing.write_curves(int(stages[-1]["nimg"]))
        records, note = packing.write_metrics(names, is_none=metrics == "none", snapshot=chosen)
        calibration, perceptual = packing.calibrate(calibrate) if calibrate else ("", "")
        described = {
            name: text.format(discriminator=" and discriminator" if networks.discriminator else "")
            for name, text in _CONTENTS.items()
            if (temporary / name).exists()
        }
        texts = Texts(
            title=title, about=about, limits=limits, license=license, data_license=data_license
        )
        card = render_card(
            networks,
            name=folder.name,
            texts=texts,
            stages=packing.stages,
            data_rows=data_facts(data_path, packing.stages[-1], data_license),
            files=[*described.items()],
            samples=samples,
            directions=directions,
            curves=curves,
            records=records,
            metrics_note=note,
            calibration=calibration,
            perceptual=perceptual,
        )
        write_atomic(temporary / CARD, card)
        replace_folder(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return PackedModel(
        folder=Path(out),
        snapshot=chosen,
        files=[path.relative_to(folder).as_posix() for path in files],
        num_bytes=sum(path.stat().st_size for path in files),
    )


def choose_snapshot(run_dir: Path, snapshot: str) -> Path:
    """Return the folder of a snapshot of a run.

    Args:
        run_dir: the run's folder.
        snapshot: as of `pack`.

    Raises:
        ConfigError: if it is no run folder, or there is no such snapshot.
        WeightsError: if the run has no snapshot yet.
    """
    if not is_run(run_dir):
        raise ConfigError(f"{run_dir} is no run folder: it has no folder snapshots")
    measured = {record["metric"]: None for record in read_metrics(run_dir)}
    best = {name: best_folder(run_dir, name) for name in measured}
    best = {name: folder for name, folder in best.items() if io.is_native(folder)}
    if snapshot == "best" and best:
        return next(iter(best.values()))
    if snapshot in ("best", "last"):
        return newest_snapshot(run_dir)
    if snapshot in best:
        return best[snapshot]
    for folder in complete_snapshots(run_dir):
        if snapshot.isdecimal() and int(snapshot) == int(folder.name):
            return folder
    known = ["best", "last", *best, *(folder.name for folder in complete_snapshots(run_dir))]
    raise ConfigError(f"--snapshot {snapshot}: {run_dir} has {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class _Packing:
    """Writes the parts of the folder; `folder` is a temporary one, `name` its later name."""

    folder: Path
    name: str
    run_dir: Path
    data_path: str
    stages: Sequence[Stage]
    weights_dir: Path | None
    device: DeviceName | torch.device
    progress: Progress | None

    def shared(self, value: Any) -> Any:
        """Return JSON data without the folders of this machine."""
        return without_folders(value, {str(self.folder): self.name})

    def write_networks(self, networks: Networks, dtype: str) -> None:
        """Write the native format; the metadata is the last stage, and the history before it."""
        *history, last = self.stages
        metadata = {**last, "history": history}
        io.save(networks, self.folder, metadata=metadata, dtype=_DTYPES[dtype])

    def write_directions(self, generator: AbstractGenerator) -> list[str]:
        """Write closed-form directions and principal components; return their names."""
        if generator.w_avg is None:  # no w
            return []
        methods: tuple[Literal["factorize", "pca"], ...] = ("factorize", "pca")
        for method in methods:
            found = direction_commands.find(
                self.folder,
                method=method,
                count=min(direction_commands.NUM_DIRECTIONS, generator.w_dim),
                class_index=0 if generator.c_dim else None,
                device=self.device,
            ).directions
            facts = self.shared(dict(found.facts))
            write_directions(directions_path(self.folder, method), replace(found, facts=facts))
        return [*methods]

    def write_samples(self, generator: AbstractGenerator) -> list[Sample]:
        """Write grids of the first seeds, without and with truncation."""
        samples = []
        labels = f", class by class of {generator.c_dim}" if generator.c_dim else ""
        for psi in (PSI, 1.0) if generator.w_avg is not None else (1.0,):
            file = f"images/samples-psi{psi:g}.png"
            images.write_grid(_sheet(generator, psi), self.folder / file)
            caption = f"Seeds 0 to {NUM_SAMPLES - 1}, not chosen, psi {psi:g}{labels}."
            samples.append(Sample(file=file, caption=caption))
        return samples

    def write_curves(self, nimg: int) -> str | None:
        """Draw the log of the last run up to the snapshot; None without matplotlib or a log."""
        log = [record for record in read_log(self.run_dir) if record["nimg"] <= nimg]
        ticks = [record for record in log if record["kind"] == "tick"]
        if not ticks:
            return None
        try:
            of_run = [chart for chart in charts(ticks) if chart.title != "Speed"]
            content = charts_png([*metric_charts(log), *of_run])
        except ConfigError as error:
            logger.warning("no curves in the card: %s", error)
            return None
        file = "images/curves.png"
        write_atomic(self.folder / file, content)
        return file

    def write_metrics(
        self, names: str, *, is_none: bool, snapshot: Path
    ) -> tuple[list[dict[str, Any]], str]:
        """Measure metrics, or take those of the run; return the records and what they are of."""
        records: list[dict[str, Any]] = []
        note = ""
        if names:
            seed = 1 + int(self.stages[-1]["run"]["seed"])
            measured = evaluate(
                self.folder,
                self.data_path,
                metrics=names,
                seed=seed,
                weights_dir=self.weights_dir,
                out=None,
                device=self.device,
                progress=self.progress,
            )
            records = measured.records
            note = (
                "Measured with the weights of this folder against the training images, with "
                f"other latents (seed {seed}) than during training."
            )
        elif not is_none:
            nimg = self.stages[-1]["nimg"]
            last = {
                record["metric"]: record
                for record in read_metrics(self.run_dir)
                if record["nimg"] == nimg
            }
            records = [*last.values()]
            note = "Measured by the run against its training images, in float32."
            for name in last:
                if snapshot == best_folder(self.run_dir, name):
                    note += (
                        f" The snapshot was chosen among those of the run by {name}, whose value "
                        "is therefore a little too good."
                    )
        if records:
            lines = [json.dumps(self.shared(record)) + "\n" for record in records]
            write_atomic(self.folder / METRICS, "".join(lines))
        return records, note

    def calibrate(self, num: int) -> tuple[str, str]:
        """Calibrate attribution; return the result in words, and the distance."""
        attribute(
            networks=self.folder,
            calibrate=True,
            data=self.data_path,
            num=num,
            weights_dir=self.weights_dir,
            device=self.device,
            progress=self.progress,
        )
        path = calibration_path(self.folder)
        content = self.shared(json.loads(path.read_text(encoding="utf-8")))
        write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
        found = Calibration.from_json(content)
        distance = str(content["distance"]["name"])
        text = (
            f"calibrated on {len(found.generated)} images of the network and {len(found.real)} "
            f"real ones by their distance after projection ({distance}): area under the ROC curve "
            f"{found.area:.3f} ± {found.area_error:.3f}."
        )
        return text, distance_option(distance)


def data_facts(path: str, stage: Stage, license: str) -> list[tuple[str, str]]:
    """Return what is known of training images, as names and values.

    Args:
        path: where the images are, if they are still there.
        stage: of the run that was trained on them.
        license: of the images; empty if it is not known.
    """
    run, num_images = stage["run"], stage["num_images"]
    rows = [
        ("name", Path(path).name),
        ("images", UNKNOWN if num_images is None else f"{num_images:,}"),
        ("used as", size_of(run) + (", also mirrored" if run["data"]["mirror"] else "")),
        ("labels", "yes" if run["data"]["labels"] else "not used"),
        ("license", license or "not stated"),
        ("fingerprint", stage["fingerprint"] or UNKNOWN),
    ]
    if is_shards(path) or not Path(path).exists():
        return rows
    return [*rows, *preparation_facts(open_source(path)).items()]


def _check_out(folder: Path, run_dir: Path) -> None:
    """Check that a folder may be written or replaced.

    Raises:
        ConfigError: if it holds something else than a network, or is a snapshot of the run.
    """
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not io.is_native(folder):
        raise ConfigError(f"{folder} exists and holds no network", fix="choose another folder")
    if folder.resolve().parent in [(run_dir / name).resolve() for name in ("snapshots", "best")]:
        raise ConfigError(f"{folder} is a place of the run's own snapshots; choose another folder")


def _check_range(networks: Networks, dtype: str) -> None:
    """Check that a dtype can hold all weights.

    Raises:
        ConfigError: if some are too large.
    """
    largest = max(
        float(tensor.abs().max())
        for _, network in networks.items()
        for tensor in network.state_dict().values()
    )
    if not largest <= _LARGEST[dtype]:
        raise ConfigError(
            f"the weights are up to {largest:g}, and {dtype} holds at most {_LARGEST[dtype]:g}",
            fix="choose --dtype float32, if they are finite",
        )


def _sheet(generator: AbstractGenerator, psi: float) -> Tensor:
    """Return a grid of the first seeds, uint8 [C, H, W]; of a network with labels class by class.

    Small images are enlarged to `LEAST_SIDE`, large ones are reduced.
    """
    z = latents_from_seeds(range(NUM_SAMPLES), generator.z_dim)
    num = max(1, generator.c_dim)
    numbers = [index * min(num, NUM_SAMPLES) // NUM_SAMPLES for index in range(NUM_SAMPLES)]
    labels = [torch.eye(generator.c_dim)[each] if generator.c_dim else None for each in numbers]
    ws = [map_latents(generator, z[[i]], c=c, psi=psi) for i, c in enumerate(labels)]
    pictures = torch.stack([small_picture(image) for image in render(generator, torch.cat(ws))])
    scale = max(1, LEAST_SIDE // max(pictures.shape[2:]))
    return images.grid(pictures, columns=COLUMNS, padding=PADDING, scale=scale)
