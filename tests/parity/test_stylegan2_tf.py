"""Our StyleGAN2 computes what the official TensorFlow code computes (arrays: see README.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.interop.load import load_networks
from stylegan.models.base import Networks

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def arrays() -> dict[str, Tensor]:
    with np.load(HERE / "stylegan2-tf.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(HERE / "stylegan2-tf.pkl")


def check(found: Tensor, expected: Tensor) -> None:
    """Compare within the tolerance of README.md."""
    tolerance = 1e-4 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=tolerance)


def test_images_agree(networks, arrays):
    check(networks.generator_ema(arrays["z"]), arrays["image_const"])


def test_truncated_images_agree(networks, arrays):
    images = networks.generator_ema(arrays["z"], truncation_psi=0.5)
    check(images, arrays["image_trunc_psi0_5_const"])


def test_logits_agree(networks, arrays):
    check(networks.discriminator(arrays["image_const"]), arrays["logits"])
