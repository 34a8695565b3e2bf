import math

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.losses.objective import (
    Draw,
    LossConfig,
    discriminator_loss,
    generator_loss,
    path_length_loss,
    r1_loss,
    styles,
)
from stylegan.models.stylegan2 import Discriminator, Generator


@pytest.fixture
def generator(generator_config):
    return Generator(generator_config)


@pytest.fixture
def discriminator(discriminator_config):
    return Discriminator(discriminator_config)


def test_mixing_takes_the_second_latents_from_the_crossover_on(generator):
    z, z_mix = torch.randn(2, 8), torch.randn(2, 8)
    ws, unmixed = styles(generator, Draw(z=z, z_mix=z_mix, crossover=2))
    assert torch.equal(unmixed, generator.mapping(z))
    assert torch.equal(ws[:, :2], generator.mapping(z)[:, :2])
    assert torch.equal(ws[:, 2:], generator.mapping(z_mix)[:, 2:])


def test_losses_start_near_log_two_a_term(generator, discriminator):
    draw = Draw(z=torch.randn(8, 8))
    loss = generator_loss(generator, discriminator, draw, config=LossConfig())
    assert loss.total.item() == loss.terms["loss/G"].item()
    assert not loss.terms["loss/G"].requires_grad
    torch.nn.init.zeros_(discriminator.b4.out.weight)
    fakes = generator(draw.z)
    reals = torch.randn_like(fakes)
    loss = discriminator_loss(discriminator, reals, fakes, config=LossConfig())
    torch.testing.assert_close(loss.total.item(), 2 * math.log(2))


def test_r1_is_weighted_by_half_gamma_and_the_interval(discriminator):
    reals = torch.randn(4, 3, 16, 16)
    loss = r1_loss(discriminator, reals, config=LossConfig(gamma=3.0, r1_interval=5))
    torch.testing.assert_close(loss.total.detach(), loss.terms["r1/penalty"] * 1.5 * 5)


def test_path_length_is_weighted_by_weight_and_interval(generator):
    loss, mean = path_length_loss(
        generator,
        Draw(z=torch.randn(4, 8)),
        pl_noise=torch.randn(4, 3, 16, 16),
        pl_mean=torch.zeros([]),
        config=LossConfig(pl_weight=3.0, pl_interval=5),
    )
    torch.testing.assert_close(loss.total.detach(), loss.terms["path_length/penalty"] * 15)
    torch.testing.assert_close(mean, loss.terms["path_length/mean"] * 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1}, "loss.gamma -1"),
        ({"r1_interval": 0}, "loss.r1_interval 0"),
        ({"mixing_prob": 1.5}, "loss.mixing_prob 1.5"),
    ],
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LossConfig(**options)
