import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from stylegan.errors import ConfigError
from stylegan.losses.objective import (
    GeneratorInputs,
    LogitMeans,
    LossConfig,
    discriminator_input,
    discriminator_loss,
    generator_loss,
    path_length_loss,
    r1_loss,
    sampled_path_lengths,
    styles,
)
from stylegan.losses.regularizers import gradient_penalty, path_lengths, r1_penalty
from stylegan.models import progan
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
    ws, unmixed = styles(generator, GeneratorInputs(z=z, z_mix=z_mix, crossover=2))
    assert torch.equal(unmixed, generator.mapping(z))
    assert torch.equal(ws[:, :2], generator.mapping(z)[:, :2])
    assert torch.equal(ws[:, 2:], generator.mapping(z_mix)[:, 2:])


def test_losses_start_near_log_two_a_term(generator, discriminator):
    draw = GeneratorInputs(z=torch.randn(8, 8))
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
    draw = GeneratorInputs(z=torch.randn(4, 8))
    loss = generator_loss(generator, discriminator, draw, config=WGAN)
    fakes = generator(draw.z).detach()
    torch.testing.assert_close(loss.total, -discriminator(fakes).mean())
    reals, alpha = torch.randn(4, 3, 16, 16), torch.rand(4)
    config = replace(WGAN, gp_weight=5.0, gp_target=2.0, drift=0.5)
    loss = discriminator_loss(discriminator, reals, fakes, config=config, alpha=alpha)
    real_logits, fake_logits = discriminator(reals), discriminator(fakes)
    u = alpha.reshape(4, 1, 1, 1)
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
    with pytest.raises(ValueError, match="wgan-gp needs alpha"):
        discriminator_loss(discriminator, reals, fakes, config=WGAN)


def test_r1_without_an_interval_is_part_of_the_main_loss(discriminator):
    reals, fakes = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    plain = discriminator_loss(discriminator, reals, fakes, config=LossConfig(gamma=0))
    config = LossConfig(gamma=3.0, r1_interval=None)
    loss = discriminator_loss(discriminator, reals, fakes, config=config)
    r1 = r1_loss(discriminator, reals, config=config)
    torch.testing.assert_close(loss.total, plain.total + r1.total)
    torch.testing.assert_close(r1.total.detach(), loss.terms["r1/penalty"] * 1.5)


def test_lecam_is_added_to_the_loss_of_the_discriminator(discriminator):
    reals, fakes = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    means = LogitMeans(real=torch.tensor(7.0), fake=torch.tensor(-5.0))
    plain = discriminator_loss(discriminator, reals, fakes, config=LossConfig())
    config = LossConfig(lecam_weight=0.5)
    loss = discriminator_loss(discriminator, reals, fakes, config=config, logit_means=means)
    logits = discriminator(reals).squeeze(1), discriminator(fakes).squeeze(1)
    penalty = ((logits[0] + 5).square() + (7 - logits[1]).square()).mean()
    torch.testing.assert_close(loss.total, plain.total + 0.5 * penalty)
    torch.testing.assert_close(loss.terms["lecam/penalty"], penalty.detach())
    assert "lecam/penalty" not in plain.terms
    with pytest.raises(ValueError, match="logit_means"):
        discriminator_loss(discriminator, reals, fakes, config=config)


def test_averages_of_logits_move_by_a_hundredth_and_leave_out_what_is_not_finite():
    means = LogitMeans(real=torch.tensor(1.0), fake=torch.tensor(-1.0))
    means = means.updated(torch.tensor(3.0), torch.tensor(float("nan")))
    torch.testing.assert_close(means.real, torch.tensor(1.02))
    assert means.fake == -1


