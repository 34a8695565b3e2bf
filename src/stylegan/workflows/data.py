"""Image sets: make, check, describe, augment and shard them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from stylegan import images
from stylegan.augmentation.parameters import AugmentSet
from stylegan.augmentation.policy import AugmentConfig, draw_augmentation
from stylegan.data import describe
from stylegan.data import prepare as preparing
from stylegan.data.check import OnBad
from stylegan.data.dataset import ImageDataset
from stylegan.data.describe import CheckReport, SetInfo
from stylegan.data.prepare import Crop, Filter, Prepared, PrepareOptions
from stylegan.data.readers import Alpha, KeptDepth, Reading, parse_range
from stylegan.data.shards import write_shards
from stylegan.errors import check_positive
from stylegan.image_size import ImageSize, Resolution
from stylegan.microbatch import BatchSlice
from stylegan.notebook import TextResult, picture_html
from stylegan.progress import Progress, counter
from stylegan.rng import generator_for


def prepare(
    source: str | Path,
    destination: str | Path,
    *,
    resolution: Resolution,
    crop: Crop = "center",
    wide_height: int | None = None,
    pad_color: str = "black",
    filter: Filter = "lanczos",
    background: str | None = None,
    range: str | None = None,
    alpha: Alpha = "auto",
    depth: KeptDepth = "keep",
    compress_level: int = 6,
    labels_from: str | None = None,
    every: int = 1,
    on_bad: OnBad = "skip",
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Make a training set: crop, resize and pack images into a zip.

    Images are rotated by EXIF and converted to RGB, or to grey if all images are grey.
    Transparency, 16 bits and channels of arrays are kept where most images have them. The zip
    records in prepare.json how each image was made. Files that cannot be used are named in a
    warning and counted.

    Args:
        source: a folder of images, with its subfolders, or a zip. Also a video, an array (.npy,
            .npz), a TIFF, TFRecords, an LMDB folder, CIFAR or MNIST; see docs/data.md.
        destination: the zip to write.
        resolution: side of the images in pixels, or HEIGHTxWIDTH, such as 64 or 96x160.
        crop: "center" crops the largest central rectangle with the proportions of the resolution.
            "pad" keeps the whole image with its proportions and pads it. "wide" crops central rows
            at full width, as the official tool does for LSUN Car, and centers them on a black
            square. "none" resizes the whole image, which changes its aspect ratio.
        wide_height: height of the picture with crop "wide", in pixels. Default: 3/4 of the
            resolution for square images, the whole height for others.
        pad_color: of the padding: a CSS name, or #rrggbb.
        filter: for resizing.
        background: color on which transparent pixels are composed: a CSS name, or #rrggbb. Default:
            transparency is kept if at least half of the images have it, else composed on white.
        range: of floats, the values that become black and white, as LOW,HIGH; others are clipped.
            Default: 0,1, and images with others are skipped.
        alpha: "auto" takes the last of four channels of an array for alpha, "none" does not.
        depth: "uint8" rounds deeper pixels to 8 bits.
        compress_level: of the PNG files, from 0 (large and fast) to 9 (small and slow).
        labels_from: "json" for the source's dataset.json; "folders" numbers the folders of the
            images by their names; or a CSV file with a name and a class, or several numbers, in
            each row. Images without a label are then left out. Default: the labels of dataset.json
            or of the source's format if there are any, and all images.
        every: take every n-th frame of a video.
        on_bad: what to do about files that cannot be used: "skip" leaves out any number, "limit" up
            to a tenth of the images, "fail" stops at the first one.
        workers: number of threads. Default: one per processor core.
        overwrite: replace the destination if it exists.
        progress: called with the number of images done.

    Returns:
        Counts, and each skipped file with the reason.

    Raises:
        ConfigError: if a value is not allowed, or `destination` exists or does not end in .zip.
        DataError: if no image can be used, the zip cannot be written, or with `on_bad="fail"` a
            file cannot be used.
    """
    options = PrepareOptions(
        resolution=resolution,
        crop=crop,
        wide_height=wide_height,
        pad_color=pad_color,
        filter=filter,
        background=background,
        range=range,
        alpha=alpha,
        depth=depth,
        compress_level=compress_level,
        labels_from=labels_from,
        every=every,
        on_bad=on_bad,
    )
    return preparing.prepare(
        source,
        destination,
        options=options,
        overwrite=overwrite,
        workers=workers,
        progress=counter(progress, "images"),
    )


