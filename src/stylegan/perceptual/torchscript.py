"""The official detectors as TorchScript files: the only file that reads such.

A TorchScript file holds tensors and operations on tensors, which TorchScript's own interpreter
runs; no Python in it is run. It is a program all the same, so nothing here downloads one: a user
puts it into the folder of weights, and it then takes the place of our network.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from stylegan.errors import WeightsError
from stylegan.perceptual.detector import (
    AbstractDetector,
    AbstractDistance,
    as_rgb,
    as_rgb_bytes,
    in_parts,
)
from stylegan.perceptual.weights import Located

_PART = 8  # images at a time on a CPU
_TOLERANCE = 1e-4  # of probabilities, between the file's and ours of its features


class _ScriptedDetector(AbstractDetector):
    """An official detector; it resizes by itself.

    Args:
        located: the TorchScript file.

    Raises:
        WeightsError: if it is no TorchScript file, or does not answer as the official one.
    """

    resize = "by the official file"

    def __init__(self, located: Located) -> None:
        super().__init__()
        self.weights, self.weights_sha256 = located.path.name, located.sha256
        self.located = located
        self.network = _loaded(located)
        # So that the detector has a device, even if its file keeps its weights as buffers.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        probe = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        _check_shape(located, lambda: self(probe), (1, self.num_features))

    def prepare(self, images: Tensor) -> Tensor:
        """Return uint8 [N, 3, H, W] of the size that they came in, as RGB.

        The network resizes and normalizes by itself, so images of different sizes can only be
        joined as features.
        """
        return as_rgb_bytes(images).contiguous()

    def forward(self, prepared: Tensor) -> Tensor:
        """Map uint8 [N, 3, H, W] to features [N, num_features]."""
        parts = in_parts(prepared, _PART)
        return torch.cat([self.network(part, return_features=True).float() for part in parts])


class ScriptedInception(_ScriptedDetector):
    """The official Inception-v3 of `inception-2015-12-05.pt`."""

    name = "inception-v3"
    num_features = 2048

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features [N, 2048] to probabilities [N, 1008], without the last bias.

        The file maps images to probabilities, so its last layer is found by trial first.

        Raises:
            WeightsError: if no matrix of the file explains the probabilities that it gives.
        """
        if not hasattr(self, "last"):
            self.register_buffer("last", self._last_layer(), persistent=False)
        return (features @ self.get_buffer("last").T).softmax(dim=1)

    @torch.no_grad()
    def _last_layer(self) -> Tensor:
        stream = torch.Generator().manual_seed(0)
        probe = torch.randint(0, 256, [2, 3, 64, 64], generator=stream, dtype=torch.uint8)
        probe = probe.to(self.place.device)
        features = self(probe)
        expected = self.network(probe, no_output_bias=True).float()
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            for matrix in (tensor.float().squeeze(), tensor.float().squeeze().T):
                if matrix.shape != (expected.shape[1], features.shape[1]):
                    continue
                found = (features @ matrix.T).softmax(dim=1)
                if (found - expected).abs().max() < _TOLERANCE:
                    return matrix
        raise _unusable(self.located, "gives probabilities that its features do not explain")


class ScriptedVGG16(_ScriptedDetector):
    """The official VGG16 of `vgg16.pt`, with Keras' weights."""

    name = "vgg16"
    num_features = 4096


class ScriptedLPIPS(AbstractDistance):
    """LPIPS of the official `vgg16.pt`.

    Args:
        located: the TorchScript file.

    Raises:
        WeightsError: if it is no TorchScript file, or does not answer as the official one.
    """

    name = "lpips-vgg16"
    smallest = 16

    def __init__(self, located: Located) -> None:
        super().__init__()
        self.weights, self.weights_sha256 = located.path.name, located.sha256
        self.network = _loaded(located)
        # 64x64 at all five layers: the sum of channels times places.
        num = 64 * 64**2 + 128 * 32**2 + 256 * 16**2 + 512 * 8**2 + 512 * 4**2
        _check_shape(located, lambda: self.embed(torch.zeros(1, 3, 64, 64)), (1, num))

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the file's answer, which holds all layers, for [N, C, H, W] in [-1, 1]."""
        x = (as_rgb(images.to(torch.float32)) + 1) * 127.5
        yield self.network(x, resize_images=False, return_lpips=True).float()


def _loaded(located: Located) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # PyTorch advises against new files of this kind; the official ones are what they are.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            network: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                located.path, map_location="cpu"
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise _unusable(located, "is no TorchScript file") from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


@torch.no_grad()
def _check_shape(located: Located, answer: Callable[[], Tensor], shape: tuple[int, ...]) -> None:
    """Refuse a file that is called in another way, or answers something else."""
    try:
        found = tuple(answer().shape)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise _unusable(located, "is not called as the official file is") from error
    if found != shape:
        raise _unusable(located, f"gives features of shape {list(found)}, not {list(shape)}")


def _unusable(located: Located, found: str) -> WeightsError:
    return WeightsError(
        f"{located.path} {found}",
        expected="the official TorchScript file of that name",
        fix="remove it from the folder, so that our own network is used",
    )
