"""Fit attribute classifiers, test them on held-out images, and save them.

An interrupted training continues from its checkpoint.
"""

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

from stylegan.classifiers.attributes import Attribute, area_under_curve, split
from stylegan.data.dataset import ImageDataset
from stylegan.data.readers import map_in_order, num_threads
from stylegan.data.sampler import InfiniteSampler
from stylegan.errors import CheckpointError, StyleganError, WeightsError, check_positive
from stylegan.image_size import ImageSize, Resolution
from stylegan.models import io
from stylegan.models.base import AbstractDiscriminator, Networks
from stylegan.models.registry import build_discriminator, configs_for
from stylegan.notebook import TextResult, text_table
from stylegan.progress import Progress
from stylegan.rng import generator_for
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
CHECKPOINT_INTERVAL_S = 300.0
REPORT_NIMG = 256
_TEST_BATCH = 64
_CACHE_BYTES = 4 * 10**9


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Options that determine a classifier's weights, together with the images.

    Source: Karras et al. 2019 (StyleGAN), section 4.2: the discriminator's architecture at 256x256,
    trained with Adam. Learning rate, batch and length are our choices.

    Attributes:
        resolution: side of the images in pixels, or "HEIGHTxWIDTH".
        kimg: length of the training, in thousands of images shown.
        batch: images per step.
        lr: Adam's learning rate; its betas are 0.9 and 0.999.
        mirror: show each image flipped as well.
        channel_base: a block at resolution r has `channel_base / r` channels, ...
        channel_max: ... at most this number.
        seed: of everything random, including the choice of held-out images.
    """

    resolution: Resolution
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
class TestResult:
    """A finished classifier and its accuracy on held-out images.

    Attributes:
        name: of the attribute.
        index: of the attribute.
        folder: the native folder.
        accuracy: fraction of held-out images whose logit has the right sign.
        auc: area under the ROC curve on held-out images.
        num_with: images of the set that have the attribute.
        num_images: images of the set.
        num_held_out: images that were tested, none of which was trained on.
    """

    __test__ = False  # not a class of tests, in spite of its name

    name: str
    index: int
    folder: Path
    accuracy: float
    auc: float
    num_with: int
    num_images: int
    num_held_out: int


@dataclass(frozen=True, kw_only=True)
class FitProgress:
    """Progress of the training of one attribute.

    Attributes:
        attribute: which one.
        nimg: images shown.
        total_nimg: images shown at the end.
        loss: mean logistic loss since the last report; NaN before the first step.
        images_per_second: during the last seconds.
    """

    attribute: Attribute
    nimg: int
    total_nimg: int
    loss: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class ClassifiersOutcome(TextResult):
    """How a call of `train_classifiers` ended.

    Attributes:
        out: the folder of the classifiers' folders.
        num_attributes: number of attributes that were requested.
        results: of the finished classifiers among them, including those finished before.
        signal: the signal that ended the training early, such as SIGTERM; else None.
    """

    out: Path
    num_attributes: int
    results: tuple[TestResult, ...]
    signal: Signals | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all classifiers are finished."""
        return len(self.results) == self.num_attributes

    def __str__(self) -> str:
        """Return a table of the finished classifiers, and how the training ended."""
        text = ""
        if self.results:
            rows = [
                (
                    f"{result.index}",
                    result.name,
                    f"{100 * result.num_with / result.num_images:.1f} %",
                    f"{result.num_held_out:,}",
                    f"{100 * result.accuracy:.2f} %",
                    f"{result.auc:.4f}",
                )
                for result in self.results
            ]
            header = ("", "attribute", "have it", "held out", "accuracy", "AUC")
            text = text_table(header, rows, left=("", "attribute")) + "\n"
        if self.is_complete:
            return f"{text}{self.out}: {self.num_attributes} classifiers, complete"
        why = "time limit reached" if self.signal is None else f"stopped by {self.signal.name}"
        return (
            f"{text}{self.out}: {len(self.results)} of {self.num_attributes} classifiers, {why}, "
            "saved; run the same command again to continue"
        )