def test_mipmaps_are_compared_whole_and_their_paths_measured_at_the_largest(
    generator_config, discriminator_config
):
    generator = Generator(replace(generator_config, architecture="mipmap"))
    discriminator = Discriminator(replace(discriminator_config, architecture="mipmap"))
    draw = GeneratorInputs(z=torch.randn(4, 8))
    fakes = discriminator_input(generator, generator.mapping(draw.z), draw)
    assert [image.shape[-1] for image in fakes] == [16, 8, 4]
    loss = generator_loss(generator, discriminator, draw, config=LossConfig())
    grads = torch.autograd.grad(loss.total, [*generator.parameters()], allow_unused=True)
    assert sum(grad is None for grad in grads) == 0
    reals = torch.randn(4, 3, 16, 16)
    config = LossConfig(r1_interval=None)
    assert discriminator_loss(discriminator, reals, fakes, config=config).terms["r1/penalty"] > 0
    noise = torch.randn(4, 3, 16, 16)
    lengths = sampled_path_lengths(generator, draw, draw_noise=lambda _: noise)
    path_length_loss(lengths, pl_mean=torch.zeros([]), config=config)


def test_gradient_penalties_of_a_growing_discriminator_are_those_of_the_published_one(
    generator_config, discriminator_config
):
    discriminator = Discriminator(replace(discriminator_config, architecture="growing")).double()
    discriminator.lod = 1.5
    small, alpha = torch.randn(2, 3, 8, 8).double(), torch.rand(2).double()
    r1 = r1_loss(discriminator, small, config=LossConfig())
    wgan = discriminator_loss(discriminator, small, small.flip(0), config=WGAN, alpha=alpha)

    def published(images):  # takes 16x16, reduces within
        return discriminator(downsample_box(images))

    large = upsample_nearest(small).requires_grad_()
    torch.testing.assert_close(
        r1.terms["r1/penalty"], r1_penalty(published(large), large).mean().detach()
    )
    between = large.detach().lerp(upsample_nearest(small.flip(0)), alpha[:, None, None, None])
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
    lengths = sampled_path_lengths(
        generator, GeneratorInputs(z=torch.randn(4, 8)), draw_noise=torch.randn
    )
    config = LossConfig(pl_weight=3.0, pl_interval=5)
    loss, mean = path_length_loss(lengths, pl_mean=torch.zeros([]), config=config)
    torch.testing.assert_close(loss.total.detach(), loss.terms["path_length/penalty"] * 15)
    torch.testing.assert_close(mean, loss.terms["path_length/mean"] * 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1}, "loss.gamma must be 0 or more, got -1"),
        ({"r1_interval": 0}, "loss.r1_interval must be more than 0, got 0"),
        ({"gp_target": 0}, "loss.gp_target must be more than 0, got 0"),
        ({"adversarial": "wgan-gp"}, "loss.gamma 10 with loss.adversarial wgan-gp"),
        ({"mixing_prob": 1.5}, "loss.mixing_prob must be from 0 to 1, got 1.5"),
    ],
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LossConfig(**options)


@pytest.fixture
def labels():
    return torch.eye(3)[[0, 1, 2, 0]], torch.eye(3)[[2, 1, 0, 1]]


@pytest.fixture
def conditional(generator_config, discriminator_config):
    torch.manual_seed(3)
    generator = Generator(replace(generator_config, c_dim=3))
    return generator, Discriminator(replace(discriminator_config, c_dim=3))


def test_both_latents_of_a_mix_have_the_same_label(conditional, labels):
    generator, _ = conditional
    c, _ = labels
    z, z_mix = torch.randn(4, 8), torch.randn(4, 8)
    ws, unmixed = styles(generator, GeneratorInputs(z=z, z_mix=z_mix, crossover=2, c=c))
    assert torch.equal(unmixed, generator.mapping(z, c))
    assert torch.equal(ws[:, 2:], generator.mapping(z_mix, c)[:, 2:])


