"""Our StyleGAN2 computes what the official PyTorch code computes (arrays: see README.md)."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.interop.nvidia import load_official_pickle
from stylegan.models.stylegan2 import Discriminator, Generator, set_conv_form

HERE = Path(__file__).parent
STEMS = sorted(path.stem for path in HERE.glob("stylegan2-torch-*.pkl"))


@dataclass
class Case:
    arrays: dict[str, Tensor]
    generator: Generator
    discriminator: Discriminator

    def check(self, name: str, found: Tensor) -> None:
        """Compare within the tolerance of README.md."""
        expected = self.arrays[name]
        tolerance = 1e-4 * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found.detach(), expected, rtol=0, atol=tolerance)

    def labels(self, num: int) -> Tensor | None:
        return self.arrays["c"][:num] if self.generator.c_dim else None

    def styles(self, num: int = 8) -> Tensor:
        return self.generator.mapping(self.arrays["z"][:num], self.labels(num))


@pytest.fixture(params=[(stem, form) for stem in STEMS for form in ("scaled", "grouped")])
def case(request) -> Case:
    stem, form = request.param
    networks = load_official_pickle(HERE / f"{stem}.pkl")
    assert isinstance(networks.generator_ema, Generator)
    assert isinstance(networks.discriminator, Discriminator)
    set_conv_form(networks.generator_ema, form)
    with np.load(HERE / f"{stem}.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return Case(arrays, networks.generator_ema, networks.discriminator)


def test_all_four_files_are_here():
    assert [stem.removeprefix("stylegan2-torch-") for stem in STEMS] == [
        "orig-orig",
        "resnet-skip",
        "skip-resnet",
        "skip-resnet-c5",
    ]


def test_styles_agree(case):
    case.check("ws", case.styles())
    truncated = case.generator.mapping(
        case.arrays["z"], case.labels(8), truncation_psi=0.6, truncation_cutoff=3
    )
    case.check("ws_trunc_psi0_6_cutoff3", truncated)


def test_images_agree(case):
    ws = case.arrays["ws"]
    case.check("image_const", case.generator.synthesis(ws, noise_mode="const"))
    case.check("image_none", case.generator.synthesis(ws, noise_mode="none"))
    truncated = case.arrays["ws_trunc_psi0_6_cutoff3"]
    case.check("image_trunc_const", case.generator.synthesis(truncated, noise_mode="const"))


def test_the_whole_generator_agrees(case):
    images = case.generator(case.arrays["z"], case.labels(8))
    case.check("image_const", images)
    images = case.generator(
        case.arrays["z"], case.labels(8), truncation_psi=0.6, truncation_cutoff=3
    )
    case.check("image_trunc_const", images)


def test_logits_agree(case):
    case.check("logits", case.discriminator(case.arrays["image_const"], case.labels(8)))


def test_r1_and_its_gradient_agree(case):
    images = case.arrays["image_const"][:4].clone().requires_grad_()
    logits = case.discriminator(images, case.labels(4))
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    r1 = slope.square().sum(dim=(1, 2, 3))
    case.check("r1_per_image_first4", r1)
    (gradient,) = torch.autograd.grad(r1.mean(), case.discriminator.b4.conv.weight)
    case.check("grad_mean_r1_wrt_b4_conv_weight", gradient)


def test_path_lengths_and_their_gradient_agree(case):
    ws = case.styles(4)
    images = case.generator.synthesis(ws, noise_mode="const")
    noise = case.arrays["pl_noise"] / math.sqrt(images.shape[2] * images.shape[3])
    (slope,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()
    case.check("pl_lengths_first4", lengths)
    weight = case.generator.synthesis.b8.conv1.weight
    (gradient,) = torch.autograd.grad((lengths - 0.1).square().mean(), weight)
    case.check("grad_mean_sq_pl_minus_0_1_wrt_synthesis_b8_conv1_weight", gradient)
