"""Directions in w: find, list, draw and apply them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

import stylegan
from stylegan.captions import Captions
from stylegan.devices import DeviceName
from stylegan.errors import ConfigError
from stylegan.files import write_atomic
from stylegan.images import grid as tile
from stylegan.interop.classifiers import load_classifiers
from stylegan.interop.load import origin_of, weights_path
from stylegan.latent.directions import (
    Directions,
    check_fit,
    factorize,
    principal,
    read_directions,
    separating,
    sum_strengths,
    write_directions,
)
from stylegan.latent.grids import PADDING
from stylegan.latent.layers import parse_layers
from stylegan.latent.render import device_of, render, synthesize_each
from stylegan.latent.saved import Keys, as_keys, names_of, styles_of, write_latents
from stylegan.latent.statistics import sample_styles
from stylegan.metrics.separability import fit_hyperplane
from stylegan.models.base import AbstractGenerator
from stylegan.models.classifiers import Classifier
from stylegan.notebook import TextResult, text_table
from stylegan.progress import Progress, track
from stylegan.workflows.generate import GeneratedImages, ImageGrid
from stylegan.workflows.networks import (
    Network,
    check_batch,
    check_folder,
    check_psi,
    check_scale,
    check_suffix,
    check_truncation,
    class_number,
    fingerprint_of,
    label_of,
    load_generator,
)

NUM_DIRECTIONS = 8
NUM_LABELED = 2000  # images that classifiers label; the half with the largest logits is used
NUM_STYLES = 10_000  # samples of w
STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)


@dataclass(frozen=True, kw_only=True)
class StoredDirections(TextResult):
    """Directions and their file; a notebook shows them as a table.

    Attributes:
        directions: the directions.
        path: of their file; None if none was written.
    """

    directions: Directions
    path: Path | None

    def __str__(self) -> str:
        """Return a table of the directions."""
        directions = self.directions
        layers = ",".join(map(str, directions.layers))
        rows = [
            [name, f"{importance:.4g}", f"{std:.4g}", layers]
            for name, importance, std in zip(
                directions.names,
                directions.importances.tolist(),
                directions.stds.tolist(),
                strict=True,
            )
        ]
        header = ["name", "importance", "std of w", "layers"]
        return text_table(header, rows, left=["name", "layers"])


@dataclass(frozen=True, kw_only=True)
class EditedImages(GeneratedImages):
    """Edited images, and their latents.

    Attributes:
        ws: the latents, [N, num_ws, w_dim]; each is also in `NAME.npz` if files were written.
    """

    ws: Tensor


def find(
    network: Network,
    *,
    out: Path | str | None = None,
    method: Literal["factorize", "pca", "labels"] = "factorize",
    layers: str = "all",
    normalize: bool = True,
    count: int | None = None,
    names: str | Sequence[str] | None = None,
    classifiers: str | Path | None = None,
    class_index: str | int | None = None,
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> StoredDirections:
    """Find orthonormal directions in w, and save them under names.

    "factorize" computes them from the weights (SeFa); "pca" takes the principal components of w
    (GANSpace); "labels" takes the normals of hyperplanes that separate the images by the labels of
    attribute classifiers (InterFaceGAN).

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        out: the safetensors file to write.
        method: how they are found.
        layers: style inputs that they act on: coarse, middle, fine, all, or numbers such as
            "0-3,6".
        normalize: for "factorize", normalize the weight vector of each style first, as the authors'
            code does; the paper's equations do not.
        count: how many (default 8, or one for each attribute).
        names: their names, such as "smile,pose" (default: such as factorize-0).
        classifiers: a folder of attribute classifiers, for "labels".
        class_index: the class of a network with labels: its name, or its number from 0.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        seed: seed of the samples of w.
        progress: called while images are labeled.

    Returns:
        The directions.

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    path = None if out is None else Path(out)
    check_suffix(path, ".safetensors")
    if method == "labels" and classifiers is None:
        raise ConfigError(
            "method labels needs --classifiers", fix="train some by `stylegan train-classifier`"
        )
    if method != "labels" and classifiers is not None:
        raise ConfigError(f"method {method} takes no --classifiers")
    weights = None if isinstance(network, AbstractGenerator) else weights_path(network)
    generator = load_generator(network if weights is None else weights, device)
    label = label_of(class_index, generator)
    indices = parse_layers(layers, generator.num_ws)
    if not indices:
        raise ConfigError("directions must act on at least one layer, got layers none")
    w = sample_styles(generator, num=NUM_STYLES, seed=seed, c=label).cpu()
    num = NUM_DIRECTIONS if count is None else count
    if method == "factorize":
        directions = factorize(generator, w, layers=indices, num=num, normalize=normalize)
    elif method == "pca":
        directions = principal(w, layers=indices, num=num)
    else:
        assert classifiers is not None
        directions = _separate(generator, w, indices, classifiers, count, progress)
    if names is not None:
        directions = directions.renamed(_names(names, len(directions.names)))
    facts: dict[str, object] = {
        **directions.facts,
        "network": {"path": None, "sha256": fingerprint_of(generator)}
        if weights is None
        else origin_of(weights),
        "class": class_number(class_index, generator),
        "seed": seed,
        "version": stylegan.__version__,
    }
    directions = replace(directions, facts=facts)
    if path is not None:
        write_directions(path, directions)
    return StoredDirections(directions=directions, path=path)


