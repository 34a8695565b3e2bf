"""The stored noise of a synthesis network: read, replace for one call, overwrite."""

from collections.abc import Mapping

import torch
from torch import Tensor

from stylegan.models.base import AbstractGenerator

_SUFFIX = ".noise_const"


def noise_maps(generator: AbstractGenerator) -> dict[str, Tensor]:
    """Return the stored noise of each layer, coarsest first: [H, W] of the layer.

    Keys are module names in `generator.synthesis`, such as "b8.conv0". The tensors are the
    network's buffers, not copies. A network without noise gives an empty dictionary.
    """
    return {
        name.removesuffix(_SUFFIX): buffer
        for name, buffer in generator.synthesis.named_buffers()
        if name.endswith(_SUFFIX)
    }


def synthesize(generator: AbstractGenerator, ws: Tensor, *, noise: Mapping[str, Tensor]) -> Tensor:
    """Make images with noise other than the stored noise, without changing the network.

    Args:
        generator: any generator. Gradients flow to `ws` and the noise.
        ws: [N, num_ws, w_dim].
        noise: noise by layer name, [H, W] for all images or [N, 1, H, W]; other layers use their
            stored noise.

    Returns:
        [N, C, H, W], as `generator.synthesis`.

    Raises:
        KeyError: if the network has no such layer.
    """
    stored = noise_maps(generator)
    for layer in noise:
        if layer not in stored:
            raise KeyError(f"no layer {layer} with noise; there are {', '.join(stored) or 'none'}")
    images: Tensor = torch.func.functional_call(
        generator.synthesis,
        {layer + _SUFFIX: values for layer, values in noise.items()},
        (ws,),
        {"noise_mode": "const"},
    )
    return images


def store_noise(generator: AbstractGenerator, noise: Mapping[str, Tensor]) -> None:
    """Overwrite the stored noise of layers, [H, W] each, in place.

    Raises:
        KeyError: if the network has no such layer.
        ValueError: if noise has another size than the layer.
    """
    stored = noise_maps(generator)
    for layer, values in noise.items():
        if stored[layer].shape != values.shape:
            raise ValueError(
                f"noise of {layer} must be {list(stored[layer].shape)}, got {list(values.shape)}"
            )
    with torch.no_grad():
        for layer, values in noise.items():
            stored[layer].copy_(values)
