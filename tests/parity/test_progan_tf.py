"""Our ProGAN computes what the official network computes (arrays: see README.md)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.interop.tensorflow_pickle import TensorFlowNetwork, read_tensorflow_pickle
from stylegan.interop.tensorflow_stylegan import build_progan, family_of_tensorflow
from stylegan.models.progan import Discriminator, Generator

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
    networks = read_tensorflow_pickle(HERE / "progan-tf.pkl")
    generator = build_progan(networks["Gs"], origin="Gs")
    discriminator = build_progan(networks["D"], origin="D")
    assert isinstance(generator, Generator)
    assert isinstance(discriminator, Discriminator)
    with np.load(HERE / "progan-tf.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return Case(arrays, networks, generator, discriminator)


def fused(network: TensorFlowNetwork, *, order: tuple[int, ...], version: int) -> TensorFlowNetwork:
    """Rename a generator's up-convolutions, and turn their kernels, as a fused build has them."""
    variables = dict(network.variables)
    for name in list(variables):
        if "/Conv0/" in name:
            tensor = variables.pop(name)
            if name.endswith("weight"):
                tensor = tensor.flip(0, 1).permute(order)
            variables[name.replace("Conv0", "Conv0_up")] = tensor
    return replace(network, variables=variables, version=version)


def test_the_file_is_recognized(case):
    assert family_of_tensorflow(case.networks) == "progan"
    assert family_of_tensorflow({"D": case.networks["D"]}) == "progan"
    config = case.generator.config
    assert (config.resolution, config.z_dim, config.c_dim) == (16, 24, 0)
    assert not case.discriminator.config.fused_scale


def test_images_agree(case):
    case.check("image", case.generator(case.arrays["z"]))
    case.generator.lod = 0.5
    case.check("image_lod0_5", case.generator(case.arrays["z"]))


def test_logits_agree(case):
    case.check("logits", case.discriminator(case.arrays["image"]))
    # The array's name says lod 0.5, but its discriminator was left at 0: see README.md.
    logits = case.discriminator(case.arrays["image_lod0_5"])
    case.check("logits_of_image_lod0_5_at_lod0_5", logits)


@pytest.mark.parametrize(
    ("order", "version"),
    # [3, 3, out, in] as ProGAN's own code keeps them, [3, 3, in, out] as its copy in StyleGAN's.
    [((0, 1, 3, 2), 2), ((0, 1, 2, 3), 3)],
)
def test_kernels_of_joined_up_convolutions_are_turned(case, order, version):
    network = fused(case.networks["Gs"], order=order, version=version)
    case.check("image", build_progan(network, origin="Gs")(case.arrays["z"]))


@pytest.mark.parametrize(("order", "version"), [((0, 1, 3, 2), 2), ((0, 1, 2, 3), 3)])
def test_where_widths_are_equal_the_version_decides_the_order(case, order, version):
    variables = {k: v for k, v in case.networks["Gs"].variables.items() if "16x16" not in k}
    variables |= {
        f"ToRGB_lod{lod}/{part}": variables.pop(f"ToRGB_lod{lod + 1}/{part}")
        for lod in (0, 1)
        for part in ("weight", "bias")
    }
    said = dict(case.networks["Gs"].static_kwargs) | {"resolution": 8}
    small = replace(case.networks["Gs"], variables=variables, static_kwargs=said)
    z = case.arrays["z"]
    expected = build_progan(small, origin="Gs")(z)
    network = fused(small, order=order, version=version)
    torch.testing.assert_close(build_progan(network, origin="Gs")(z), expected)
