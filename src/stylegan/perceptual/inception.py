"""The Inception-v3 of FID: TensorFlow's network of 2015-12-05 with its resizing."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.perceptual.detector import (
    AbstractDetector,
    as_rgb_uint8,
    fold_batch_norm,
    in_batches,
    load_weights,
)

SIZE = 299
_EPS = 1e-3
_CPU_BATCH = 8  # batch size on a CPU


def resize_like_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Resize [N, C, H, W] bilinearly to float32 [N, C, size, size], as TensorFlow 1 does.

    Output pixel i is sampled at `i * (in / out)` of the input: neither the centers nor the edges of
    corner pixels are aligned, and reduction skips pixels. The definition of FID includes this.
    """
    columns = _interpolated(images, size, dim=3)
    return _interpolated(columns, size, dim=2)


def _interpolated(images: Tensor, size: int, *, dim: int) -> Tensor:
    length = images.shape[dim]
    step = torch.tensor(length, dtype=torch.float32) / size  # rounded as TensorFlow rounds it
    place = torch.arange(size, dtype=torch.float32) * step
    low = place.to(torch.int64).clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    shape = [-1 if axis == dim else 1 for axis in range(4)]
    weight = (place - low).view(shape).to(images.device)
    first = images.index_select(dim, low.to(images.device)).to(torch.float32)
    second = images.index_select(dim, high.to(images.device)).to(torch.float32)
    return first + (second - first) * weight


class InceptionV3(AbstractDetector):
    """The Inception-v3 of FID: the 2048 features of the last average pooling.

    Differences from torchvision's network: 1008 classes, average pooling excludes padding, and the
    pooling branch of the last block (Mixed_7c) takes the maximum. Batch normalization is folded
    into the convolutions, which changes features only by rounding.

    Source: Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision"; for
    its use Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule".

    Args:
        state: tensors under the names of the published file.
    """

    name = "inception-v3"
    resize = "bilinear-tf1 to 299"
    num_features = 2048

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):
            self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
            self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
            self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
            self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
            self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
            self.Mixed_5b = _BlockA(192, pool=32)
            self.Mixed_5c = _BlockA(256, pool=64)
            self.Mixed_5d = _BlockA(288, pool=64)
            self.Mixed_6a = _BlockB(288)
            self.Mixed_6b = _BlockC(width=128)
            self.Mixed_6c = _BlockC(width=160)
            self.Mixed_6d = _BlockC(width=160)
            self.Mixed_6e = _BlockC(width=192)
            self.Mixed_7a = _BlockD()
            self.Mixed_7b = _BlockE(1280, pools_maximum=False)
            self.Mixed_7c = _BlockE(2048, pools_maximum=True)
            self.fc = nn.Linear(2048, 1008)
        load_weights(self, _fold_batch_norms(state))

    def prepare(self, images: Tensor) -> Tensor:
        """Map uint8 [N, C, H, W] to float32 [N, 3, 299, 299] in [-1, 1)."""
        return (resize_like_tensorflow1(as_rgb_uint8(images), SIZE) - 128) / 128

    def forward(self, prepared: Tensor) -> Tensor:
        """Map [N, 3, 299, 299] to features [N, 2048]."""
        parts = []
        for part in in_batches(prepared, _CPU_BATCH):
            *_, last = self.taps(part)
            parts.append(last.mean(dim=(2, 3)))
        return torch.cat(parts)

    def taps(self, prepared: Tensor) -> Iterator[Tensor]:
        """Yield the feature maps with 64, 192, 768 and 2048 channels."""
        x = prepared.contiguous(memory_format=torch.channels_last)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        yield x
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        yield x
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        yield x
        yield self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))

    def logits(self, features: Tensor, *, bias: bool) -> Tensor:
        """Map features [N, 2048] to logits of 1008 classes, optionally without the last bias."""
        return F.linear(features, self.fc.weight, self.fc.bias if bias else None)

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features [N, 2048] to probabilities [N, 1008].

        The last bias is omitted, as in the official Inception score.
        """
        return self.logits(features, bias=False).softmax(dim=1)


def _fold_batch_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published tensors to those of the modules here."""
    folded = {name: tensor for name, tensor in state.items() if name.startswith("fc.")}
    for name in state:
        if name.endswith(".conv.weight"):
            layer = name.removesuffix(".conv.weight")
            if f"{layer}.bn.weight" not in state:
                continue  # `load_weights` reports the missing layer
            weight, bias = fold_batch_norm(state, f"{layer}.conv", f"{layer}.bn", eps=_EPS)
            # channels_last makes a CPU 1.5 times as fast.
            folded[f"{layer}.weight"] = weight.contiguous(memory_format=torch.channels_last)
            folded[f"{layer}.bias"] = bias
    return folded


