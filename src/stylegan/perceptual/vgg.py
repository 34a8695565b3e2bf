"""VGG16: features for precision and recall, and LPIPS."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from stylegan.perceptual.detector import (
    AbstractDetector,
    AbstractDistance,
    as_rgb,
    as_rgb_uint8,
    in_batches,
    load_weights,
    resize_linear,
    unit_norm,
)

SIZE = 224
# Mean and std of ImageNet in [0, 1], of red, green and blue.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The same for images in [-1, 1], rounded as in the training of LPIPS.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Convolutions between two poolings, by their number in the published file.
_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_WIDTHS = (64, 128, 256, 512, 512)
_CPU_BATCH = 4  # batch size on a CPU
_LINEAR = Path(__file__).with_name("lpips_vgg16.safetensors")


class _Stages(nn.Module):
    """The convolutions of VGG16.

    Source: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", table 1, column D.

    Args:
        state: tensors under the names of the published file; those after the last stage are
            ignored.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        channels = 3
        self.features = nn.ModuleDict()
        with torch.device("meta"):
            for numbers, width in zip(_STAGES, _WIDTHS, strict=True):
                for number in numbers:
                    self.features[str(number)] = nn.Conv2d(channels, width, 3, padding=1)
                    channels = width
        # channels_last is faster on a CPU.
        load_weights(self, {k: _ordered(v) for k, v in state.items() if k.startswith("features.")})

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """Yield relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of normalized [N, 3, H, W]."""
        x = x.contiguous(memory_format=torch.channels_last)
        for index, numbers in enumerate(_STAGES):
            if index > 0:
                x = F.max_pool2d(x, 2)
            for number in numbers:
                x = F.relu_(self.features[str(number)](x))
            yield x


class VGG16(AbstractDetector):
    """The second fully connected layer of VGG16 after its ReLU, 4096 features.

    The official precision and recall use the weights of Keras. The weights of torchvision, which
    are used here, shift values slightly (docs/metrics.md).

    Source: Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing
    Generative Models", section 3, for the choice of the layer.

    Args:
        state: tensors under the names of torchvision's file.
    """

    name = "vgg16"
    resize = "bilinear to 224"
    num_features = 4096

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stages = _Stages(state)
        with torch.device("meta"):
            first, second = nn.Linear(512 * 7 * 7, 4096), nn.Linear(4096, 4096)
        self.classifier = nn.ModuleDict({"0": first, "3": second})
        used = ("classifier.0.", "classifier.3.")
        ours = {k.removeprefix("classifier."): v for k, v in state.items() if k.startswith(used)}
        load_weights(self.classifier, ours)
        self.requires_grad_(False).eval()

    def prepare(self, images: Tensor) -> Tensor:
        """Map uint8 [N, C, H, W] to float32 [N, 3, 224, 224], normalized as for ImageNet."""
        x = resize_linear(as_rgb_uint8(images), SIZE, antialias=False) / 255
        return (x - _channels(_MEAN, x)) / _channels(_STD, x)

    def forward(self, prepared: Tensor) -> Tensor:
        """Map [N, 3, 224, 224] to features [N, 4096]."""
        parts = []
        for part in in_batches(prepared, _CPU_BATCH):
            for last in self.stages(part):
                x = last  # keep only the last stage, so that the others are freed
            x = F.max_pool2d(x, 2).contiguous().flatten(1)
            parts.append(F.relu(self.classifier["3"](F.relu(self.classifier["0"](x)))))
        return torch.cat(parts)


class LPIPS(AbstractDistance):
    """Learned perceptual image patch similarity, version 0.1, with VGG16; no resizing.

    The features of five layers are normalized over channels; squared differences are weighted by
    channel, averaged over positions and summed over layers. The channel weights are the published
    ones (lpips_vgg16.LICENSE).

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", equation 1.

    Args:
        state: VGG16's tensors under the names of torchvision's file.
    """

    name = "lpips-vgg16"
    smallest = 16  # pixels; pooling halves the size four times

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stages = _Stages(state)
        linear = load_file(_LINEAR)
        for index in range(len(_STAGES)):
            # The root, since squared differences of the yielded features add up to the distance.
            root = linear[f"lin{index}"].sqrt().view(1, -1, 1, 1)
            self.register_buffer(f"root{index}", root, persistent=False)

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield five layers of [N, C, H, W], H and W at least 16, nominally in [-1, 1]."""
        x = as_rgb(images.to(torch.float32))
        if min(x.shape[2:]) < self.smallest:
            raise ValueError(f"LPIPS needs images of 16 pixels or more, got {list(x.shape)}")
        x = (x - _channels(_SHIFT, x)) / _channels(_SCALE, x)
        for index, features in enumerate(self.stages(x)):
            num_places = features.shape[2] * features.shape[3]
            root = self.get_buffer(f"root{index}")
            yield unit_norm(features) * (root / math.sqrt(num_places))


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(1, -1, 1, 1)


def _ordered(tensor: Tensor) -> Tensor:
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)
