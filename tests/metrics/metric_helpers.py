"""Small stand-ins for what metrics are given."""

from collections.abc import Iterator

import torch
from torch import Tensor

from stylegan.models.stylegan2 import Generator, GeneratorConfig
from stylegan.perceptual.detector import AbstractDetector, AbstractDistance, as_rgb


class PlainDetector(AbstractDetector):
    """Random projections of 8x8 means: real features of real pixels, at no cost."""

    name = "plain"
    weights = "plain.pt"
    weights_sha256 = "0" * 64
    resize = "area to 8"
    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(5)
        self.matrix = torch.nn.Parameter(torch.randn(192, 24, generator=stream))
        self.classes = torch.nn.Parameter(torch.randn(24, 10, generator=stream))
        self.num_seen = 0

    def prepare(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return torch.nn.functional.adaptive_avg_pool2d(as_rgb(images).float() / 255, 8)

    def forward(self, prepared: Tensor) -> Tensor:
        self.num_seen += len(prepared)
        # one by one: matrix products of several rows round otherwise than those of one
        return torch.cat([row[None] @ self.matrix for row in prepared.flatten(1)])

    def probabilities(self, features: Tensor) -> Tensor:
        return (features @ self.classes).softmax(dim=1)


class PlainDistance(AbstractDistance):
    """Squared differences of pixels; of the name of a detector."""

    name = "plain"
    weights = "plain-distance.pt"
    weights_sha256 = "2" * 64

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        yield images


def plain_generator(**options) -> Generator:
    config = GeneratorConfig(
        **{
            "resolution": 16,
            "z_dim": 8,
            "w_dim": 12,
            "mapping_layers": 2,
            "channel_base": 64,
            "channel_max": 6,
        }
        | options
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Generator(config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.5)
    return network.eval().requires_grad_(False)
