"""Feature networks and distances by name, ready for use."""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.perceptual import weights
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance
from stylegan.perceptual.efficientnet import EfficientNetDistance, EfficientNetLite0
from stylegan.perceptual.inception import InceptionV3
from stylegan.perceptual.torchscript import ScriptedInception, ScriptedLPIPS, ScriptedVGG16
from stylegan.perceptual.vgg import LPIPS, VGG16
from stylegan.progress import Counter

DETECTORS = ("inception-v3", "vgg16", "efficientnet-lite0")
CLASSIFYING = ("inception-v3", "efficientnet-lite0")
"""The feature networks that give probabilities of classes."""
DISTANCES = ("lpips-vgg16", "efficientnet-lite0")

Network = TypeVar("Network", AbstractDetector, AbstractDistance)


def load_detector(
    name: str,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    progress: Counter | None = None,
) -> AbstractDetector:
    """Make a feature network with its published weights, in eval mode and without gradients.

    Args:
        name: one of `DETECTORS`.
        weights_dir: a folder of weight files, looked into first. The official TorchScript files
            `inception-2015-12-05.pt` and `vgg16.pt` there take the place of our networks, which
            the attribute `weights` tells.
        device: where to put it.
        progress: told of a download's pieces.

    Raises:
        ConfigError: if there is no such network.
        WeightsError: if its weights are not here and cannot be downloaded, or are not what they
            should be.
    """
    if name == "inception-v3":
        official = weights.locate_official(weights.OFFICIAL_INCEPTION, weights_dir=weights_dir)
        if official is not None:
            return ScriptedInception(official).to(device)
        return _ready(
            InceptionV3,
            weights.INCEPTION,
            weights_dir=weights_dir,
            device=device,
            progress=progress,
        )
    if name == "vgg16":
        official = weights.locate_official(weights.OFFICIAL_VGG16, weights_dir=weights_dir)
        if official is not None:
            return ScriptedVGG16(official).to(device)
        return _ready(
            VGG16, weights.VGG16, weights_dir=weights_dir, device=device, progress=progress
        )
    if name == "efficientnet-lite0":
        return _ready(
            EfficientNetLite0,
            weights.EFFICIENTNET_LITE0,
            weights_dir=weights_dir,
            device=device,
            progress=progress,
        )
    raise _unknown("feature network", name, DETECTORS)


def load_distance(
    name: str,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    progress: Counter | None = None,
) -> AbstractDistance:
    """Make a perceptual distance with its published weights, which have no gradients.

    Gradients with respect to images work.

    Args:
        name: one of `DISTANCES`.
        weights_dir: as for `load_detector`.
        device: where to put it.
        progress: told of a download's pieces.

    Raises:
        ConfigError: if there is no such distance.
        WeightsError: as `load_detector`.
    """
    if name == "lpips-vgg16":
        official = weights.locate_official(weights.OFFICIAL_VGG16, weights_dir=weights_dir)
        if official is not None:
            return ScriptedLPIPS(official).to(device)
        return _ready(
            LPIPS, weights.VGG16, weights_dir=weights_dir, device=device, progress=progress
        )
    if name == "efficientnet-lite0":
        return _ready(
            EfficientNetDistance,
            weights.EFFICIENTNET_LITE0,
            weights_dir=weights_dir,
            device=device,
            progress=progress,
        )
    raise _unknown("distance", name, DISTANCES)


def _ready(
    kind: Callable[[Mapping[str, Tensor]], Network],
    file: weights.WeightFile,
    *,
    weights_dir: str | os.PathLike[str] | None,
    device: torch.device | str,
    progress: Counter | None,
) -> Network:
    located = weights.locate(file, weights_dir=weights_dir, progress=progress)
    network = kind(weights.read(located))
    # the published name: in the cache, and from other publishers, the same bytes have another
    network.weights, network.weights_sha256 = file.name, located.sha256
    return network.to(device).eval().requires_grad_(False)


def _unknown(what: str, name: str, names: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f"no {what} is called {name!a}"[:200],
        expected=f"one of {', '.join(names)}",
        fix="choose one of them",
    )
