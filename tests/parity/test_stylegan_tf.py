"""Our StyleGAN computes what the official network computes (arrays: see README.md)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.interop.tensorflow_pickle import TensorFlowNetwork, read_tensorflow_pickle
from stylegan.interop.tensorflow_stylegan import build_stylegan, family_of_tensorflow
from stylegan.models.stylegan import Discriminator, Generator
from stylegan.ops.box import upsample_nearest

HERE = Path(__file__).parent


@dataclass
class Case:
    arrays: dict[str, Tensor]
    networks: dict[str, TensorFlowNetwork]
    generator: Generator
    discriminator: Discriminator

    def check(self, name: str, found: Tensor) -> None:
        """Compare within the tolerance of README.md."""
        expected = self.arrays[name]
        tolerance = 1e-4 * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found.detach(), expected, rtol=0, atol=tolerance)


@pytest.fixture
def case() -> Case:
    networks = read_tensorflow_pickle(HERE / "stylegan-tf.pkl")
    generator = build_stylegan(networks["Gs"], origin="Gs")
    discriminator = build_stylegan(networks["D"], origin="D")
    assert isinstance(generator, Generator)
    assert isinstance(discriminator, Discriminator)
    with np.load(HERE / "stylegan-tf.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return Case(arrays, networks, generator, discriminator)


def test_the_file_is_recognized(case):
    assert family_of_tensorflow(case.networks) == "stylegan"
    assert family_of_tensorflow({"D": case.networks["D"]}) == "stylegan"
    config = case.generator.config
    assert (config.resolution, config.z_dim, config.w_dim, config.c_dim) == (16, 24, 32, 0)
    assert (config.mapping_layers, config.mapping_width) == (4, 28)
    assert config.styles
    assert config.constant_input
    assert config.noise


def test_styles_agree(case):
    ws = case.generator.mapping(case.arrays["z"])
    assert ws.shape == (8, 6, 32)
    case.check("w", ws[:, 0])


def test_images_agree(case):
    case.check("image", case.generator(case.arrays["z"]))
    truncated = case.generator(case.arrays["z"], truncation_psi=0.7, truncation_cutoff=4)
    case.check("image_trunc_psi0_7_cutoff4", truncated)


def test_images_agree_while_growing(case):
    case.generator.lod = 1
    small = case.generator(case.arrays["z"])
    assert small.shape == (8, 3, 8, 8)
    case.check("image_lod1", upsample_nearest(small))
    case.generator.lod = 0.5
    case.check("image_lod0_5", case.generator(case.arrays["z"]))


def test_logits_agree(case):
    case.check("logits", case.discriminator(case.arrays["image"]))
    case.discriminator.lod = 0.5
    logits = case.discriminator(case.arrays["image_lod0_5"])
    case.check("logits_of_image_lod0_5_at_lod0_5", logits)


@pytest.mark.parametrize("fused_scale", [True, "auto", False])
def test_kernels_of_joined_up_convolutions_are_turned(case, fused_scale):
    """Joined from 128x128 on where the file says "auto", everywhere or nowhere otherwise."""
    network = case.networks["Gs"]
    variables = dict(network.variables)
    if fused_scale is True:
        for name in variables:
            if name.endswith("Conv0_up/weight"):
                variables[name] = variables[name].flip(0, 1)
    said = dict(network.static_kwargs) | {"fused_scale": fused_scale}
    network = replace(network, variables=variables, static_kwargs=said)
    case.check("image", build_stylegan(network, origin="Gs")(case.arrays["z"]))
