"""`stylegan project`: pictures to latents."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import safetensors
import torch
import tyro
from rich.progress import Progress, TaskID
from safetensors.torch import save as to_bytes
from torch import Tensor

import stylegan
from stylegan import images
from stylegan.cli.drawing import (
    Class,
    Network,
    PerceptualOption,
    WeightsDir,
    check_batch,
    label_of,
    load_generator,
    load_perceptual,
    origin_of,
    weights_path,
)
from stylegan.cli.options import Device, Seed, console, progress
from stylegan.cli.targets import Target, read_targets
from stylegan.errors import CheckpointError, ConfigError
from stylegan.files import write_atomic
from stylegan.latent.project import (
    DEFAULTS,
    Projection,
    ProjectionConfig,
    Projector,
    Space,
    join_states,
    split_state,
)
from stylegan.latent.saved import read_latents, write_latents
from stylegan.latent.statistics import StyleStatistics, style_statistics
from stylegan.latent.tune import TuneConfig, tune
from stylegan.latent.video import check_video, write_video
from stylegan.models import io
from stylegan.models.base import AbstractGenerator, Networks
from stylegan.models.growth import resolution_at
from stylegan.perceptual.detector import AbstractDistance

logger = logging.getLogger(__name__)

SAVE_SECONDS = 30  # from one saved state to the next
NUM_STRIP = 5  # pictures on the way, as the official projector shows
NUM_FRAMES = 100  # of a video, at most
VIDEO_FPS = 25
UNLIKE = 0.4  # share of the mean image's distance; see docs/project.md
_STATE = "state.safetensors"
_RECORD = "project.json"

_PROJECT = """Find the latents of which a network makes pictures: its own ones, or like them.

For each IMAGE (a file, or those in a folder or zip; the central square is taken) OUT/NAME gets
projected_w.npz, in the official layout, with the noise; target.png; projected.png; strip.png, from
the target over steps on the way to the result; and project.json. The same line goes on with what
was stopped. Other commands take the latents: stylegan generate images --seeds OUT/NAME/....npz

