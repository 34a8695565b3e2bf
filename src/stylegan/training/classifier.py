"""Attribute classifiers for linear separability: fit, test, save, each where it was left."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.data.dataset import ImageDataset
from stylegan.data.readers import map_in_order, num_threads
from stylegan.data.sampler import InfiniteSampler
from stylegan.errors import CheckpointError, StyleganError, WeightsError, check_positive
from stylegan.images import from_uint8
from stylegan.models import io
from stylegan.models.base import AbstractDiscriminator, Networks
from stylegan.models.registry import build_discriminator, configs_for
from stylegan.rng import generator_for
from stylegan.training.attributes import Attribute, area_under_curve, split
from stylegan.training.checkpoint import (
    load_newest_checkpoint,
    lock_run_folder,
    save_checkpoint,
)
from stylegan.training.clock import Clock
from stylegan.training.signals import SignalWatch

logger = logging.getLogger(__name__)

KIND = "classifier"
UNFINISHED = "unfinished"
CHECKPOINT_S = 300.0
REPORT_NIMG = 256
_TEST_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """What a classifier's weights depend on beside the images.

    Source: Karras et al. 2019 (StyleGAN), section 4.2: the discriminator's architecture at 256x256,
    Adam; lr, batch and kimg are the defaults here.

    Attributes:
        resolution: side of the images, in pixels, a power of two from 8.
        kimg: length of the training, in thousands of images shown.
        batch: images in a step.
        lr: Adam's learning rate; its betas are 0.9 and 0.999.
        mirror: show each image flipped as well.
        channel_base: a block at resolution r has `channel_base / r` channels ...
        channel_max: ... but no more than this.
        seed: of everything random, and of the choice of the images to test on.
    """

    resolution: int
    kimg: float = 150.0
    batch: int = 8
    lr: float = 1e-3
    mirror: bool = False
    channel_base: int = 16384
    channel_max: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        check_positive("kimg", self.kimg)
        check_positive("batch", self.batch)
        check_positive("lr", self.lr)


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A finished classifier and what it is worth.

    Attributes:
        name: of the attribute.
        index: of the attribute.
        folder: the native folder.
        accuracy: share of held-out images whose logit has the right sign.
        auc: share of pairs of held-out images, one that has the attribute and one that has not,
            in which the former has the larger logit; ties count half.
        num_with: images of the set that have the attribute.
        num_images: images of the set.
        num_held_out: images it was tested on, which it has not seen.
    """

    name: str
    index: int
    folder: Path
    accuracy: float
    auc: float
    num_with: int
    num_images: int
    num_held_out: int


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Where the training of an attribute is, given to an observer.

    Attributes:
        attribute: which.
        nimg: images shown.
        total_nimg: images at the end.
        loss: mean logistic loss since the last report; NaN before the first step.
        images_per_second: over the last seconds.
    """

    attribute: Attribute
    nimg: int
    total_nimg: int
    loss: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class ClassifiersOutcome:
    """How a start of `train_classifiers` ended.

    Attributes:
        tested: finished classifiers of the attributes asked for, earlier ones included.
        is_complete: whether these are all.
        signal: SIGINT or SIGTERM if one of them ended it.
    """

    tested: tuple[Tested, ...]
    is_complete: bool
    signal: Signals | None = None


def train_classifiers(
    attributes: Sequence[Attribute],
    dataset: ImageDataset,
    out: str | Path,
    config: ClassifierConfig,
    *,
    device: torch.device | str = "cpu",
    observe: Callable[[Fitting], None] | None = None,
    max_minutes: float | None = None,
) -> ClassifiersOutcome:
    """Train a classifier for each attribute, one after the other, each in a folder of its own.

    Finished ones are left alone, and the one that was interrupted goes on from its checkpoint
    as if nothing had happened. Several processes may share `out` with different attributes.
    Positives and negatives are shown as often as they are in the set, as in the original.

    Args:
        attributes: from `find_attributes`.
        dataset: the images, at `config.resolution` or larger, mirrored if `config.mirror`.
        out: the folder of the classifiers' folders.
        config: the options.
        device: where to compute. On the CPU equal arguments give equal weights.
        observe: called every few hundred images.
        max_minutes: save and return after so many; None for no limit.

    Raises:
        ConfigError: if the network cannot be built.
        CheckpointError: if `out` holds something else in place of a classifier, or one made with
            other options or images, or another process is at the same attribute.
        StyleganError: if the loss is no longer finite.
    """
    started_s = time.monotonic()
    out = Path(out)
    if dataset.is_mirrored != config.mirror:
        raise ValueError(f"the images must be mirrored as the config says: {config.mirror}")
    jobs = [_Job(attribute, dataset, out, config) for attribute in attributes]
    for job in jobs:  # before any of them takes an hour
        job.check()
    dataset.preload(4 * 10**9)
    deadline_s = math.inf if max_minutes is None else started_s + 60 * max_minutes
    tested = []
    with SignalWatch() as signals:

        def is_over() -> bool:
            return signals.received is not None or time.monotonic() >= deadline_s

        for job in jobs:
            result = job.read()
            if result is None:
                with lock_run_folder(job.unfinished):
                    # another process may just have finished it
                    result = job.read() or job.fit(torch.device(device), observe, is_over)
            if result is None:
                break
            job.clear()
            tested.append(result)
    is_complete = len(tested) == len(jobs)
    received = None if is_complete else signals.received
    return ClassifiersOutcome(tested=tuple(tested), is_complete=is_complete, signal=received)


class _Job:
    """One attribute: its folders, what is in them, and its training."""

    def __init__(
        self, attribute: Attribute, dataset: ImageDataset, out: Path, config: ClassifierConfig
    ) -> None:
        self.attribute = attribute
        self.dataset = dataset
        self.config = config
        self.folder = out / attribute.slug
        self.unfinished = out / UNFINISHED / attribute.slug
        self.total_nimg = round(config.kimg * 1000)
        # what a checkpoint and a finished classifier must have been made with
        self.made_with: dict[str, Any] = {
            "attribute": attribute.name,
            "data": dataset.fingerprint,
            **asdict(config),
        }
        self.build(meta=True)  # refuses impossible sizes

    def check(self) -> None:
        """Refuse a folder that holds something else than this classifier."""
        out = self.folder.parent
        if out.exists() and not out.is_dir():
            raise CheckpointError(
                f"{out} is a file", expected="a folder", fix="choose another --out"
            )
        others = sorted(out.glob(f"{self.attribute.slug.partition('-')[0]}-*"))
        if strangers := [path for path in others if path.name != self.folder.name]:
            raise CheckpointError(
                f"{strangers[0]} is in the place of {self.folder.name}",
                expected="the names that the attributes had before",
                fix="repeat --names, or choose another --out",
            )
        if self.folder.exists() and not io.is_native(self.folder):
            raise CheckpointError(
                f"{self.folder} is no classifier",
                expected="a finished one, or nothing",
                fix="remove it, or choose another --out",
            )
        self.read()
        self.read_checkpoint()

    def read(self) -> Tested | None:
        """Return what is known of the finished classifier; None if there is none."""
        if not self.folder.exists():
            return None
        try:
            metadata = io.read_metadata(self.folder)
        except WeightsError as error:  # damaged since, or not ours
            raise CheckpointError(error.found, expected=error.expected, fix=error.fix) from error
        self.compare(metadata.get("made_with"), self.folder)
        match metadata:
            case {
                "kind": "classifier",
                "accuracy": float(accuracy),
                "auc": float(auc),
                "held_out": int(num_held_out),
            }:
                return self.tested(accuracy, auc, num_held_out)
        raise CheckpointError(
            f"{self.folder} does not say how good the classifier is",
            expected="the metadata of a finished classifier",
            fix="remove it, or choose another --out",
        )

    def tested(self, accuracy: float, auc: float, num_held_out: int) -> Tested:
        """Put results and counts together."""
        return Tested(
            name=self.attribute.name,
            index=self.attribute.index,
            folder=self.folder,
            accuracy=accuracy,
            auc=auc,
            num_with=int(self.attribute.has.sum()),
            num_images=len(self.attribute.has),
            num_held_out=num_held_out,
        )

    def read_checkpoint(self) -> dict[str, Any] | None:
        """Return the state that an interrupted training left, or None."""
        try:
            saved = load_newest_checkpoint(self.unfinished)
        except CheckpointError as error:
            fix = f"remove {self.unfinished}: this attribute then starts anew"
            raise CheckpointError(error.found, expected=error.expected, fix=fix) from error
        if saved is not None:
            self.compare(saved.get("made_with"), self.unfinished)
        return saved

    def compare(self, old: object, path: Path) -> None:
        """Refuse what was made with other options or images."""
        known = old if isinstance(old, dict) else {}
        changed = [
            f"{key}: {known.get(key)} -> {value}"
            for key, value in self.made_with.items()
            if known.get(key) != value
        ]
        if changed:
            raise CheckpointError(
                f"{path} was made with other options or images ({'; '.join(changed)})",
                expected="those of this line",
                fix="repeat them, or choose another --out",
            )

    def build(self, *, meta: bool = False) -> AbstractDiscriminator:
        """Make the network, freshly initialized, in an order of random numbers of its own.

        The discriminator's minibatch standard deviation is left out: whether a face smiles does
        not depend on the faces beside it.
        """
        family, _, options = configs_for(
            "stylegan-f",
            self.config.resolution,
            img_channels=self.dataset.num_channels,
            channel_base=self.config.channel_base,
            channel_max=self.config.channel_max,
            mbstd_num_channels=0,
        )
        if meta:
            with torch.device("meta"):
                return build_discriminator(family, options)
        with torch.random.fork_rng(devices=[]):
            stream = generator_for(
                f"classifier {self.attribute.index} initialization", seed=self.config.seed
            )
            torch.default_generator.manual_seed(stream.initial_seed())
            return build_discriminator(family, options)

    def fit(
        self,
        device: torch.device,
        observe: Callable[[Fitting], None] | None,
        is_over: Callable[[], bool],
    ) -> Tested | None:
        """Train to the end, test and save.

        When time is over, save a checkpoint and return None instead.
        """
        train, held_out = split(self.attribute, self.dataset.image_names, seed=self.config.seed)
        network = self.build().to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.config.lr)
        nimg = 0
        if (saved := self.read_checkpoint()) is not None:
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            nimg = saved["nimg"]
            logger.info("%s: resumed at %d images", self.attribute.name, nimg)
        batch, clock, saved_s = self.config.batch, Clock(), time.monotonic()
        losses: list[Tensor] = []

        def report() -> None:
            loss = torch.stack(losses).mean().item() if losses else math.nan
            if losses and not math.isfinite(loss):
                raise StyleganError(
                    f"the loss of {self.attribute.name} is not finite at {nimg} images",
                    expected="a number",
                    fix="lower --lr in a new --out",
                )
            losses.clear()
            if observe is not None:
                observe(
                    Fitting(
                        attribute=self.attribute,
                        nimg=nimg,
                        total_nimg=self.total_nimg,
                        loss=loss,
                        images_per_second=clock.speed(nimg),
                    )
                )

        def save() -> None:
            report()  # no checkpoint of what has diverged
            state = {
                "made_with": self.made_with,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "nimg": nimg,
            }
            save_checkpoint(self.unfinished, state, nimg=nimg, keep=2)

        report()
        batches = self.batches(train, nimg, device)
        try:
            while nimg < self.total_nimg:
                images, has = next(batches)
                loss = F.binary_cross_entropy_with_logits(network(images).squeeze(1), has)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.detach())
                nimg += batch
                if nimg >= self.total_nimg or nimg // REPORT_NIMG > (nimg - batch) // REPORT_NIMG:
                    report()
                if nimg < self.total_nimg and is_over():
                    save()
                    return None
                if time.monotonic() - saved_s > CHECKPOINT_S:
                    save()
                    saved_s = time.monotonic()
        finally:
            batches.close()  # type: ignore[attr-defined]  # ends the threads
        return self.save(network.eval(), held_out, device)

    def batches(
        self, train: list[int], start: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [N, C, R, R] in [-1, 1] and whether they have it, [N], 1 or 0."""
        num_images = len(self.attribute.has)
        shown = train
        if self.config.mirror:
            shown = train + [index + num_images for index in train]
        sampler = InfiniteSampler(len(shown), seed=self.config.seed, start=start)

        def places() -> Iterator[list[int]]:
            while True:
                yield [shown[place] for place in islice(sampler, self.config.batch)]

        def read(indices: list[int]) -> tuple[Tensor, Tensor]:
            images = self.dataset.gather(indices, resolution=self.config.resolution)
            return images, self.attribute.has[torch.tensor(indices) % num_images]

        for images, has in map_in_order(read, places(), workers=num_threads(None)):
            yield from_uint8(images.to(device)), has.to(device, torch.float32)

    @torch.no_grad()
    def save(
        self, network: AbstractDiscriminator, held_out: list[int], device: torch.device
    ) -> Tested:
        """Test a network on images that it has not seen, and write the native folder."""
        parts = [
            held_out[first : first + _TEST_BATCH] for first in range(0, len(held_out), _TEST_BATCH)
        ]
        logits = torch.cat(
            [
                network(
                    from_uint8(
                        self.dataset.gather(part, resolution=self.config.resolution).to(device)
                    )
                )
                for part in parts
            ]
        )
        logits, has = logits.squeeze(1).cpu(), self.attribute.has[held_out]
        accuracy = ((logits > 0) == has).double().mean().item()
        tested = self.tested(accuracy, area_under_curve(logits, has), len(held_out))
        io.save(
            Networks(discriminator=network),
            self.folder,
            metadata={
                "kind": KIND,
                "attribute": tested.name,
                "index": tested.index,
                "accuracy": tested.accuracy,
                "auc": tested.auc,
                "held_out": tested.num_held_out,
                "with": tested.num_with,
                "images": tested.num_images,
                "made_with": self.made_with,
            },
        )
        logger.info(
            "%s: accuracy %.2f %%, AUC %.4f on %d images held out",
            self.folder.name,
            100 * tested.accuracy,
            tested.auc,
            tested.num_held_out,
        )
        return tested

    def clear(self) -> None:
        """Remove checkpoints that are needed no more."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
        try:
            self.unfinished.parent.rmdir()
        except OSError:  # another attribute's are there, or none ever were
            return