def sheet(
    network: Network,
    directions: Path | str | Directions,
    seeds: Keys,
    *,
    out: Path | str | None = None,
    names: str | Sequence[str] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    psi: float = 1.0,
    cutoff: int | None = None,
    class_index: str | int | None = None,
    captions: bool = True,
    scale: int | None = None,
    batch: int = 16,
    device: DeviceName | torch.device = "auto",
    progress: Progress | None = None,
) -> ImageGrid:
    """Draw a grid of images that are moved along each direction.

    There is a row for each seed and direction, and a column for each strength.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        directions: a file of `directions find`; or the name of one in the network's own folder,
            such as factorize or pca in a folder of `stylegan pack`.
        seeds: seeds and files of latents, such as "0-3,projected/cat.npz".
        out: the PNG file to write.
        names: which directions, such as "smile,pose" (default all).
        strengths: how far to move, in standard deviations of w along the direction.
        psi: truncation; 1 for full variation, 0 for the mean image. Saved latents are not
            truncated.
        cutoff: truncate only this many style inputs, coarsest first (default all).
        class_index: the class of a network with labels: its name, or its number from 0.
        captions: name the seed and the direction of each row, and the strength of each column.
        scale: enlarge the images by this whole number (default: with captions to 64 pixels or
            more).
        batch: batch size on a GPU; the CPU computes one image at a time.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        progress: called after each image.

    Returns:
        The grid.

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    keys = as_keys(seeds)
    check_batch(batch)
    check_psi(psi)
    check_scale(scale)
    path = None if out is None else Path(out)
    check_suffix(path, ".png")
    if not strengths:
        raise ConfigError("strengths must have at least one value")
    loaded = _load(directions, network)
    chosen = loaded.names if names is None else _split(names)
    generator = _open(network, device, loaded, psi, cutoff, progress)
    label = label_of(class_index, generator)
    ws = styles_of(generator, keys, c=label, psi=psi, cutoff=cutoff, batch=batch)
    moved = torch.cat(
        [
            loaded.apply(row, {name: strength})
            for row in torch.split(ws, 1)
            for name in chosen
            for strength in strengths
        ]
    )
    pictures = track(render(generator, moved, batch=batch), progress, "images", len(moved))
    columns = len(strengths)
    texts = Captions(
        rows=[f"{key}, {name}" for key in names_of(keys, generator) for name in chosen],
        columns=[f"{strength:+g}" if strength else "0" for strength in strengths],
    )
    pixels = tile(
        torch.stack([*pictures]),
        columns=columns,
        padding=PADDING,
        captions=texts if captions else None,
        scale=scale,
    )
    return ImageGrid.of(pixels, path, rows=len(moved) // columns, columns=columns)


def apply(
    network: Network,
    directions: Path | str | Directions,
    seeds: Keys,
    edit: str | Mapping[str, float],
    *,
    out: Path | str | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    class_index: str | int | None = None,
    batch: int = 16,
    device: DeviceName | torch.device = "auto",
    progress: Progress | None = None,
) -> EditedImages:
    """Move images along directions, and write images and latents.

    Strengths are in standard deviations of w along the direction. Several strengths of one name
    are added.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        directions: a file of `directions find`; or the name of one in the network's own folder,
            such as factorize or pca in a folder of `stylegan pack`.
        seeds: seeds and files of latents, such as "1-8,projected/cat.npz".
        edit: names and strengths, such as "factorize-0=2,smile=-1".
        out: the folder to write to.
        psi: truncation; 1 for full variation, 0 for the mean image. Saved latents are not
            truncated.
        cutoff: truncate only this many style inputs, coarsest first (default all).
        class_index: the class of a network with labels: its name, or its number from 0.
        batch: batch size on a GPU; the CPU computes one image at a time.
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        progress: called after each image.

    Returns:
        The edited images and their latents.

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    keys = as_keys(seeds)
    check_batch(batch)
    check_psi(psi)
    folder = None if out is None else Path(out)
    check_folder(folder)
    strengths = sum_strengths(_parse_edit(edit) if isinstance(edit, str) else [*edit.items()])
    loaded = _load(directions, network)
    generator = _open(network, device, loaded, psi, cutoff, progress)
    label = label_of(class_index, generator)
    ws = styles_of(generator, keys, c=label, psi=psi, cutoff=cutoff, batch=batch)
    moved = loaded.apply(ws, strengths)
    names = names_of(keys, generator)
    pixels, each = generator.pixels, synthesize_each(generator, moved, batch=batch)
    images = track(each, progress, "images", len(moved))
    kept = []
    for name, image, row in zip(names, images, moved, strict=True):
        stored = pixels.to_stored(image).cpu()
        if folder is None:
            kept.append(stored)
            continue
        write_atomic(folder / f"{name}{pixels.suffix}", pixels.file_bytes(stored))
        write_latents(folder / f"{name}.npz", row[None])
    return EditedImages(names=names, folder=folder, grid=None, pixels=kept, format=pixels, ws=moved)


