"""Loading of attribute classifiers: ours, a run's discriminator, official pickles."""

import os
import re
from pathlib import Path

import torch

from stylegan.errors import WeightsError
from stylegan.files import file_sha256
from stylegan.interop.load import is_run, load_networks, local_path, newest_snapshot
from stylegan.interop.tensorflow_pickle import is_tensorflow_pickle
from stylegan.models import io
from stylegan.models.classifiers import Classifier


def load_classifiers(
    source: str | os.PathLike[str], *, device: torch.device | str = "cpu"
) -> list[Classifier]:
    """Load attribute classifiers for use: in eval mode, without gradients for their parameters.

    Args:
        source: a folder of classifiers, either native folders from `stylegan train-classifier` or
            official pickles; or one classifier in any form that `load_networks` takes, of which
            the discriminator is used.
        device: device of the networks.

    Returns:
        Sorted by index, then by name. Name and index are those that training wrote, or those in a
        file name such as 03-wavy-hair or celebahq-classifier-03-wavy-hair.pkl, or the file's name
        and 0.

    Raises:
        WeightsError: if there is no classifier, or one cannot be read, has labels, or is still
            growing.
    """
    path = local_path(source)
    paths = [path]
    if path.is_dir() and not io.is_native(path) and not is_run(path):
        paths = [child for child in sorted(path.iterdir()) if _is_classifier(child)]
        if not paths:
            raise WeightsError(
                f"{path} has no classifiers, which are native folders of `stylegan "
                "train-classifier` or official pickles"
            )
    classifiers = [_load(path, device) for path in paths]
    return sorted(classifiers, key=lambda classifier: (classifier.index, classifier.name))


def _is_classifier(path: Path) -> bool:
    is_file = path.is_file() and is_tensorflow_pickle(path)
    return is_file or (path.is_dir() and not path.name.startswith(".") and io.is_native(path))


def _load(path: Path, device: torch.device | str) -> Classifier:
    folder = newest_snapshot(path) if path.is_dir() and is_run(path) else path
    network = load_networks(folder, only=["discriminator"]).discriminator
    if network is None:
        raise WeightsError(f"{path} has no discriminator, so it is not a classifier")
    name, index = _name_of(path)
    if folder.is_dir():
        metadata = io.read_metadata(folder)
        if isinstance(metadata.get("attribute"), str) and isinstance(metadata.get("index"), int):
            name, index = str(metadata["attribute"]), int(str(metadata["index"]))
    try:
        return Classifier(
            name=name,
            index=index,
            network=network.to(device).eval().requires_grad_(False),
            sha256=file_sha256(folder / "model.safetensors" if folder.is_dir() else folder),
        )
    except ValueError as error:
        raise WeightsError(
            f"{path} is not a classifier ({error})",
            expected="a discriminator without labels, at its full resolution",
        ) from error


def _name_of(path: Path) -> tuple[str, int]:
    """Read name and index from a file's name."""
    stem = path.stem if path.is_file() else path.name
    match = re.fullmatch(r"(?:.*?-)?([0-9]{2,6})-(.+)", stem)
    return (stem, 0) if match is None else (match[2], int(match[1]))
