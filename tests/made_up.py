"""Made-up weights of feature networks, by the rule of the conformance data."""

from unittest import mock

import torch
from torch import Tensor

from stylegan.perceptual import inception

VGG16_CONVOLUTIONS = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}


def tensors(shapes: dict[str, tuple[int, ...]], *, seed: int) -> dict[str, Tensor]:
    """Draw as tests/parity/README.md says of inception-v3-fid.npz."""
    state = {}
    for index, name in enumerate(sorted(shapes)):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        r = torch.randn(shapes[name], generator=torch.Generator().manual_seed(seed + index))
        if name.endswith("running_var"):
            state[name] = 1 + 0.1 * r.abs()
        elif r.ndim >= 2:
            state[name] = r * (2 / r[0].numel()) ** 0.5
        elif name.endswith("bn.weight"):
            state[name] = 1 + 0.1 * r
        else:
            state[name] = 0.1 * r
    return state


def inception_v3(*, seed: int = 5) -> dict[str, Tensor]:
    """All 566 tensors of the published file, with its names and shapes."""
    with mock.patch.object(inception, "load_weights"):  # a network of shapes alone
        folded = inception.InceptionV3({}).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in folded.items():
        layer, _, kind = name.rpartition(".")
        if layer == "fc":
            shapes[name] = tuple(tensor.shape)
        elif kind == "weight":
            shapes[f"{layer}.conv.weight"] = tuple(tensor.shape)
            for statistic in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{layer}.bn.{statistic}"] = (tensor.shape[0],)
            shapes[f"{layer}.bn.num_batches_tracked"] = ()
    return tensors(shapes, seed=seed)


def vgg16_convolutions(*, seed: int = 900) -> dict[str, Tensor]:
    """The 26 tensors of torchvision's file before its dense layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (num_out, num_in) in VGG16_CONVOLUTIONS.items():
        shapes[f"features.{number}.weight"] = (num_out, num_in, 3, 3)
        shapes[f"features.{number}.bias"] = (num_out,)
    return tensors(shapes, seed=seed)
