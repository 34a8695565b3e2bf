"""Attribute classifiers, for the metric of linear separability."""

from pathlib import Path

import torch

from stylegan.classifiers.attributes import find_attributes
from stylegan.classifiers.fit import (
    ClassifierConfig,
    ClassifiersOutcome,
    report_to,
    train_classifiers,
)
from stylegan.data.dataset import ImageDataset
from stylegan.devices import DeviceName, resolve_device
from stylegan.errors import check_not_negative
from stylegan.image_size import ImageSize, Resolution, require_usable
from stylegan.progress import Progress, counter


def train_classifier(
    *,
    data: str | Path,
    out: Path,
    attributes: str | None = None,
    names: str | None = None,
    kimg: float = 150.0,
    batch: int = 8,
    lr: float = 1e-3,
    resolution: Resolution = 256,
    mirror: bool = False,
    channel_base: int = 16384,
    channel_max: int = 512,
    max_minutes: float | None = None,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> ClassifiersOutcome:
    """Train a classifier for each attribute of a labeled set, for linear separability.

    The same command continues an interrupted training; finished classifiers are kept. Each is
    written to a folder of its own. A tenth of the images is held out to test it.

    Args:
        data: a folder or zip of images with labels: classes, or lists of 0 and 1 or of -1 and 1.
        out: the folder of the classifiers' folders.
        attributes: names, indices and ranges such as 0-9, separated by commas. Default: all.
        names: names of all attributes in the order of the labels, separated by commas; or "celeba"
            for its forty. Default: those in dataset.json or prepare.json, else numbers.
        kimg: length of each training, in thousands of images shown.
        batch: images per step.
        lr: learning rate of Adam.
        resolution: side of the images in pixels, or HEIGHTxWIDTH. Larger images are reduced, those
            that are not square until their shorter side is not above a single number; if those of
            the set are smaller, their size is used.
        mirror: show each image flipped as well.
        channel_base: a block at resolution r has channel_base / r channels.
        channel_max: maximum number of channels of a block.
        max_minutes: save and stop, with exit status 0, after this time. Default: no limit.
        device: "auto" uses a CUDA device or Apple's GPU if there is one, else the CPU.
        seed: of everything random, including the choice of held-out images.
        progress: called every few hundred images.

    Returns:
        Accuracy and area under the ROC curve of each finished classifier.

    Raises:
        ConfigError: if a value is not allowed, or an attribute is unknown.
        DataError: if the images or their labels cannot be used.
        CheckpointError: if `out` holds something else, or classifiers of other options or images.
        StyleganError: if the loss is no longer finite.
    """
    if max_minutes is not None:
        check_not_negative("max_minutes", max_minutes)
    wanted = require_usable(resolution)
    torch_device = resolve_device(device)

    def opened(at: ImageSize | None) -> ImageDataset:
        reading = counter(progress, "images read")
        return ImageDataset(data, resolution=at, mirror=mirror, progress=reading)

    dataset = opened(None)
    size = dataset.size
    if wanted.is_square and not size.is_square:
        while min(size.height, size.width) > wanted.height:
            size = size.reduced(2)
    elif not wanted.is_square or size.height > wanted.height:
        size = wanted
    if size != dataset.size:
        dataset = opened(size)
    chosen = find_attributes(dataset, path=str(data), names=names, selection=attributes)
    config = ClassifierConfig(
        resolution=dataset.resolution,
        kimg=kimg,
        batch=batch,
        lr=lr,
        mirror=mirror,
        channel_base=channel_base,
        channel_max=channel_max,
        seed=seed,
    )
    return train_classifiers(
        chosen,
        dataset,
        out,
        config,
        device=torch_device,
        observe=None if progress is None else report_to(progress, chosen),
        max_minutes=max_minutes,
    )
