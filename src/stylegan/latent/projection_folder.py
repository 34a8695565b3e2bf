"""Projections in folders, one for each image, that can be interrupted and resumed."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

import stylegan
from stylegan import images
from stylegan.captions import Captions
from stylegan.errors import CheckpointError, ConfigError
from stylegan.files import write_atomic
from stylegan.latent.project import (
    Projection,
    ProjectionConfig,
    Projector,
    join_states,
    split_state,
)
from stylegan.latent.saved import PROJECTION, SavedLatents, write_latents
from stylegan.latent.statistics import StyleStatistics, style_statistics
from stylegan.latent.targets import Target
from stylegan.latent.video import write_video
from stylegan.models.base import AbstractGenerator
from stylegan.perceptual.detector import AbstractDistance
from stylegan.progress import Progress

logger = logging.getLogger(__name__)

SAVE_SECONDS = 30  # between saved states
NUM_INTERMEDIATE = 5  # images of strip.png after the target, as in the official projector
NUM_FRAMES = 100  # of a video, at most
VIDEO_FPS = 25
UNLIKE_FRACTION = 0.4  # of the mean image's distance; see docs/project.md
_STATE = "state.safetensors"
_RECORD = "project.json"

Item = TypeVar("Item")


class ProjectionFolder:
    """The folder of one image's projection.

    Args:
        target: the image.
        folder: where its files are.
        setting: everything else that the projection depends on; JSON.

    Raises:
        CheckpointError: if the folder holds the state of another projection.
    """

    def __init__(self, target: Target, folder: Path, setting: dict[str, Any]) -> None:
        self.target = target
        self.folder = folder
        self.setting = {**setting, "image": {"sha256": target.sha256}}
        self.seconds = 0.0
        self.state = self._read_state()

    @property
    def step(self) -> int:
        """Steps of the saved state."""
        return 0 if self.state is None else int(self.state["step"])

    def is_done(self) -> bool:
        """Return whether the projection is finished.

        Raises:
            CheckpointError: if the folder holds another projection.
        """
        try:
            record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except ValueError:
            record = {}
        self._check_same(record)
        return True

    def save_state(self, state: dict[str, Tensor], seconds: float) -> None:
        """Write the optimizer's state, from which the projection can be resumed."""
        metadata = {"setting": json.dumps(self.setting), "seconds": str(self.seconds + seconds)}
        tensors = {key: value.contiguous() for key, value in state.items()}
        write_atomic(self.folder / _STATE, to_bytes(tensors, metadata=metadata))

    def write_intermediate(self, step: int, image: Tensor) -> None:
        """Write the image of an intermediate step."""
        images.write(image, self._intermediate(step))

    def finish(
        self, projection: Projection, *, seconds: float, mean_distance: float, name: str
    ) -> None:
        """Write the result. The record comes last, and marks the projection as finished.

        Args:
            projection: the result.
            seconds: time since the state was loaded.
            mean_distance: distance between the target and the image of the mean w.
            name: of the distance.
        """
        folder = self.folder
        images.write(self.target.picture, folder / "target.png")
        images.write(projection.image, folder / "projected.png")
        write_latents(folder / PROJECTION, projection.ws, noise=projection.noise)
        self.write_strip()
        fraction = projection.distance / mean_distance if mean_distance > 0 else 0.0
        record = {
            **self.setting,
            "image": {"path": self.target.path, **self.setting["image"]},
            "result": {
                name: projection.distance,
                "share_of_mean_image": fraction,
                "psnr": projection.psnr if projection.psnr < float("inf") else None,
                "seconds": self.seconds + seconds,
            },
            "versions": {"stylegan": stylegan.__version__, "torch": torch.__version__},
            "date": time.strftime("%Y-%m-%d"),
        }
        write_atomic(folder / _RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
        (folder / _STATE).unlink(missing_ok=True)

    def write_strip(self, *, captions: bool = False, scale: int | None = None) -> None:
        """Write the target, intermediate images and the result as strip.png.

        Args:
            captions: write the image's name above the target, and the step above the others.
            scale: as of `images.grid`.
        """
        num_steps = self.setting["options"]["num_steps"]
        steps = [step for step in _strip_steps(num_steps) if self._intermediate(step).exists()]
        paths = [*map(self._intermediate, steps), self.folder / "projected.png"]
        strip = torch.stack([self.target.picture, *map(images.read, paths)])
        titles = [self.target.name, *(f"step {step}" for step in (*steps, num_steps))]
        grid = images.grid(
            strip,
            columns=len(strip),
            padding=2,
            captions=Captions(columns=titles) if captions else None,
            scale=scale,
        )
        images.write_grid(grid, self.folder / "strip.png")

    def warn_if_unlike(self) -> None:
        """Warn if the target of a finished projection looks unlike the network's images."""
        fraction = self.result["share_of_mean_image"]
        if fraction > UNLIKE_FRACTION:
            logger.warning(
                "%s looks unlike the network's images: the distance after projection is %.0f %% of "
                "the mean image's",
                self.target.path,
                100 * fraction,
            )

    def write_video(self) -> None:
        """Write the intermediate images beside the target as video.mp4."""
        paths = sorted((self.folder / "steps").glob("step*.png"))
        if not paths:
            logger.warning("%s was projected without --video, so it has no frames", self.folder)
            return
        pairs = (torch.cat([self.target.picture, images.read(path)], dim=2) for path in paths)
        write_video(
            (images.over_color(pair) if pair.shape[0] == 4 else pair for pair in pairs),
            self.folder / "video.mp4",
            fps=VIDEO_FPS,
            scale=max(1, 256 // self.target.image.shape[-1]),
        )

    @cached_property
    def result(self) -> dict[str, Any]:
        """The record of a finished projection: the distance by its name, PSNR in dB, and more."""
        record = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        result: dict[str, Any] = record["result"]
        return result

    @property
    def distance(self) -> float:
        """The perceptual distance of a finished projection."""
        return float(self.result[self.setting["distance"]["name"]])

    def _intermediate(self, step: int) -> Path:
        return self.folder / "steps" / f"step{step:05d}.png"

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
                f"{path} is not a readable state of a projection ({str(error)[:80]})",
                fix="remove it to start this image again",
            ) from error
        self._check_same(setting)
        return state

    def _check_same(self, written: dict[str, Any]) -> None:
        """Raise CheckpointError if the folder is of another image, network or option."""
        setting = json.loads(json.dumps(self.setting))
        changed = [
            name
            for name, value in setting.items()
            if identity(name, written.get(name)) != identity(name, value)
        ]
        if changed:
            raise CheckpointError(
                f"{self.folder} holds a projection that differs in {', '.join(changed)}",
                fix="repeat the options that it was started with, or choose another --out",
            )


class BatchProjector:
    """Projects any number of images into a network, in batches.

    Args:
        generator: in eval mode, on its device.
        distance: on the same device.
        config: options of the algorithm.
        label: [c_dim]; None for a generator without labels.
        seed: seed of all random numbers.
        setting: JSON that identifies the network and the class, for the record.
        initial: latents to start from, for all images or one for each; None for the mean of w.

    Raises:
        ConfigError: if the network has a single style input, and the space is w+.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        distance: AbstractDistance,
        *,
        config: ProjectionConfig,
        label: Tensor | None,
        seed: int,
        setting: dict[str, Any],
        initial: SavedLatents | None = None,
    ) -> None:
        if config.space == "w+" and generator.num_ws == 1:
            raise ConfigError("space w+ needs more than one style input, which this network has")
        self.generator = generator
        self.distance = distance
        self.label = label
        self.size = generator.current_size
        self.setting = {
            **setting,
            "options": asdict(config),
            "distance": {
                "name": distance.name,
                "weights": distance.weights,
                "weights_sha256": distance.weights_sha256,
            },
            "seed": seed,
            "initial": None if initial is None else {"sha256": _sha256(initial)},
        }
        self._initial = initial
        self._config = config
        self._seed = seed

    def project(
        self,
        targets: Sequence[Target],
        *,
        batch: int | None = None,
        progress: Progress | None = None,
    ) -> list[Projection]:
        """Project images without writing files.

        Args:
            targets: the images.
            batch: images at once; None for a number that suits their size.
            progress: called after each step.
        """
        total = len(targets) * self._config.num_steps
        result: list[Projection] = []
        initial = self._initial_of(targets)
        for group in _split(targets, self._batch(batch)):
            projector = self._projector(group, initial)
            for _ in range(self._config.num_steps):
                projector.advance()
                if progress is not None:
                    done = len(result) * self._config.num_steps + len(group) * projector.step
                    progress("projection steps", done, total)
            result += projector.result()
        return result

    def project_to_folders(
        self,
        targets: Sequence[Target],
        folder: Path,
        *,
        batch: int | None = None,
        keeps_frames: bool = False,
        progress: Progress | None = None,
    ) -> list[ProjectionFolder]:
        """Project each image into a folder of its name, unless that is done.

        Args:
            targets: with different names.
            folder: the parent folder.
            batch: images at once; None for a number that suits their size.
            keeps_frames: write intermediate images for a video.
            progress: called after each step.

        Returns:
            The finished projections, one for each target.

        Raises:
            CheckpointError: if a folder holds another projection.
        """
        initial = self._initial_of(targets)
        folders = [
            ProjectionFolder(target, folder / target.name, self.setting) for target in targets
        ]
        waiting = [each for each in folders if not each.is_done()]
        done = sum(each.step for each in waiting)

        def count(num: int) -> None:
            nonlocal done
            done += num
            if progress is not None:
                progress("projection steps", done, len(waiting) * self._config.num_steps)

        # images can be projected together if their saved states have the same step
        for step in sorted({each.step for each in waiting}, reverse=True):
            at_step = [each for each in waiting if each.step == step]
            for group in _split(at_step, self._batch(batch)):
                self._project(group, count, initial, keeps_frames=keeps_frames)
        return folders

    @cached_property
    def _statistics(self) -> StyleStatistics:
        return style_statistics(self.generator, c=self.label)

    def _batch(self, batch: int | None) -> int:
        return batch or max(1, min(8, 512 // max(self.size.height, self.size.width)))

    def _initial_of(self, targets: Sequence[Target]) -> dict[str, SavedLatents]:
        """Return the initial latents of each image by its name; empty for the mean of w.

        Raises:
            ConfigError: if their number is neither 1 nor that of the images.
        """
        if self._initial is None:
            return {}
        ws = self._initial.ws
        if len(ws) not in (1, len(targets)):
            raise ConfigError(
                f"there are {len(ws)} initial latents for {len(targets)} images",
                expected="one for all images, or one for each",
            )
        rows = ws.expand(len(targets), -1, -1)
        return {
            target.name: replace(self._initial, ws=row[None])
            for target, row in zip(targets, rows, strict=True)
        }

    def _projector(
        self, targets: Sequence[Target], initial: Mapping[str, SavedLatents]
    ) -> Projector:
        each = [initial[target.name] for target in targets] if initial else []
        return Projector(
            self.generator,
            torch.stack([target.image for target in targets]),
            distance=self.distance,
            statistics=self._statistics,
            config=self._config,
            seed=self._seed,
            initial=replace(each[0], ws=torch.cat([one.ws for one in each])) if each else None,
        )

    def _project(
        self,
        folders: Sequence[ProjectionFolder],
        count: Callable[[int], None],
        initial: Mapping[str, SavedLatents],
        *,
        keeps_frames: bool,
    ) -> None:
        """Project images whose states have the same step; `count` is called with images done."""
        targets = [each.target for each in folders]
        mean_distances = [each.distance for each in self._projector(targets, {}).result()]
        projector = self._projector(targets, initial)
        if states := [each.state for each in folders if each.state is not None]:
            projector.load_state_dict(join_states(states))
        num_steps = self._config.num_steps
        kept = set(_strip_steps(num_steps))
        if keeps_frames:
            kept |= set(_frame_steps(num_steps))
        begin = saved = time.monotonic()
        try:
            while projector.step < num_steps:
                projector.advance()
                if projector.step in kept:
                    for each, image in zip(folders, projector.images(), strict=True):
                        each.write_intermediate(projector.step, image)
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(projector, folders, time.monotonic() - begin)
                    saved = time.monotonic()
                count(len(folders))
        except BaseException:  # including Ctrl-C
            if 0 < projector.step < num_steps:
                _save(projector, folders, time.monotonic() - begin)
            raise
        seconds = (time.monotonic() - begin) / len(folders)
        for each, projection, mean in zip(folders, projector.result(), mean_distances, strict=True):
            each.finish(projection, seconds=seconds, mean_distance=mean, name=self.distance.name)


def identity(name: str, value: Any) -> Any:
    """Return the part of an entry of a setting that identifies a projection.

    The paths of the network and the image may change, their checksums may not.
    """
    if name in ("network", "image", "initial") and isinstance(value, dict):
        return value.get("sha256")
    return value


def _sha256(latents: SavedLatents) -> str:
    """Return a checksum of latents and their noise maps."""
    tensors = {"w": latents.ws, **latents.noise}
    return hashlib.sha256(to_bytes({k: v.contiguous() for k, v in tensors.items()})).hexdigest()


def _save(projector: Projector, folders: Sequence[ProjectionFolder], seconds: float) -> None:
    for each, state in zip(folders, split_state(projector.state_dict()), strict=True):
        each.save_state(state, seconds / len(folders))


def _split(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _strip_steps(num_steps: int) -> list[int]:
    """Return the steps of strip.png before the last, whose image is the result."""
    steps = (num_steps * index // NUM_INTERMEDIATE for index in range(1, NUM_INTERMEDIATE))
    return sorted({max(1, step) for step in steps})


def _frame_steps(num_steps: int) -> list[int]:
    stride = max(1, num_steps // NUM_FRAMES)
    return sorted({*range(stride, num_steps + 1, stride), num_steps})
