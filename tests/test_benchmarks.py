"""The plain reference of the benchmarks computes what our networks compute."""

import sys
from pathlib import Path

import pytest
import torch

from stylegan.models.stylegan2 import Discriminator, Generator
from stylegan.nn.equalized import EqualizedConv2d
from stylegan.nn.modulated import SynthesisLayer
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def make_plain(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    from reference import make_plain

    return make_plain


def test_the_reference_makes_the_same_images_and_logits(
    make_plain, generator_config, discriminator_config
):
    generator, discriminator = Generator(generator_config), Discriminator(discriminator_config)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.ones_(parameter)
    z = torch.randn(4, 8)
    images = generator(z)
    logits = discriminator(images)
    make_plain(generator, discriminator)
    torch.testing.assert_close(generator(z), images, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(discriminator(images), logits, rtol=1e-4, atol=1e-4)


def test_the_reference_goes_no_way_through_our_layers(make_plain, run_config, monkeypatch):
    state = TrainState(run_config, torch.device("cpu"))
    make_plain(state.generator, state.discriminator)

    def refuse(*_):
        raise AssertionError("a layer of ours")

    for kind in (SynthesisLayer, EqualizedConv2d):
        monkeypatch.setattr(kind, "forward", refuse)
    train_step(state, torch.randn(8, 3, 16, 16))


def test_the_reference_trains_to_the_same_terms(make_plain, run_config):
    reals = torch.randn(8, 3, 16, 16)
    terms = []
    for is_plain in (False, True):
        state = TrainState(run_config, torch.device("cpu"))
        if is_plain:
            make_plain(state.generator, state.discriminator)
        terms.append(train_step(state, reals))
    ours, plain = terms
    assert ours.keys() == plain.keys()
    for name, value in ours.items():  # G has moved by one step of Adam when D is trained
        torch.testing.assert_close(plain[name], value, rtol=1e-3, atol=1e-4, msg=name)
