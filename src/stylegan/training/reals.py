"""Opens the real images of a run, and checks that they fit its networks."""

import logging

import torch

from stylegan import distributed
from stylegan.data.dataset import ImageDataset
from stylegan.data.loader import Batch, Stream
from stylegan.data.shard_stream import ShardStream
from stylegan.data.shards import ShardSet, is_shards
from stylegan.errors import ConfigError, DataError
from stylegan.image_size import ImageSize, Resolution
from stylegan.microbatch import BatchSlice
from stylegan.models.registry import FAMILIES
from stylegan.training.config import RunConfig
from stylegan.training.schedule import stage_at, whole_batch

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 16  # of `first_images`; all of them in float32 on a GPU may be too many


def open_dataset(config: RunConfig) -> ImageDataset | ShardSet:
    """Open the real images that the options name."""
    if is_shards(config.data.path):
        return ShardSet(
            config.data.path, resolution=config.generator.resolution, mirror=config.data.mirror
        )
    return ImageDataset(
        config.data.path,
        resolution=config.generator.resolution,
        mirror=config.data.mirror,
        on_bad=config.data.on_bad,
        reading=config.data.reading,
    )


def hold_out(
    dataset: ImageDataset | ShardSet, config: RunConfig
) -> tuple[ImageDataset | ShardSet, ImageDataset | None]:
    """Return the images to train on, and those that are held out; None if there are none.

    Raises:
        ConfigError: if images of shards are to be held out, or no image would be left.
    """
    if config.data.holdout == 0:
        return dataset, None
    if isinstance(dataset, ShardSet):
        raise ConfigError("--holdout needs a folder or zip of images, not shards")
    return dataset.split(config.data.holdout, seed=config.seed)


def open_stream(
    dataset: ImageDataset | ShardSet, config: RunConfig, device: torch.device
) -> Stream | ShardStream:
    """Open the stream of a run's batches, of which each rank takes its shard."""
    rank, world_size = distributed.rank(), distributed.world_size()

    def slice_at(nimg: int) -> BatchSlice:
        whole = whole_batch(config, stage_at(config, nimg).batch)
        return whole.shard(rank, world_size=world_size)

    if isinstance(dataset, ShardSet):
        return ShardStream(
            dataset,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            device=device,
            workers=config.runtime.workers,
            labels=config.data.labels,
            slice_at=None if config.growth is None else slice_at,
        )
    return Stream(
        dataset,
        seed=config.seed,
        device=device,
        workers=config.runtime.workers,
        labels=config.data.labels,
    )


def first_images(
    stream: Stream | ShardStream, *, num: int, resolution: Resolution | ImageSize
) -> Batch:
    """Return the first images of a run, on the CPU, with their labels if the run has labels."""
    rows = BatchSlice.whole(min(num, _READ_AT_ONCE))
    images, labels = [], []
    for start in range(0, num, rows.batch_size):
        batch = stream.take(rows, start=start, resolution=resolution)
        images.append(batch.images.cpu())
        labels += [] if batch.labels is None else [batch.labels.cpu()]
    return Batch(images=torch.cat(images)[:num], labels=torch.cat(labels)[:num] if labels else None)


def check_dataset(dataset: ImageDataset | ShardSet, config: RunConfig) -> None:
    """Check that images and labels fit the networks, and warn about labels that are not used.

    Raises:
        ConfigError: if the dataset was opened with other options, or its labels do not fit.
        DataError: if its images have another number of channels, or an image has no label.
    """
    opened = {"resolution": dataset.resolution, "mirror": dataset.is_mirrored}
    expected = {"resolution": config.generator.resolution, "mirror": config.data.mirror}
    if opened != expected:
        raise ConfigError(f"the dataset was opened with {opened}, but the config has {expected}")
    if dataset.num_channels != config.generator.img_channels:
        raise DataError(
            f"{config.data.path} has images with {dataset.num_channels} channels, but the networks "
            f"have {config.generator.img_channels}",
            fix="convert the images",
        )
    if len(dataset) < config.batch:
        logger.warning("%d images are fewer than the batch size of %d", len(dataset), config.batch)
    if config.data.labels:
        _check_labels(dataset, config)
    elif dataset.labels is not None:
        logger.warning(
            "%s has labels, which this run does not use: --cond (data.labels) trains on them",
            config.data.path,
        )


def _check_labels(dataset: ImageDataset | ShardSet, config: RunConfig) -> None:
    table, c_dim = dataset.label_table, config.generator.c_dim
    if table is None or table.dim != c_dim:
        raise ConfigError(
            f"{config.data.path} has labels of width {dataset.label_dim}, but the networks have a "
            f"c_dim of {c_dim}"
        )
    if FAMILIES[config.family].discriminator.guesses_labels and not table.has_classes:
        raise ConfigError(
            f"{config.family} needs an integer class as the label of each image, as its "
            f"discriminator predicts classes, but {config.data.path} has vectors",
        )
