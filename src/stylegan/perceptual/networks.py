"""Feature networks and perceptual distances by name, with their published weights."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from stylegan.errors import ConfigError, did_you_mean
from stylegan.perceptual import weights
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance
from stylegan.perceptual.efficientnet import EfficientNetDistance, EfficientNetLite0
from stylegan.perceptual.inception import InceptionV3
from stylegan.perceptual.torchscript import ScriptedInception, ScriptedLPIPS, ScriptedVGG16
from stylegan.perceptual.vgg import LPIPS, VGG16
from stylegan.progress import Counter

Network = TypeVar("Network", AbstractDetector, AbstractDistance)


@dataclass(frozen=True, kw_only=True)
class _Entry(Generic[Network]):
    """How a network is built.

    Attributes:
        build: our network, from its tensors.
        file: the file of these tensors.
        scripted: the official network, from its TorchScript file.
        official: that file.
    """

    build: Callable[[Mapping[str, Tensor]], Network]
    file: weights.WeightFile
    scripted: Callable[[weights.Located], Network] | None = None
    official: weights.WeightFile | None = None


DETECTORS = ("inception-v3", "vgg16", "efficientnet-lite0")
DISTANCES = ("lpips-vgg16", "efficientnet-lite0")
CLASSIFYING = ("inception-v3", "efficientnet-lite0")
"""The feature networks that give class probabilities."""


def load_detector(
    name: str,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    allow_unknown: bool = False,
    progress: Counter | None = None,
) -> AbstractDetector:
    """Return a feature network with its published weights, in eval mode and without gradients.

    Args:
        name: one of `DETECTORS`.
        weights_dir: a folder of weight files, which is searched first. The official TorchScript
            files `inception-2015-12-05.pt` and `vgg16.pt` in it replace our networks; the
            attribute `weights` has the name of the file.
        device: where to put the network.
        allow_unknown: also accept TorchScript files of these names that are not the published ones.
            Such files are programs, which run when the network is used.
        progress: called while weights are downloaded.

    Raises:
        ConfigError: if there is no such network.
        WeightsError: if its weights are missing and cannot be downloaded, or are not the published
            ones.
    """
    entries: dict[str, _Entry[AbstractDetector]] = {
        "inception-v3": _Entry(
            build=InceptionV3,
            file=weights.INCEPTION,
            scripted=ScriptedInception,
            official=weights.OFFICIAL_INCEPTION,
        ),
        "vgg16": _Entry(
            build=VGG16,
            file=weights.VGG16,
            scripted=ScriptedVGG16,
            official=weights.OFFICIAL_VGG16,
        ),
        "efficientnet-lite0": _Entry(build=EfficientNetLite0, file=weights.EFFICIENTNET_LITE0),
    }
    if name not in entries:
        raise _unknown("feature network", name, DETECTORS)
    return _load(entries[name], weights_dir, device, allow_unknown, progress)


def load_distance(
    name: str,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    allow_unknown: bool = False,
    progress: Counter | None = None,
) -> AbstractDistance:
    """Return a perceptual distance with its published weights, which have no gradients.

    Gradients with respect to images work.

    Args:
        name: one of `DISTANCES`.
        weights_dir: as for `load_detector`.
        device: where to put the network.
        allow_unknown: as for `load_detector`.
        progress: called while weights are downloaded.

    Raises:
        ConfigError: if there is no such distance.
        WeightsError: as `load_detector`.
    """
    entries: dict[str, _Entry[AbstractDistance]] = {
        "lpips-vgg16": _Entry(
            build=LPIPS,
            file=weights.VGG16,
            scripted=ScriptedLPIPS,
            official=weights.OFFICIAL_VGG16,
        ),
        "efficientnet-lite0": _Entry(build=EfficientNetDistance, file=weights.EFFICIENTNET_LITE0),
    }
    if name not in entries:
        raise _unknown("distance", name, DISTANCES)
    return _load(entries[name], weights_dir, device, allow_unknown, progress)


def _load(
    entry: _Entry[Network],
    weights_dir: str | os.PathLike[str] | None,
    device: torch.device | str,
    allow_unknown: bool,
    progress: Counter | None,
) -> Network:
    if entry.scripted is not None and entry.official is not None:
        official = weights.locate_official(
            entry.official, weights_dir=weights_dir, allow_unknown=allow_unknown
        )
        if official is not None:
            return entry.scripted(official).to(device)
    located = weights.locate(entry.file, weights_dir=weights_dir, progress=progress)
    network = entry.build(weights.read(located))
    # The published name: the same bytes have other names in the cache and from other publishers.
    network.weights, network.weights_sha256 = entry.file.name, located.sha256
    return network.to(device).eval().requires_grad_(False)


def _unknown(what: str, name: str, names: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f"there is no {what} {name[:100]!a}{did_you_mean(name, names)}",
        expected=f"one of {', '.join(names)}",
    )