class _Conv(nn.Conv2d):
    """Convolution with ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


def _mean_3x3(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _BlockA(nn.Module):
    """Figure 5 of the paper: 5x5 in parallel with two 3x3."""

    def __init__(self, channels: int, *, pool: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(channels, 64, 1)
        self.branch5x5_1 = _Conv(channels, 48, 1)
        self.branch5x5_2 = _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(channels, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        wide = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), wide, double, self.branch_pool(_mean_3x3(x))], dim=1)


class _BlockB(nn.Module):
    """Figure 10: from 35x35 to 17x17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], dim=1)


class _BlockC(nn.Module):
    """Figure 6: 7x7 as 1x7 and 7x1."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = _Conv(768, 192, 1)
        self.branch7x7_1 = _Conv(768, width, 1)
        self.branch7x7_2 = _Conv(width, width, row, padding=(0, 3))
        self.branch7x7_3 = _Conv(width, 192, column, padding=(3, 0))
        self.branch7x7dbl_1 = _Conv(768, width, 1)
        self.branch7x7dbl_2 = _Conv(width, width, column, padding=(3, 0))
        self.branch7x7dbl_3 = _Conv(width, width, row, padding=(0, 3))
        self.branch7x7dbl_4 = _Conv(width, width, column, padding=(3, 0))
        self.branch7x7dbl_5 = _Conv(width, 192, row, padding=(0, 3))
        self.branch_pool = _Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(_mean_3x3(x))
        return torch.cat([self.branch1x1(x), single, double, pool], dim=1)


class _BlockD(nn.Module):
    """From 17x17 to 8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(768, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(768, 192, 1)
        self.branch7x7x3_2 = _Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        small = self.branch3x3_2(self.branch3x3_1(x))
        large = self.branch7x7x3_2(self.branch7x7x3_1(x))
        large = self.branch7x7x3_4(self.branch7x7x3_3(large))
        return torch.cat([small, large, F.max_pool2d(x, 3, stride=2)], dim=1)


class _BlockE(nn.Module):
    """Figure 7: 3x3 as 1x3 in parallel with 3x1."""

    def __init__(self, channels: int, *, pools_maximum: bool) -> None:
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.pools_maximum = pools_maximum
        self.branch1x1 = _Conv(channels, 320, 1)
        self.branch3x3_1 = _Conv(channels, 384, 1)
        self.branch3x3_2a = _Conv(384, 384, row, padding=(0, 1))
        self.branch3x3_2b = _Conv(384, 384, column, padding=(1, 0))
        self.branch3x3dbl_1 = _Conv(channels, 448, 1)
        self.branch3x3dbl_2 = _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Conv(384, 384, row, padding=(0, 1))
        self.branch3x3dbl_3b = _Conv(384, 384, column, padding=(1, 0))
        self.branch_pool = _Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pool = F.max_pool2d(x, 3, stride=1, padding=1) if self.pools_maximum else _mean_3x3(x)
        outputs = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pool),
        ]
        return torch.cat(outputs, dim=1)