Example:
    stylegan project face.jpg --network runs/faces --out projected
    stylegan project photos/ --network runs/faces --space w+ --perceptual efficientnet --out out"""


@dataclass(frozen=True, kw_only=True)
class Project:
    """Options of `stylegan project`."""

    paths: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE...", help="Pictures, and folders or zips of them."),
    ]
    network: Network
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder to write to.")]
    space: Annotated[
        Space, tyro.conf.arg(help="One w for all layers, as the paper has it, or one for each.")
    ] = "w"
    steps: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Steps of Adam; left out: 1000.")
    ] = None
    learning_rate: Annotated[
        float | None, tyro.conf.arg(help="Its largest value; left out: 0.1.")
    ] = None
    pixel_weight: Annotated[
        float | None,
        tyro.conf.arg(help="Weight of squared errors of pixels; left out: 0, in w+ 1."),
    ] = None
    noise_maps: Annotated[
        bool, tyro.conf.arg(help="Look for noise maps, too; else the stored ones stay.")
    ] = True
    perceptual: PerceptualOption = "lpips"
    weights_dir: WeightsDir = None
    class_index: Class = None
    tune: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="Then tune a copy of the network to each picture: OUT/NAME/tuned."),
    ] = False
    video: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="Write OUT/NAME/video.mp4 of the way to the result."),
    ] = False
    batch: Annotated[
        int | None,
        tyro.conf.arg(metavar="N", help="Pictures at once; left out: as many as suit their size."),
    ] = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Project what is not projected yet."""
        config = self._config()
        if self.batch is not None:
            check_batch(self.batch)
        if self.out.is_file():
            raise ConfigError(
                f"--out {self.out} is a file", expected="a folder", fix="choose another name"
            )
        if self.video:
            check_video(self.out / "video.mp4", VIDEO_FPS)
        path = weights_path(self.network)
        generator = load_generator(path, self.device)
        label = label_of(self.class_index, generator)
        side = resolution_at(generator.img_resolution, generator.lod)
        if config.space == "w+" and generator.num_ws == 1:
            raise ConfigError(
                f"--space w+ of {self.network}",
                expected="w: this network has one style input",
                fix="leave --space out",
            )
        targets = read_targets(self.paths, side=side, num_channels=generator.img_channels)
        device = next(generator.parameters()).device
        distance = load_perceptual(
            self.perceptual, path, weights_dir=self.weights_dir, device=device
        )
        setting = {
            "network": origin_of(path),
            "class": self.class_index,
            "options": asdict(config),
            "distance": {
                "name": distance.name,
                "weights": distance.weights,
                "weights_sha256": distance.weights_sha256,
            },
            "seed": self.seed,
        }
        jobs = [_Job(target, self.out / target.name, setting) for target in targets]
        waiting = [job for job in jobs if not job.is_done()]
        work = _Work(
            generator=generator,
            distance=distance,
            statistics=style_statistics(generator, c=label),
            config=config,
            seed=self.seed,
            keeps_frames=self.video,
        )
        size = self.batch or max(1, min(8, 512 // side))
        with progress() as bar:
            for batch in _batches(waiting, size):
                work.project(batch, bar)
        for job in jobs:
            if self.video and not job.folder.joinpath("video.mp4").exists():
                job.write_video()
            if self.tune:
                _tune(job, generator, distance, label=label, seed=self.seed)
            console().print(job.line(), markup=False)
        return 0

    def _config(self) -> ProjectionConfig:
        changes: dict[str, Any] = {
            "num_steps": self.steps,
            "learning_rate": self.learning_rate,
            "pixel_weight": self.pixel_weight,
            "optimizes_noise": self.noise_maps,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(DEFAULTS[self.space], **given)


class _Job:
    """One picture and the folder of what is found of it."""

    def __init__(self, target: Target, folder: Path, setting: dict[str, Any]) -> None:
        self.target = target
        self.folder = folder
        self.setting = {**setting, "image": {"sha256": target.sha256}}
        self.state = self._read_state()
        self.seconds = 0.0

    @property
    def step(self) -> int:
        """Steps that are done."""
        return 0 if self.state is None else int(self.state["step"])

    def is_done(self) -> bool:
        """Tell whether the picture is projected; refuse a folder of something else."""
        try:
            record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except ValueError:
            record = {}
        self._check_same(record)
        return True

    def save_state(self, state: dict[str, Tensor], seconds: float) -> None:
        """Keep what a step changes, so that the same line can go on."""
        metadata = {"setting": json.dumps(self.setting), "seconds": str(self.seconds + seconds)}
        tensors = {key: value.contiguous() for key, value in state.items()}
        write_atomic(self.folder / _STATE, to_bytes(tensors, metadata=metadata))

    def keep_picture(self, step: int, picture: Tensor) -> None:
        """Keep a picture on the way."""
        images.write(picture, self.folder / "steps" / f"step{step:05d}.png")

    def finish(self, found: Projection, *, seconds: float, mean_distance: float, name: str) -> None:
        """Write all that was found; the record comes last."""
        folder = self.folder
        images.write(self.target.image, folder / "target.png")
        images.write(found.image, folder / "projected.png")
        write_latents(folder / "projected_w.npz", found.ws, noise=found.noise)
        num_steps = self.setting["options"]["num_steps"]
        shown = [self.target.image]
        for step in _strip_steps(num_steps):
            shown.append(self._picture(step))
        strip = torch.stack([*shown, found.image])
        images.write(images.grid(strip, columns=len(strip), padding=2), folder / "strip.png")
        share = found.distance / mean_distance if mean_distance > 0 else 0.0
        record = {
            **self.setting,
            "image": {"path": self.target.path, **self.setting["image"]},
            "result": {
                name: found.distance,
                "share_of_mean_image": share,
                "psnr": found.psnr if found.psnr < float("inf") else None,
                "seconds": self.seconds + seconds,
            },
            "versions": {"stylegan": stylegan.__version__, "torch": torch.__version__},
            "date": time.strftime("%Y-%m-%d"),
        }
        write_atomic(folder / _RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
        (folder / _STATE).unlink(missing_ok=True)
        if share > UNLIKE:
            logger.warning(
                "%s looks unlike what this network makes: %.0f %% of the mean image's distance is "
                "left",
                self.target.path,
                100 * share,
            )

    def write_video(self) -> None:
        """Write the pictures that were kept as a video."""
        paths = sorted((self.folder / "steps").glob("step*.png"))
        frames = [torch.cat([self.target.image, images.read(path)], dim=2) for path in paths]
        if not frames:
            logger.warning("%s was projected without --video: none is written", self.folder)
            return
        write_video(
            frames,
            self.folder / "video.mp4",
            fps=VIDEO_FPS,
            scale=max(1, 256 // self.target.image.shape[-1]),
        )

    def line(self) -> str:
        """Say what was found."""
        record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        name, value = next(iter(record["result"].items()))
        psnr = record["result"]["psnr"]
        shown = "equal pixels" if psnr is None else f"PSNR {psnr:.1f} dB"
        return f"{self.folder}: {name} {value:.4f}, {shown}"

    def _picture(self, step: int) -> Tensor:
        return images.read(self.folder / "steps" / f"step{step:05d}.png")

    def _read_state(self) -> dict[str, Tensor] | None:
        path = self.folder / _STATE
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                setting = json.loads(metadata["setting"])
                self.seconds = float(metadata["seconds"])
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({str(error)[:80]})",
                expected="the state of a projection",
                fix="remove it to start this picture again",
            ) from error
        self._check_same(setting)
        return state

    def _check_same(self, written: dict[str, Any]) -> None:
        """Raise CheckpointError if a folder is of another picture, network or option."""
        ours = json.loads(json.dumps(self.setting))
        changed = [
            name
            for name, value in ours.items()
            if _facts(name, written.get(name)) != _facts(name, value)
        ]
        if changed:
            raise CheckpointError(
                f"{self.folder} holds a projection with another {', '.join(changed)}",
                expected="the picture, network and options that it was begun with",
                fix="repeat them, or choose another --out",
            )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all pictures are projected with."""

    generator: AbstractGenerator
    distance: AbstractDistance
    statistics: StyleStatistics
    config: ProjectionConfig
    seed: int
    keeps_frames: bool

    def project(self, jobs: Sequence[_Job], bar: Progress) -> None:
        """Project pictures that have gone equally far, side by side."""
        projector = Projector(
            self.generator,
            torch.stack([job.target.image for job in jobs]),
            distance=self.distance,
            statistics=self.statistics,
            config=self.config,
            seed=self.seed,
        )
        mean_distances = [each.distance for each in projector.result()]
        if states := [job.state for job in jobs if job.state is not None]:
            projector.load_state_dict(join_states(states))
        num_steps = self.config.num_steps
        kept = set(_strip_steps(num_steps))
        if self.keeps_frames:
            kept |= set(_frame_steps(num_steps))
        name = jobs[0].target.name + (f" and {len(jobs) - 1} more" if len(jobs) > 1 else "")
        task = bar.add_task(name, total=num_steps, completed=projector.step)
        begin = saved = time.monotonic()
        try:
            while projector.step < num_steps:
                projector.advance()
                if projector.step in kept:
                    for job, picture in zip(jobs, projector.images(), strict=True):
                        job.keep_picture(projector.step, picture)
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(projector, jobs, time.monotonic() - begin)
                    saved = time.monotonic()
                _show(bar, task, name, projector)
        except BaseException:  # Ctrl-C among them
            if 0 < projector.step < num_steps:
                _save(projector, jobs, time.monotonic() - begin)
            raise
        seconds = (time.monotonic() - begin) / len(jobs)
        for job, found, mean in zip(jobs, projector.result(), mean_distances, strict=True):
            job.finish(found, seconds=seconds, mean_distance=mean, name=self.distance.name)


def _save(projector: Projector, jobs: Sequence[_Job], seconds: float) -> None:
    for job, state in zip(jobs, split_state(projector.state_dict()), strict=True):
        job.save_state(state, seconds / len(jobs))


def _show(bar: Progress, task: TaskID, name: str, projector: Projector) -> None:
    mean = projector.distances.mean().item()
    bar.update(
        task,
        completed=projector.step,
        description=f"{name}: {projector.distance.name} {mean:.4f}",
    )


def _batches(jobs: Sequence[_Job], size: int) -> Iterator[list[_Job]]:
    """Yield pictures that have gone equally far, `size` at a time."""
    steps = sorted({job.step for job in jobs}, reverse=True)
    for step in steps:
        equal = [job for job in jobs if job.step == step]
        for start in range(0, len(equal), size):
            yield equal[start : start + size]


def _strip_steps(num_steps: int) -> list[int]:
    """Return the steps after which a picture is shown; the last one shows the result."""
    return sorted({max(1, num_steps * part // NUM_STRIP) for part in range(1, NUM_STRIP)})


def _frame_steps(num_steps: int) -> list[int]:
    stride = max(1, num_steps // NUM_FRAMES)
    return sorted({*range(stride, num_steps + 1, stride), num_steps})


def _facts(name: str, value: Any) -> Any:
    """Leave out of a setting what may change: where the network and the picture lie."""
    if name in ("network", "image") and isinstance(value, dict):
        return value.get("sha256")
    return value


def _tune(
    job: _Job,
    generator: AbstractGenerator,
    distance: AbstractDistance,
    *,
    label: Tensor | None,
    seed: int,
) -> None:
    """Tune a copy of the network to a picture, unless that is done."""
    folder = job.folder / "tuned"
    if io.is_native(folder):
        return
    saved = read_latents(job.folder / "projected_w.npz", generator)
    with progress() as bar:
        config = TuneConfig()
        task = bar.add_task(f"{job.target.name}: tuning", total=config.num_steps)
        tuned = tune(
            generator,
            saved.ws,
            target=job.target.image,
            noise=saved.noise,
            distance=distance,
            config=config,
            c=label,
            seed=seed,
            on_step=lambda: bar.advance(task),
        )
    images.write(tuned.image, job.folder / "tuned.png")
    io.save(
        Networks(generator_ema=tuned.generator),
        folder,
        metadata={
            "tuned": {"to": job.target.path, "psnr": tuned.psnr, "of": job.setting["network"]}
        },
    )
    console().print(f"{folder}: PSNR {tuned.psnr:.1f} dB", markup=False)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan project` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command = tyro.cli(Project, prog="stylegan project", description=_PROJECT, args=arguments)
    return command.run()
