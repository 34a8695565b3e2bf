"""Projections in folders, one for each picture: what `project` and `attribute` share."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import torch
from rich.progress import Progress, TaskID
from safetensors.torch import save as to_bytes
from torch import Tensor

import stylegan
from stylegan import images
from stylegan.cli.options import DeviceName, progress
from stylegan.errors import CheckpointError, ConfigError
from stylegan.files import write_atomic
from stylegan.interop.load import origin_of, weights_path
from stylegan.latent.project import (
    Projection,
    ProjectionConfig,
    Projector,
    join_states,
    split_state,
)
from stylegan.latent.saved import PROJECTION, write_latents
from stylegan.latent.statistics import StyleStatistics, style_statistics
from stylegan.latent.targets import Target
from stylegan.latent.video import write_video
from stylegan.models.growth import resolution_at
from stylegan.workflows.networks import Perceptual, label_of, load_generator, load_perceptual

logger = logging.getLogger(__name__)

SAVE_SECONDS = 30  # from one saved state to the next
NUM_STRIP = 5  # pictures on the way, as the official projector shows
NUM_FRAMES = 100  # of a video, at most
VIDEO_FPS = 25
UNLIKE = 0.4  # share of the mean image's distance; see docs/project.md
_STATE = "state.safetensors"
_RECORD = "project.json"


class Job:
    """One picture and the folder of what is found of it.

    Args:
        target: the picture.
        folder: of what is found.
        setting: what else it depends on; JSON.

    Raises:
        CheckpointError: if the folder holds the state of another projection.
    """

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
        write_latents(folder / PROJECTION, found.ws, noise=found.noise)
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

    @cached_property
    def result(self) -> dict[str, Any]:
        """What a finished one found: the distance under its name, PSNR in dB, and more."""
        record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        found: dict[str, Any] = record["result"]
        return found

    @property
    def distance(self) -> float:
        """The perceptual distance of a finished one."""
        return float(self.result[self.setting["distance"]["name"]])

    def line(self) -> str:
        """Say what was found."""
        name, value = next(iter(self.result.items()))
        psnr = self.result["psnr"]
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
                f"{self.folder} holds a projection that differs in {', '.join(changed)}",
                expected="the picture, network and options that it was begun with",
                fix="repeat them, or choose another --out",
            )


class Projecting:
    """A network and all that pictures are projected with.

    Args:
        network: its source.
        device: by name.
        perceptual: which distance.
        weights_dir: a folder into which weights of feature networks were put.
        class_index: of a network with labels.
        config: how.
        seed: of all draws.

    Attributes:
        path: of the weights.
        generator: on its device.
        side: of its images, in pixels.
        label: [c_dim]; None where the network takes none.
        distance: on the same device.
        setting: what a projection depends on, apart from the picture.

    Raises:
        StyleganError: if something of this cannot be had.
    """

    def __init__(
        self,
        network: str,
        *,
        device: DeviceName,
        perceptual: Perceptual,
        weights_dir: Path | None,
        class_index: int | None,
        config: ProjectionConfig,
        seed: int,
    ) -> None:
        self.path = weights_path(network)
        self.generator = load_generator(self.path, device)
        self.label = label_of(class_index, self.generator)
        if config.space == "w+" and self.generator.num_ws == 1:
            raise ConfigError(
                f"--space w+ of {network}",
                expected="w: this network has one style input",
                fix="leave --space out",
            )
        self.side = resolution_at(self.generator.img_resolution, self.generator.lod)
        self.distance = load_perceptual(
            perceptual,
            self.path,
            weights_dir=weights_dir,
            device=next(self.generator.parameters()).device,
        )
        self._config = config
        self._seed = seed
        self.setting: dict[str, Any] = {
            "network": origin_of(self.path),
            "class": class_index,
            "options": asdict(config),
            "distance": {
                "name": self.distance.name,
                "weights": self.distance.weights,
                "weights_sha256": self.distance.weights_sha256,
            },
            "seed": seed,
        }

    @cached_property
    def statistics(self) -> StyleStatistics:
        """Statistics of the styles."""
        return style_statistics(self.generator, c=self.label)

    def project(
        self,
        targets: Sequence[Target],
        folder: Path,
        *,
        batch: int | None = None,
        keeps_frames: bool = False,
    ) -> list[Job]:
        """Project what is not projected yet, each picture into a folder of its name.

        Args:
            targets: with different names.
            folder: the folders' folder.
            batch: pictures at once; None for as many as suit their size.
            keeps_frames: keep pictures on the way for a video, too.

        Returns:
            One job for each target, all of them done.

        Raises:
            CheckpointError: if a folder holds another projection.
        """
        jobs = [Job(target, folder / target.name, self.setting) for target in targets]
        waiting = [job for job in jobs if not job.is_done()]
        with progress() as bar:
            for part in _batches(waiting, batch or max(1, min(8, 512 // self.side))):
                self._project(part, bar, keeps_frames=keeps_frames)
        return jobs

    def find(self, targets: Sequence[Target]) -> list[Projection]:
        """Project a few pictures at once, and write nothing."""
        projector = self._projector(targets)
        with progress(transient=True) as bar:
            for _ in bar.track(range(self._config.num_steps), description="projection"):
                projector.advance()
        return projector.result()

    def _projector(self, targets: Sequence[Target]) -> Projector:
        return Projector(
            self.generator,
            torch.stack([target.image for target in targets]),
            distance=self.distance,
            statistics=self.statistics,
            config=self._config,
            seed=self._seed,
        )

    def _project(self, jobs: Sequence[Job], bar: Progress, *, keeps_frames: bool) -> None:
        """Project pictures that have gone equally far, side by side."""
        projector = self._projector([job.target for job in jobs])
        mean_distances = [each.distance for each in projector.result()]
        if states := [job.state for job in jobs if job.state is not None]:
            projector.load_state_dict(join_states(states))
        num_steps = self._config.num_steps
        kept = set(_strip_steps(num_steps))
        if keeps_frames:
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


def _save(projector: Projector, jobs: Sequence[Job], seconds: float) -> None:
    for job, state in zip(jobs, split_state(projector.state_dict()), strict=True):
        job.save_state(state, seconds / len(jobs))


def _show(bar: Progress, task: TaskID, name: str, projector: Projector) -> None:
    mean = projector.distances.mean().item()
    bar.update(
        task,
        completed=projector.step,
        description=f"{name}: {projector.distance.name} {mean:.4f}",
    )


def _batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
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
