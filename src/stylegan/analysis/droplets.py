"""The blob artifact of StyleGAN: a peak that dominates the statistics of all feature maps.

Source: Karras et al. 2020 (StyleGAN2), section 2 and figures 1 and 3. The paper shows pictures; the
score is our own.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.analysis.activations import feature_layers, observe_features
from stylegan.image_size import ImageSize, Resolution
from stylegan.models.base import AbstractGenerator

THRESHOLD = 10.0  # peak over median; docs/analyze.md has the scores of maps without droplets
AGREEMENT = 0.5  # fraction of channels that must peak at the same position
PEAK = 3.0  # magnitude of a peak, in root mean squares of its channel
COMPACT = 0.02  # maximum fraction of pixels above half of the peak
FEWEST_CHANNELS = (
    16  # sums of fewer have peaks by chance; the published networks have at least as many
)


@dataclass(frozen=True, kw_only=True)
class Spikes:
    """The highest peak in the features of one layer, for each of N images.

    Attributes:
        score: peak of the magnitude over its median, [N].
        place: row and column of the peak, in pixels of the layer, [N, 2].
        agreement: fraction of channels that have a peak there, [N].
        area: fraction of pixels above half of the peak, [N].
        found: whether the peak is a droplet: high, compact and in most channels, [N].
        magnitude: [N, r, r]; about 1 at pixels without a peak.
    """

    score: Tensor
    place: Tensor
    agreement: Tensor
    area: Tensor
    found: Tensor
    magnitude: Tensor


def find_spikes(features: Tensor, *, threshold: float = THRESHOLD) -> Spikes:
    """Find a peak that most channels share.

    Each channel is divided by its root mean square; the magnitude of a pixel is the root mean
    square over channels.

    Args:
        features: [N, C, r, r], before normalization. With fewer than 16 channels `found` is false.
        threshold: minimum score of a droplet.
    """
    x = features.to(torch.float32)
    rms = x.square().mean(dim=(2, 3), keepdim=True).sqrt()
    x = x / rms.clamp_min(torch.finfo(torch.float32).tiny)
    magnitude = x.square().mean(dim=1).sqrt()
    flat = magnitude.flatten(1)
    peak, index = flat.max(dim=1)
    score = peak / flat.median(dim=1).values.clamp_min(1e-12)
    at_peak = x.flatten(2).gather(2, index[:, None, None].expand(-1, x.shape[1], 1))[..., 0]
    agreement = (at_peak.abs() > PEAK).float().mean(dim=1)
    area = (flat > peak[:, None] / 2).float().mean(dim=1)
    one_pixel = 1 / flat.shape[1]
    found = (score > threshold) & (agreement > AGREEMENT) & (area <= max(COMPACT, one_pixel))
    if x.shape[1] < FEWEST_CHANNELS:
        found = torch.zeros_like(found)
    width = x.shape[3]
    place = torch.stack([index // width, index % width], dim=1)
    return Spikes(
        score=score.cpu(),
        place=place.cpu(),
        agreement=agreement.cpu(),
        area=area.cpu(),
        found=found.cpu(),
        magnitude=magnitude.cpu(),
    )


@dataclass(frozen=True, kw_only=True)
class LayerDroplets:
    """The scores of one layer over all images.

    Attributes:
        layer: name of the layer.
        side: side of its feature maps in pixels, or "HEIGHTxWIDTH".
        num_channels: number of its channels.
        median_score: median over images.
        highest_score: maximum over images.
        share: fraction of images with a droplet.
    """

    layer: str
    side: Resolution
    num_channels: int
    median_score: float
    highest_score: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Droplets:
    """Droplets in the images of a generator.

    Attributes:
        layers: scores of the layers, coarsest first.
        num_images: number of images.
        share: fraction of images with a droplet in any layer.
        places: for each image with a droplet, the coarsest layer that has it, and its row and
            column there as fractions of height and width; None for other images.
    """

    layers: list[LayerDroplets]
    num_images: int
    share: float
    places: list[tuple[str, float, float] | None]


def find_droplets(
    generator: AbstractGenerator, ws: Iterable[Tensor], *, threshold: float = THRESHOLD
) -> Droplets:
    """Find droplets in the features of every layer.

    Args:
        generator: in eval mode.
        ws: batches of [N, num_ws, w_dim] on its device; memory is that of one batch.
        threshold: minimum score of a droplet.
    """
    sizes: dict[str, ImageSize] = {}
    widths: dict[str, int] = {}
    scores: dict[str, list[Tensor]] = {}
    found: dict[str, list[Tensor]] = {}
    places: list[tuple[str, float, float] | None] = []
    for batch in ws:
        first: list[tuple[str, float, float] | None] = [None] * len(batch)

        def see(
            layer: str, features: Tensor, first: list[tuple[str, float, float] | None] = first
        ) -> None:
            spikes = find_spikes(features, threshold=threshold)
            # the constant input is one row for all images
            rows = len(first) // len(spikes.score)
            widths[layer], height, width = features.shape[1:]
            sizes[layer] = ImageSize(height, width)
            scores.setdefault(layer, []).append(spikes.score.repeat(rows))
            found.setdefault(layer, []).append(spikes.found.repeat(rows))
            for row in spikes.found.nonzero()[:, 0].tolist():
                if first[row] is None:
                    y, x = (spikes.place[row].double() + 0.5).tolist()
                    first[row] = (layer, y / height, x / width)

        with torch.no_grad(), observe_features(generator, see):
            generator.synthesis(batch)
        places += first
    layers = []
    for layer in feature_layers(generator):
        if layer in scores:
            score, hits = torch.cat(scores[layer]), torch.cat(found[layer])
            layers.append(
                LayerDroplets(
                    layer=layer,
                    side=sizes[layer].stored,
                    num_channels=widths[layer],
                    median_score=score.median().item(),
                    highest_score=score.max().item(),
                    share=hits.float().mean().item(),
                )
            )
    return Droplets(
        layers=layers,
        num_images=len(places),
        share=sum(place is not None for place in places) / max(1, len(places)),
        places=places,
    )


def magnitude_maps(generator: AbstractGenerator, ws: Tensor, layer: str) -> tuple[Tensor, Spikes]:
    """Return images, and the peaks in the features of a layer.

    Args:
        generator: in eval mode.
        ws: [N, num_ws, w_dim]; all are rendered in one batch.
        layer: a name of `feature_layers`.

    Returns:
        Images [N, C, H, W], nominally in [-1, 1], and the peaks.
    """
    kept: list[Spikes] = []

    def see(name: str, features: Tensor) -> None:
        if name == layer:
            kept.append(find_spikes(features))

    with torch.no_grad(), observe_features(generator, see):
        images: Tensor = generator.synthesis(ws)
    return images, kept[0]