def train_classifiers(
    attributes: Sequence[Attribute],
    dataset: ImageDataset,
    out: str | Path,
    config: ClassifierConfig,
    *,
    device: torch.device | str = "cpu",
    observe: Callable[[FitProgress], None] | None = None,
    max_minutes: float | None = None,
) -> ClassifiersOutcome:
    """Train one classifier per attribute, one after the other, each in a folder of its own.

    Finished classifiers are kept, and an interrupted training continues from its checkpoint
    exactly. Several processes may share `out` with different attributes. Images with and without
    the attribute are shown as often as they occur in the set, as in the original.

    Args:
        attributes: from `find_attributes`.
        dataset: the images, at `config.resolution` or larger, mirrored if `config.mirror`.
        out: the folder of the classifiers' folders.
        config: the options.
        device: where to compute. On the CPU equal arguments give equal weights.
        observe: called every few hundred images.
        max_minutes: save and return after this time; None for no limit.

    Raises:
        ConfigError: if the network cannot be built.
        CheckpointError: if `out` holds something else in place of a classifier, or one of other
            options or images, or another process trains the same attribute.
        StyleganError: if the loss is no longer finite.
    """
    started_s = time.monotonic()
    out = Path(out)
    if dataset.is_mirrored != config.mirror:
        raise ValueError(f"dataset and config differ in mirror, which is {config.mirror} in config")
    trainings = [_Training(attribute, dataset, out, config) for attribute in attributes]
    for training in trainings:  # all of them first, as each may take hours
        training.check()
    logger.info(
        "%d attributes of %d images at %s, %g kimg each, on %s",
        len(attributes),
        len(dataset.image_names),
        ImageSize.of(config.resolution),
        config.kimg,
        torch.device(device).type,
    )
    dataset.preload(_CACHE_BYTES)
    deadline_s = math.inf if max_minutes is None else started_s + 60 * max_minutes
    results = []
    with SignalWatch() as signals:

        def is_over() -> bool:
            return signals.received is not None or time.monotonic() >= deadline_s

        for training in trainings:
            result = training.read_result()
            if result is None:
                with lock_run_folder(training.unfinished):
                    # another process may have finished it meanwhile
                    result = training.read_result() or training.fit(
                        torch.device(device), observe, is_over
                    )
            if result is None:
                break
            training.remove_checkpoints()
            results.append(result)
    is_complete = len(results) == len(trainings)
    return ClassifiersOutcome(
        out=out,
        num_attributes=len(trainings),
        results=tuple(results),
        signal=None if is_complete else signals.received,
    )


def report_to(progress: Progress, attributes: Sequence[Attribute]) -> Callable[[FitProgress], None]:
    """Return an observer that reports the training of all attributes as one kind of work."""
    positions = {attribute.index: place for place, attribute in enumerate(attributes)}

    def observe(fit: FitProgress) -> None:
        done = positions[fit.attribute.index] * fit.total_nimg + fit.nimg
        loss = "" if math.isnan(fit.loss) else f", loss {fit.loss:.3f}"
        progress(f"images | {fit.attribute.slug}{loss}", done, len(attributes) * fit.total_nimg)

    return observe


