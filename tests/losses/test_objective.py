import math
from dataclasses import replace

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
    show,
    styles,
)
from stylegan.losses.regularizers import gradient_penalty, r1_penalty
from stylegan.models.stylegan2 import Discriminator, Generator
from stylegan.ops.box import downsample_box, upsample_nearest


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


WGAN = LossConfig(adversarial="wgan-gp", gamma=0, r1_interval=None, pl_weight=0)


def test_the_wasserstein_game_with_drift_and_gradient_penalty(generator, discriminator):
    draw = Draw(z=torch.randn(4, 8))
    loss = generator_loss(generator, discriminator, draw, config=WGAN)
    fakes = generator(draw.z).detach()
    torch.testing.assert_close(loss.total, -discriminator(fakes).mean())
    reals, positions = torch.randn(4, 3, 16, 16), torch.rand(4)
    config = replace(WGAN, gp_weight=5.0, gp_target=2.0, drift=0.5)
    loss = discriminator_loss(discriminator, reals, fakes, config=config, positions=positions)
    real_logits, fake_logits = discriminator(reals), discriminator(fakes)
    u = positions.reshape(4, 1, 1, 1)
    between = ((1 - u) * reals + u * fakes).requires_grad_()
    (grad,) = torch.autograd.grad(discriminator(between).sum(), between)
    penalty = ((grad.square().sum(dim=(1, 2, 3)).sqrt() - 2) / 2).square().mean()
    expected = (fake_logits - real_logits).mean() + 0.5 * real_logits.square().mean() + 5 * penalty
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.terms["loss/D"], (fake_logits - real_logits).mean().detach())
    without = discriminator_loss(
        discriminator, reals, fakes, config=replace(WGAN, gp_weight=0.0, drift=0.0)
    )
    assert "gradient_penalty" not in without.terms
    with pytest.raises(ValueError, match="wgan-gp needs positions"):
        discriminator_loss(discriminator, reals, fakes, config=WGAN)


def test_r1_without_an_interval_is_part_of_the_main_loss(discriminator):
    reals, fakes = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    plain = discriminator_loss(discriminator, reals, fakes, config=LossConfig(gamma=0))
    config = LossConfig(gamma=3.0, r1_interval=None)
    loss = discriminator_loss(discriminator, reals, fakes, config=config)
    r1 = r1_loss(discriminator, reals, config=config)
    torch.testing.assert_close(loss.total, plain.total + r1.total)
    torch.testing.assert_close(r1.total.detach(), loss.terms["r1/penalty"] * 1.5)


def test_mipmaps_are_compared_whole_and_their_paths_measured_at_the_largest(
    generator_config, discriminator_config
):
    generator = Generator(replace(generator_config, architecture="mipmap"))
    discriminator = Discriminator(replace(discriminator_config, architecture="mipmap"))
    draw = Draw(z=torch.randn(4, 8))
    fakes = show(generator, generator.mapping(draw.z), draw)
    assert [image.shape[-1] for image in fakes] == [16, 8, 4]
    loss = generator_loss(generator, discriminator, draw, config=LossConfig())
    grads = torch.autograd.grad(loss.total, [*generator.parameters()], allow_unused=True)
    assert sum(grad is None for grad in grads) == 0
    reals = torch.randn(4, 3, 16, 16)
    config = LossConfig(r1_interval=None)
    assert discriminator_loss(discriminator, reals, fakes, config=config).terms["r1/penalty"] > 0
    noise = torch.randn(4, 3, 16, 16)
    path_length_loss(generator, draw, pl_noise=noise, pl_mean=torch.zeros([]), config=config)


def test_gradient_penalties_of_a_growing_discriminator_are_those_of_the_published_one(
    generator_config, discriminator_config
):
    discriminator = Discriminator(replace(discriminator_config, architecture="growing")).double()
    discriminator.lod = 1.5
    small, positions = torch.randn(2, 3, 8, 8).double(), torch.rand(2).double()
    r1 = r1_loss(discriminator, small, config=LossConfig())
    wgan = discriminator_loss(discriminator, small, small.flip(0), config=WGAN, positions=positions)

    def published(images):  # takes 16x16, reduces within
        return discriminator(downsample_box(images))

    large = upsample_nearest(small).requires_grad_()
    torch.testing.assert_close(
        r1.terms["r1/penalty"], r1_penalty(published(large), large).mean().detach()
    )
    between = large.detach().lerp(upsample_nearest(small.flip(0)), positions[:, None, None, None])
    between.requires_grad_()
    torch.testing.assert_close(
        wgan.terms["gradient_penalty"],
        gradient_penalty(published(between), between).mean().detach(),
    )


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
        ({"gp_target": 0}, "loss.gp_target 0"),
        ({"adversarial": "wgan-gp"}, "loss.gamma 10 with loss.adversarial wgan-gp"),
        ({"mixing_prob": 1.5}, "loss.mixing_prob 1.5"),
    ],
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LossConfig(**options)
