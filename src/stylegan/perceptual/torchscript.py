"""The official feature networks as TorchScript files, which replace our networks.

A TorchScript file holds tensors and operations on tensors for the interpreter of TorchScript; no
Python in it is run. It is a program nevertheless. Nothing here downloads one, and only files with a
known checksum are loaded unless the user allows others.
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
    as_rgb_uint8,
    in_batches,
)
from stylegan.perceptual.weights import Located

_CPU_BATCH = 8  # batch size on a CPU
_TOLERANCE = 1e-4  # maximum difference of probabilities


class _ScriptedDetector(AbstractDetector):
    """An official feature network, which resizes images itself.

    Args:
        located: the TorchScript file.

    Raises:
        WeightsError: if it is not a TorchScript file, or does not behave as the official one.
    """

    resize = "by the official file"

    def __init__(self, located: Located) -> None:
        super().__init__()
        self.weights, self.weights_sha256 = located.path.name, located.sha256
        self.located = located
        self.network = _loaded(located)
        # A parameter, so that the module has a device even if the file has buffers only.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        probe = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        _check_shape(located, lambda: self(probe), (1, self.num_features))

    def prepare(self, images: Tensor) -> Tensor:
        """Return the images as RGB, uint8 [N, 3, H, W].

        The network resizes and normalizes them itself.
        """
        return as_rgb_uint8(images).contiguous()

    def forward(self, prepared: Tensor) -> Tensor:
        """Map uint8 [N, 3, H, W] to features [N, num_features]."""
        parts = in_batches(prepared, _CPU_BATCH)
        return torch.cat([self.network(part, return_features=True).float() for part in parts])


class ScriptedInception(_ScriptedDetector):
    """The official Inception-v3 of `inception-2015-12-05.pt`."""

    name = "inception-v3"
    num_features = 2048

    def probabilities(self, features: Tensor) -> Tensor:
        """Map features [N, 2048] to probabilities [N, 1008], without the last bias.

        The file only maps images to probabilities. Its last layer is found by comparing the results
        of all matrices of this shape.

        Raises:
            WeightsError: if no matrix in the file reproduces its probabilities.
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
                probabilities = (features @ matrix.T).softmax(dim=1)
                if (probabilities - expected).abs().max() < _TOLERANCE:
                    return matrix
        raise _unusable(self.located, "gives probabilities that do not follow from its features")


class ScriptedVGG16(_ScriptedDetector):
    """The official VGG16 of `vgg16.pt`, with the weights of Keras."""

    name = "vgg16"
    num_features = 4096


class ScriptedLPIPS(AbstractDistance):
    """LPIPS of the official `vgg16.pt`.

    Args:
        located: the TorchScript file.

    Raises:
        WeightsError: if it is not a TorchScript file, or does not behave as the official one.
    """

    name = "lpips-vgg16"
    smallest = 16

    def __init__(self, located: Located) -> None:
        super().__init__()
        self.weights, self.weights_sha256 = located.path.name, located.sha256
        self.network = _loaded(located)
        # For 64x64: the sum of channels times positions over the five layers.
        num = 64 * 64**2 + 128 * 32**2 + 256 * 16**2 + 512 * 8**2 + 512 * 4**2
        _check_shape(located, lambda: self.embed(torch.zeros(1, 3, 64, 64)), (1, num))

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the network's output, which contains all layers, for [N, C, H, W] in [-1, 1]."""
        x = (as_rgb(images.to(torch.float32)) + 1) * 127.5
        yield self.network(x, resize_images=False, return_lpips=True).float()


def _loaded(located: Located) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            # PyTorch deprecates TorchScript, but the official files have this format.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            network: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                located.path, map_location="cpu"
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise _unusable(located, "is not a TorchScript file") from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


@torch.no_grad()
def _check_shape(located: Located, answer: Callable[[], Tensor], shape: tuple[int, ...]) -> None:
    """Check that a file can be called as the official one, and returns the same shape."""
    try:
        result = tuple(answer().shape)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise _unusable(located, "cannot be called like the official file") from error
    if result != shape:
        raise _unusable(located, f"gives features of shape {list(result)}, not {list(shape)}")


def _unusable(located: Located, message: str) -> WeightsError:
    return WeightsError(
        f"{located.path} {message}", fix="remove it from the folder to use our own network"
    )