def test_each_term_is_taken_with_the_labels_of_its_images(conditional, labels):
    generator, discriminator = conditional
    real_c, fake_c = labels
    draw = GeneratorInputs(z=torch.randn(4, 8), c=fake_c)
    fakes = generator(draw.z, fake_c).detach()
    loss = generator_loss(generator, discriminator, draw, config=LossConfig())
    torch.testing.assert_close(loss.total, F.softplus(-discriminator(fakes, fake_c)).mean())
    reals = torch.randn(4, 3, 16, 16)
    cs = {"real_c": real_c, "fake_c": fake_c}
    loss = discriminator_loss(discriminator, reals, fakes, config=LossConfig(), **cs)
    real_logits, fake_logits = discriminator(reals, real_c), discriminator(fakes, fake_c)
    expected = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    torch.testing.assert_close(loss.total, expected)
    assert (fake_logits - discriminator(fakes, real_c)).abs().max() > 1e-4
    # the regularizers
    config = LossConfig(gamma=2.0, r1_interval=None)
    with_r1 = discriminator_loss(discriminator, reals, fakes, config=config, **cs)
    point = reals.clone().requires_grad_()
    penalty = r1_penalty(discriminator(point, real_c), point).mean()
    torch.testing.assert_close(with_r1.total, expected + penalty)
    alone = r1_loss(discriminator, reals, config=config, real_c=real_c)
    torch.testing.assert_close(alone.total, penalty)
    wgan = discriminator_loss(discriminator, reals, fakes, config=WGAN, alpha=torch.zeros(4), **cs)
    point = reals.clone().requires_grad_()
    penalty = gradient_penalty(discriminator(point, real_c), point).mean()
    torch.testing.assert_close(wgan.terms["gradient_penalty"], penalty.detach())


def test_path_lengths_are_those_of_labelled_images(conditional, labels):
    generator, _ = conditional
    z, noise = torch.randn(4, 8), torch.randn(4, 3, 16, 16)
    lengths = []
    for c in labels:
        found = sampled_path_lengths(
            generator, GeneratorInputs(z=z, c=c), draw_noise=lambda _: noise
        )
        loss, _ = path_length_loss(found, pl_mean=torch.zeros([]), config=LossConfig())
        ws = generator.mapping(z, c)
        expected = path_lengths(generator.synthesis(ws), ws, noise).mean()
        torch.testing.assert_close(loss.terms["path_length/mean"], expected.detach())
        lengths.append(expected.item())
    assert lengths[0] != lengths[1]


def test_a_discriminator_that_guesses_labels_adds_their_cross_entropy_to_both_losses(labels):
    real_c, fake_c = labels
    sizes = {"resolution": 16, "channel_base": 64, "channel_max": 6, "c_dim": 3}
    generator = progan.Generator(progan.GeneratorConfig(**sizes, z_dim=8))
    discriminator = progan.Discriminator(progan.DiscriminatorConfig(**sizes))
    draw = GeneratorInputs(z=torch.randn(4, 8), c=fake_c)
    fakes, reals = generator(draw.z, fake_c).detach(), torch.randn(4, 3, 16, 16)
    _, guessed_real = discriminator.logits_and_labels(reals)
    _, guessed_fake = discriminator.logits_and_labels(fakes)
    of_real = F.cross_entropy(guessed_real, real_c)
    of_fake = F.cross_entropy(guessed_fake, fake_c)

    loss = generator_loss(generator, discriminator, draw, config=WGAN)
    torch.testing.assert_close(loss.total, -discriminator(fakes).mean() + of_fake)
    assert loss.terms["label_loss/G"].item() == pytest.approx(of_fake.item())
    options = {"config": WGAN, "alpha": torch.rand(4)}
    plain = discriminator_loss(discriminator, reals, fakes, **options)
    loss = discriminator_loss(discriminator, reals, fakes, **options, real_c=real_c, fake_c=fake_c)
    torch.testing.assert_close(loss.total, plain.total + of_real + of_fake)
    assert "label_loss/real" not in plain.terms
