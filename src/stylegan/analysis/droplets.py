"""The blob artifact of StyleGAN: a spike that rules the statistics of every feature map.

Source: Karras et al. 2020 (StyleGAN2), section 2 and figures 1 and 3. The measure is ours; the
paper shows pictures.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.analysis.activations import feature_layers, watched
from stylegan.models.base import AbstractGenerator

THRESHOLD = 10.0  # peaks over the median; docs/analyze.md shows what clean maps reach
AGREEMENT = 0.5  # share of channels that must peak at the same place
PEAK = 3.0  # root mean squares of its channel that make a peak
COMPACT = 0.02  # share of the pixels above half of the peak
FEWEST_CHANNELS = 16  # the published networks have no fewer; sums of fewer have peaks by chance


@dataclass(frozen=True, kw_only=True)
class Spikes:
    """Spikes in the features of one layer, for each of N images.

    Attributes:
        score: peak of the magnitude over its median, [N].
        place: row and column of the peak, in pixels of the layer, [N, 2].
        agreement: share of channels that have a peak there, [N].
        area: share of the pixels above half of the peak, [N].
        found: whether it is a droplet: high, compact and in most channels, [N].
        magnitude: [N, r, r]; about 1 where nothing stands out.
    """

    score: Tensor
    place: Tensor
    agreement: Tensor
    area: Tensor
    found: Tensor
    magnitude: Tensor


def find_spikes(features: Tensor, *, threshold: float = THRESHOLD) -> Spikes:
    """Look for a spike that most channels share.

    Each channel is divided by its root mean square; the magnitude of a pixel is the root mean
    square over channels.

    Args:
        features: [N, C, r, r], before normalization. With fewer than 16 channels none is found.
        threshold: of the score.
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
    """What one layer showed, over all images.

    Attributes:
        layer: its name.
        side: of its maps, in pixels.
        num_channels: of them.
        median_score: over images.
        highest_score: over images.
        share: of the images in which there is a droplet.
    """

    layer: str
    side: int
    num_channels: int
    median_score: float
    highest_score: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Droplets:
    """Droplets in a generator's images.

    Attributes:
        layers: coarsest first.
        num_images: looked at.
        share: of the images that have a droplet in any layer.
        places: for each image with one, the layer where it begins and its place there as a share
            of height and width; None for the others.
    """

    layers: list[LayerDroplets]
    num_images: int
    share: float
    places: list[tuple[str, float, float] | None]


def find_droplets(
    generator: AbstractGenerator, ws: Iterable[Tensor], *, threshold: float = THRESHOLD
) -> Droplets:
    """Look for droplets in the features of every layer.

    Args:
        generator: in eval mode.
        ws: batches of [N, num_ws, w_dim] on its device; one batch's features are held at once.
        threshold: of the score.
    """
    sides: dict[str, tuple[int, int]] = {}
    scores: dict[str, list[Tensor]] = {}
    found: dict[str, list[Tensor]] = {}
    places: list[tuple[str, float, float] | None] = []
    for batch in ws:
        first: list[tuple[str, float, float] | None] = [None] * len(batch)

        def see(
            layer: str, features: Tensor, first: list[tuple[str, float, float] | None] = first
        ) -> None:
            spikes = find_spikes(features, threshold=threshold)
            # a constant input is one row for all
            rows = len(first) // len(spikes.score)
            sides[layer] = features.shape[1], features.shape[3]
            scores.setdefault(layer, []).append(spikes.score.repeat(rows))
            found.setdefault(layer, []).append(spikes.found.repeat(rows))
            for row in spikes.found.nonzero()[:, 0].tolist():
                if first[row] is None:
                    y, x = ((spikes.place[row].double() + 0.5) / features.shape[3]).tolist()
                    first[row] = (layer, y, x)

        with torch.no_grad(), watched(generator, see):
            generator.synthesis(batch)
        places += first
    layers = []
    for layer in feature_layers(generator):
        if layer in scores:
            score, hits = torch.cat(scores[layer]), torch.cat(found[layer])
            layers.append(
                LayerDroplets(
                    layer=layer,
                    side=sides[layer][1],
                    num_channels=sides[layer][0],
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
    """Return images, and what a layer shows of them.

    Args:
        generator: in eval mode.
        ws: [N, num_ws, w_dim]; all are rendered at once.
        layer: a name of `feature_layers`.

    Returns:
        Images [N, C, R, R], nominally in [-1, 1], and the spikes.
    """
    kept: list[Spikes] = []

    def see(name: str, features: Tensor) -> None:
        if name == layer:
            kept.append(find_spikes(features))

    with torch.no_grad(), watched(generator, see):
        images: Tensor = generator.synthesis(ws)
    return images, kept[0]