def check(
    source: str | Path,
    *,
    resolution: Resolution | None = None,
    range: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """List every file that cannot be trained on, with the reason.

    The command ends with exit status 1 if there is such a file, or no image at all.

    Args:
        source: a folder of images, a zip, or another source that `prepare` takes.
        resolution: to train at: a side in pixels, or HEIGHTxWIDTH. Default: the images' own size.
        range: of floats, as of `prepare`.
        workers: number of threads. Default: one per processor core.
        progress: called with the number of images done.

    Returns:
        The files, and what to do about them.

    Raises:
        ConfigError: if no network has this resolution.
        DataError: if `source` is no source of images.
    """
    return describe.check(
        source,
        resolution=resolution,
        reading=Reading(range=parse_range(range)),
        workers=workers,
        progress=counter(progress, "images"),
    )


def info(
    source: str | Path,
    *,
    out: Path | None = None,
    range: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SetInfo:
    """Describe a set: count, sizes, modes, labels, fingerprint, history and a contact sheet.

    Args:
        source: a folder of images, a zip, or another source that `prepare` takes.
        out: the contact sheet, a PNG file. Default: NAME-sheet.png in the current folder.
        range: of floats, as of `prepare`.
        workers: number of threads. Default: one per processor core.
        progress: called with the number of images done.

    Raises:
        DataError: if `source` is no source of images.
    """
    return describe.info(
        source,
        out=out,
        reading=Reading(range=parse_range(range)),
        workers=workers,
        progress=counter(progress, "images"),
    )


@dataclass(frozen=True, kw_only=True)
class AugmentedSheet(TextResult):
    """What `augment` drew.

    Attributes:
        path: the PNG file.
        picture: the grid, uint8 [C, H, W].
    """

    path: Path
    picture: Tensor

    def __str__(self) -> str:
        """Return one line."""
        height, width = self.picture.shape[1:]
        return f"{self.path}: {width}x{height}"

    def _repr_html_(self) -> str:
        return super()._repr_html_() + picture_html(self.picture)


def augment(
    source: str | Path,
    *,
    out: Path | None = None,
    p: float = 0.5,
    set: AugmentSet = "bgc",
    mode: Literal["fixed", "diffaugment"] = "fixed",
    resolution: Resolution | None = None,
    num: int = 8,
    draws: int = 7,
    scale: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> AugmentedSheet:
    """Draw augmented images of a set, as the discriminator gets them in training.

    The first row has the images, each row below has the same images with other draws.

    Args:
        source: a folder of images, with its subfolders, a zip, or another source of images.
        out: the PNG file. Default: NAME-augmented.png in the current folder.
        p: probability of each transform.
        set: transforms, as of `stylegan train --augment-set`.
        mode: "fixed" for the transforms of ADA, "diffaugment" for those of DiffAugment, which are
            applied to every image.
        resolution: side of the images in pixels, or HEIGHTxWIDTH. Default: the images' own size.
        num: images, chosen at random.
        draws: rows of augmented images.
        scale: enlarge the images by this whole number. Default: 1.
        seed: of the choice and of the draws.
        workers: number of threads. Default: one per processor core.
        progress: called with the number of images done.

    Raises:
        ConfigError: if a value is not allowed.
        DataError: if no image can be used.
    """
    for name, value in (("num", num), ("draws", draws), ("scale", scale or 1)):
        check_positive(name, value)
    config = AugmentConfig(mode=mode, p=p, set=set)
    dataset = ImageDataset(
        source, resolution=resolution, workers=workers, progress=counter(progress, "images read")
    )
    generator = generator_for("augmented sheet", seed=seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:num].tolist()
    originals = dataset.gather(chosen)
    rows = [dataset.pixels.shown_stored(originals)]
    pixels = dataset.pixels
    for _ in range(draws):
        drawn = draw_augmentation(config, p, len(chosen), generator, has_alpha=pixels.has_alpha)
        whole = BatchSlice.whole(len(chosen))
        augmented = pixels.to_float(originals)
        rows.append(pixels.shown(augmented if drawn is None else drawn.of(whole)(augmented)))
    picture = images.grid(torch.cat(rows), columns=len(chosen), scale=scale)
    path = out or Path(f"{dataset.name}-augmented.png")
    images.write_grid(picture, path)
    return AugmentedSheet(path=path, picture=picture)


@dataclass(frozen=True, kw_only=True)
class Sharded(TextResult):
    """What `shard` wrote.

    Attributes:
        path: the folder.
        num_images: images in the shards.
        num_shards: tar files.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH".
    """

    path: Path
    num_images: int
    num_shards: int
    resolution: Resolution

    def __str__(self) -> str:
        """Return one line with the counts."""
        return (
            f"{self.path}: {self.num_images} images, {ImageSize.of(self.resolution)}, "
            f"in {self.num_shards} shards"
        )


def shard(
    source: str | Path,
    destination: str | Path,
    *,
    resolution: Resolution | None = None,
    shard_mb: float = 128.0,
    workers: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sharded:
    """Write a set as tar shards in the WebDataset layout, for sets larger than a disk.

    Training reads the shards one after the other, from a folder, a web server or an object store.
    The images are shuffled, so that sequential reading gives them in random order.

    Args:
        source: a folder of images, a zip, or another source that `prepare` takes.
        destination: a new or empty folder.
        resolution: side of the images in pixels, or HEIGHTxWIDTH. Default: the images' own size.
        shard_mb: size of a shard in megabytes; each shard is assembled in memory.
        workers: number of threads. Default: one per processor core.
        seed: of the order of the images.
        progress: called with the number of images done.

    Raises:
        ConfigError: if a value is not allowed, or `destination` is not empty.
        DataError: if an image cannot be read, or only some images have labels.
    """
    check_positive("shard_mb", shard_mb)
    dataset = ImageDataset(
        source, resolution=resolution, workers=workers, progress=counter(progress, "images read")
    )
    folder = Path(destination)
    index = write_shards(
        dataset,
        folder,
        shard_bytes=round(min(shard_mb * 1e6, sys.maxsize)),
        seed=seed,
        workers=workers,
        progress=counter(progress, "images written"),
    )
    return Sharded(
        path=folder,
        num_images=len(dataset),
        num_shards=len(index.shards),
        resolution=index.resolution,
    )