def directions_path(folder: Path, name: str) -> Path:
    """Return where a native folder has its directions of a name, if it has any."""
    return folder / "directions" / f"{name}.safetensors"


def _load(directions: Path | str | Directions, network: Network) -> Directions:
    """Read directions from a file, or by their name from the network's folder."""
    if isinstance(directions, Directions):
        return directions
    if not isinstance(network, AbstractGenerator) and not Path(directions).exists():
        stored = directions_path(weights_path(network), str(directions))
        if stored.is_file():
            return read_directions(stored)
    return read_directions(directions)


def _open(
    network: Network,
    device: DeviceName | torch.device,
    directions: Directions,
    psi: float,
    cutoff: int | None,
    progress: Progress | None,
) -> AbstractGenerator:
    """Load the network, and check that the directions fit it."""
    generator = load_generator(network, device, progress=progress)
    check_fit(directions, generator)
    check_truncation(psi, cutoff, generator)
    return generator


def _separate(
    generator: AbstractGenerator,
    w: Tensor,
    layers: Sequence[int],
    source: str | Path,
    count: int | None,
    progress: Progress | None,
) -> Directions:
    """Separate w by the labels that classifiers give to its images."""
    classifiers = load_classifiers(source, device=device_of(generator))[:count]
    for classifier in classifiers:
        classifier.check(img_channels=generator.img_channels, size=generator.img_size)
    labeled = w[:NUM_LABELED]
    logits = _logits(generator, labeled, classifiers, progress)
    normals = []
    for classifier, column in zip(classifiers, logits.unbind(dim=1), strict=True):
        order = column.abs().argsort(descending=True, stable=True)[: len(labeled) // 2]
        labels = column[order] > 0
        if labels.all() or not labels.any():
            raise ConfigError(
                f"the classifier {classifier.name} gives all images the same label",
                fix="leave this classifier out",
            )
        normal, _, _ = fit_hyperplane(labeled[order], labels)
        normals.append(normal)
    names = [classifier.name for classifier in classifiers]
    return separating(normals, w, names=names, layers=layers)


def _logits(
    generator: AbstractGenerator,
    w: Tensor,
    classifiers: Sequence[Classifier],
    progress: Progress | None,
) -> Tensor:
    """Return the logits of the images of w [N, w_dim], [N, attributes]."""
    batches = torch.split(
        w, max(1, min(32, 1024 // max(generator.img_size.height, generator.img_size.width)))
    )
    rows = []
    for batch in track(batches, progress, "batches of images", len(batches)):
        ws = batch.to(device_of(generator))[:, None].expand(-1, generator.num_ws, -1)
        with torch.no_grad():
            pixels = generator.pixels
            images = pixels.to_float(pixels.to_stored(generator.synthesis(ws)))
            columns = [classifier.logits(images).flatten() for classifier in classifiers]
        rows.append(torch.stack(columns, dim=1).cpu())
    return torch.cat(rows)


def _split(names: str | Sequence[str]) -> Sequence[str]:
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else names


def _names(names: str | Sequence[str], num: int) -> Sequence[str]:
    chosen = _split(names)
    if len(chosen) != num or len({*chosen}) != num:
        raise ConfigError(f"names must be {num} different names, got {','.join(chosen)}")
    for name in chosen:
        if re.fullmatch(r"[\w-]+", name) is None:
            raise ConfigError(
                f"names must consist of letters, digits, dashes and underscores, got {name!r}"
            )
    return chosen


def _parse_edit(text: str) -> Sequence[tuple[str, float]]:
    """Parse names and strengths such as `"a=2,b=-1.5"`."""
    edits = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*", part, re.ASCII)
        if match is None:
            raise ConfigError(
                f"{part.strip()!r} in edit {text!r} is not a name and a strength",
                fix='write them like "factorize-0=2,factorize-3=-1"',
            )
        edits.append((match[1], float(match[2])))
    return edits


def list(directions: Path | str) -> StoredDirections:
    """List the directions of a file.

    Args:
        directions: a file of `directions find`.

    Returns:
        The directions.

    Raises:
        DataError: if the file holds no directions.
    """
    return StoredDirections(directions=read_directions(directions), path=Path(directions))
