"""The noise inputs of layers: drawn before a layer computes, so that it only computes."""

from typing import Literal

from torch import Tensor

from stylegan.rng import Source, randn_rows

NoiseMode = Literal["const", "random", "none"]


def layer_noise(stored: Tensor, num: int, mode: NoiseMode, source: Source | None) -> Tensor | None:
    """Return the noise of a layer, before its learned strength.

    Args:
        stored: of the layer, [R, R].
        num: images in the batch.
        mode: "const" takes what is stored, "random" draws, "none" adds none.
        source: of random noise; None takes torch's global stream.

    Returns:
        [R, R], or [N, 1, R, R], or None.
    """
    if mode == "none":
        return None
    return stored if mode == "const" else randn_rows([num, 1, *stored.shape], source, stored.device)
