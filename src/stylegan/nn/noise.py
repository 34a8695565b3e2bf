"""The noise inputs of layers, drawn in advance so that compiled layers draw no random numbers."""

from typing import Literal, get_args

from torch import Tensor

from stylegan.rng import Source, randn_rows

NoiseMode = Literal["const", "random", "none"]


def check_noise_mode(mode: NoiseMode) -> None:
    """Raise ValueError if there is no such mode."""
    if mode not in get_args(NoiseMode):
        raise ValueError(f"noise_mode must be const, random or none, got {mode!r}")


def layer_noise(stored: Tensor, num: int, mode: NoiseMode, source: Source | None) -> Tensor | None:
    """Return the noise of a layer, before its learned strength.

    Args:
        stored: the layer's stored noise, [H, W].
        num: images in the batch.
        mode: "const" for the stored noise, "random" for new noise, "none" for none.
        source: source of random noise; None for torch's global generator.

    Returns:
        [H, W], or [N, 1, H, W], or None.
    """
    if mode == "none":
        return None
    return stored if mode == "const" else randn_rows([num, 1, *stored.shape], source, stored.device)
