"""The real images of a run, and whether they fit its networks."""

import logging

import torch

from stylegan import distributed
from stylegan.data.dataset import ImageDataset
from stylegan.data.loader import Stream
from stylegan.data.shard_stream import ShardStream
from stylegan.data.shards import ShardSet, is_shards
from stylegan.errors import ConfigError, DataError
from stylegan.microbatch import BatchSlice
from stylegan.models.registry import FAMILIES
from stylegan.training.config import RunConfig, group_of
from stylegan.training.schedule import stage_at

logger = logging.getLogger(__name__)


def open_dataset(config: RunConfig) -> ImageDataset | ShardSet:
    """Open the real images of a config."""
    if is_shards(config.data.path):
        return ShardSet(
            config.data.path, resolution=config.generator.resolution, mirror=config.data.mirror
        )
    return ImageDataset(
        config.data.path,
        resolution=config.generator.resolution,
        mirror=config.data.mirror,
        on_bad=config.data.on_bad,
    )


def open_stream(
    dataset: ImageDataset | ShardSet, config: RunConfig, device: torch.device
) -> Stream | ShardStream:
    """Open the stream of a run's batches, of which each rank takes its shard."""
    rank, world_size = distributed.rank(), distributed.world_size()

    def slice_at(nimg: int) -> BatchSlice:
        batch = stage_at(config, nimg).batch
        whole = BatchSlice.whole(batch, group_size=group_of(config, batch))
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


def check_dataset(dataset: ImageDataset | ShardSet, config: RunConfig) -> None:
    """Check that images and labels fit the networks, and warn of what will not be used.

    Raises:
        ConfigError: if the set was opened with other options, or its labels do not fit.
        DataError: if its images have another number of channels, or an image has no label.
    """
    found = {"resolution": dataset.resolution, "mirror": dataset.is_mirrored}
    wanted = {"resolution": config.generator.resolution, "mirror": config.data.mirror}
    if found != wanted:
        raise ConfigError(
            f"images opened with {found}", expected=f"{wanted} as in the config", fix="set both"
        )
    if dataset.num_channels != config.generator.img_channels:
        raise DataError(
            f"{config.data.path} with {dataset.num_channels} channels",
            expected=f"{config.generator.img_channels} as the networks have",
            fix="convert the images, or set img_channels of both networks",
        )
    if len(dataset) < config.batch:
        logger.warning("%d images are fewer than the batch of %d", len(dataset), config.batch)
    if config.data.labels:
        _check_labels(dataset, config)
    elif dataset.labels is not None:
        logger.warning(
            "%s has labels, which this run does not use: --cond (data.labels) would train on them",
            config.data.path,
        )


def _check_labels(dataset: ImageDataset | ShardSet, config: RunConfig) -> None:
    table, wanted = dataset.label_table, config.generator.c_dim
    if table is None or table.dim != wanted:
        raise ConfigError(
            f"{config.data.path} with labels of {dataset.label_dim} numbers",
            expected=f"{wanted}, the networks' c_dim",
            fix="set c_dim of both networks, or take a set with such labels",
        )
    if FAMILIES[config.family].discriminator.guesses_labels and not table.has_classes:
        raise ConfigError(
            f"{config.data.path} with lists of numbers as labels for {config.family}",
            expected="classes, as its discriminator guesses them",
            fix="give each image an integer, or take a preset of another family",
        )