class _Training:
    """The training of one attribute, and its folders."""

    def __init__(
        self, attribute: Attribute, dataset: ImageDataset, out: Path, config: ClassifierConfig
    ) -> None:
        self.attribute = attribute
        self.dataset = dataset
        self.config = config
        self.folder = out / attribute.slug
        self.unfinished = out / UNFINISHED / attribute.slug
        self.total_nimg = round(config.kimg * 1000)
        # must agree with those of a checkpoint or a finished classifier
        self.made_with: dict[str, Any] = {
            "attribute": attribute.name,
            "data": dataset.fingerprint,
            **asdict(config),
        }
        self.build(meta=True)  # raises if the sizes are not possible

    def check(self) -> None:
        """Raise CheckpointError if the folder holds anything but this classifier."""
        out = self.folder.parent
        if out.exists() and not out.is_dir():
            raise CheckpointError(f"{out} is a file; choose another --out")
        others = sorted(out.glob(f"{self.attribute.slug.partition('-')[0]}-*"))
        if others := [path for path in others if path.name != self.folder.name]:
            raise CheckpointError(
                f"{others[0]} has the index of {self.folder.name}, but another name; give the "
                "same --names as before, or choose another --out"
            )
        if self.folder.exists() and not io.is_native(self.folder):
            raise CheckpointError(
                f"{self.folder} is not a classifier; remove it, or choose another --out"
            )
        self.read_result()
        self.read_checkpoint()

    def read_result(self) -> TestResult | None:
        """Return the result of the finished classifier, or None if there is none."""
        if not self.folder.exists():
            return None
        try:
            metadata = io.read_metadata(self.folder)
        except WeightsError as error:
            raise CheckpointError(str(error)) from error
        self.check_made_with(metadata.get("made_with"), self.folder)
        match metadata:
            case {
                "kind": "classifier",
                "accuracy": float(accuracy),
                "auc": float(auc),
                "held_out": int(num_held_out),
            }:
                return self.result(accuracy, auc, num_held_out)
        raise CheckpointError(
            f"{self.folder} does not state the accuracy of the classifier; remove it, or choose "
            "another --out"
        )

    def result(self, accuracy: float, auc: float, num_held_out: int) -> TestResult:
        """Return the result of a test."""
        return TestResult(
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
        """Return the state of an interrupted training, or None."""
        try:
            saved = load_newest_checkpoint(self.unfinished)
        except CheckpointError as error:
            raise CheckpointError(
                error.message,
                fix=f"remove {self.unfinished} to train this attribute from the start",
            ) from error
        if saved is not None:
            self.check_made_with(saved.get("made_with"), self.unfinished)
        return saved

    def check_made_with(self, saved: object, path: Path) -> None:
        """Raise CheckpointError if a file was made with other options or images."""
        known = saved if isinstance(saved, dict) else {}
        changed = [
            f"{key}: {known.get(key)} -> {value}"
            for key, value in self.made_with.items()
            if known.get(key) != value
        ]
        if changed:
            raise CheckpointError(
                f"{path} was made with other options or images ({'; '.join(changed)}); repeat "
                "them, or choose another --out"
            )

    def build(self, *, meta: bool = False) -> AbstractDiscriminator:
        """Build the network with initial weights that depend on the seed and the attribute only.

        It has no minibatch standard deviation, as whether an image has an attribute does not depend
        on the other images of a batch.
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
        observe: Callable[[FitProgress], None] | None,
        is_over: Callable[[], bool],
    ) -> TestResult | None:
        """Train to the end, test and save; or, if `is_over`, save a checkpoint and return None."""
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
                    f"the loss of {self.attribute.name} is not finite at {nimg} images; lower "
                    "--lr, with a new --out"
                )
            losses.clear()
            if observe is not None:
                observe(
                    FitProgress(
                        attribute=self.attribute,
                        nimg=nimg,
                        total_nimg=self.total_nimg,
                        loss=loss,
                        images_per_second=clock.speed(nimg),
                    )
                )

        def save() -> None:
            report()  # raises if the training has diverged, so that no checkpoint is written
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
                if time.monotonic() - saved_s > CHECKPOINT_INTERVAL_S:
                    save()
                    saved_s = time.monotonic()
        finally:
            batches.close()  # type: ignore[attr-defined]  # ends the threads
        return self.test_and_save(network.eval(), held_out, device)

    def batches(
        self, train: list[int], start: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [N, C, R, R] in [-1, 1], and [N] with 1 for those that have the attribute.

        Args:
            train: indices of the images to train on, without mirrored ones.
            start: images shown before.
            device: of the batches.
        """
        num_images = len(self.attribute.has)
        indices = train
        if self.config.mirror:
            indices = train + [index + num_images for index in train]
        sampler = InfiniteSampler(len(indices), seed=self.config.seed, start=start)

        def chunks() -> Iterator[list[int]]:
            while True:
                yield [indices[place] for place in islice(sampler, self.config.batch)]

        def read(chunk: list[int]) -> tuple[Tensor, Tensor]:
            images = self.dataset.gather(chunk, resolution=self.config.resolution)
            return images, self.attribute.has[torch.tensor(chunk) % num_images]

        for images, has in map_in_order(read, chunks(), workers=num_threads(None)):
            yield self.dataset.pixels.to_float(images.to(device)), has.to(device, torch.float32)

    @torch.no_grad()
    def test_and_save(
        self, network: AbstractDiscriminator, held_out: list[int], device: torch.device
    ) -> TestResult:
        """Test a network on held-out images, and write the native folder."""
        logits = []
        for first in range(0, len(held_out), _TEST_BATCH):
            chunk = held_out[first : first + _TEST_BATCH]
            images = self.dataset.gather(chunk, resolution=self.config.resolution)
            logits.append(network(self.dataset.pixels.to_float(images.to(device))).squeeze(1).cpu())
        scores, has = torch.cat(logits), self.attribute.has[held_out]
        accuracy = ((scores > 0) == has).double().mean().item()
        result = self.result(accuracy, area_under_curve(scores, has), len(held_out))
        io.save(
            Networks(discriminator=network),
            self.folder,
            metadata={
                "kind": KIND,
                "attribute": result.name,
                "index": result.index,
                "accuracy": result.accuracy,
                "auc": result.auc,
                "held_out": result.num_held_out,
                "with": result.num_with,
                "images": result.num_images,
                "made_with": self.made_with,
            },
        )
        logger.info(
            "%s: accuracy %.2f %%, AUC %.4f on %d held-out images",
            self.folder.name,
            100 * result.accuracy,
            result.auc,
            result.num_held_out,
        )
        return result

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of a finished training."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
        try:
            self.unfinished.parent.rmdir()
        except OSError:  # it holds another attribute's checkpoints, or does not exist
            return
