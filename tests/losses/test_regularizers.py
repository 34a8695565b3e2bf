import pytest
import torch

from stylegan.image_size import ImageSize
from stylegan.losses.objective import LossConfig
from stylegan.losses.regularizers import (
    gradient_penalty,
    gradient_scale,
    lecam_penalty,
    path_length_penalty,
    path_lengths,
    r1_penalty,
)
from stylegan.ops.box import downsample_box, upsample_nearest


def test_r1_of_a_linear_discriminator_is_its_squared_weight_norm():
    weight = torch.randn(3, 8, 8, dtype=torch.float64)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    logits = (images * weight).sum(dim=(1, 2, 3))[:, None]  # dD/dx = weight everywhere
    torch.testing.assert_close(r1_penalty(logits, images), weight.square().sum().expand(4))


def test_r1_has_the_gradient_of_its_closed_form():
    weight = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    logits = (images * weight).square().sum(dim=(1, 2, 3))[:, None]  # dD/dx = 2 weight^2 x
    penalty = r1_penalty(logits, images)
    expected = (2 * weight.square() * images).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(penalty, expected)
    (grad,) = torch.autograd.grad(penalty.sum(), weight)
    (grad_expected,) = torch.autograd.grad(expected.sum(), weight)
    torch.testing.assert_close(grad, grad_expected)


@pytest.mark.parametrize("penalty", [r1_penalty, gradient_penalty])
def test_penalties_need_images_with_grad(penalty):
    images = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="requires_grad"):
        penalty(images.sum().reshape(1, 1), images)


def test_gradient_penalty_of_a_linear_discriminator_is_the_distance_of_its_norm_from_the_target():
    weight = torch.randn(3, 8, 8, dtype=torch.float64)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    logits = (images * weight).sum(dim=(1, 2, 3))[:, None]
    norm = weight.square().sum().sqrt()
    for target in (1.0, 2.5):
        penalty = gradient_penalty(logits, images, target=target)
        torch.testing.assert_close(penalty, ((norm - target) / target).square().expand(4))


def test_gradient_penalty_has_the_gradient_of_its_closed_form():
    weight = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    logits = (images * weight).square().sum(dim=(1, 2, 3))[:, None]
    penalty = gradient_penalty(logits, images)
    norm = (2 * weight.square() * images).square().sum(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(penalty, (norm - 1).square())
    (grad,) = torch.autograd.grad(penalty.sum(), weight)
    (grad_expected,) = torch.autograd.grad((norm - 1).square().sum(), weight)
    torch.testing.assert_close(grad, grad_expected)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_penalties_are_those_at_the_enlarged_images_of_the_published_networks(factor):
    weight = torch.randn(3, 8, 8, dtype=torch.float64)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def logits(x):
        return (x * weight).square().sum(dim=(1, 2, 3))[:, None]

    large = upsample_nearest(images.detach(), factor=factor).requires_grad_()
    large_logits = logits(downsample_box(large, factor=factor))
    scale = gradient_scale(images, ImageSize(8 * factor, 8 * factor))
    torch.testing.assert_close(
        r1_penalty(logits(images), images) * scale**2, r1_penalty(large_logits, large)
    )
    torch.testing.assert_close(
        gradient_penalty(logits(images), images, scale=scale),
        gradient_penalty(large_logits, large),
    )


def test_lecam_penalizes_logits_beyond_the_mean_of_the_other_kind():
    real, fake = torch.tensor([[3.0], [-2.0]]), torch.tensor([[-4.0], [5.0]])
    found = lecam_penalty(real, fake, real_mean=torch.tensor(2.0), fake_mean=torch.tensor(-1.0))
    # (3 + 1)^2 + (2 + 4)^2; neither -2 > -1 nor 5 < 2
    torch.testing.assert_close(found, torch.tensor([52.0, 0.0]))


def test_path_lengths_of_an_enlarged_image_are_those_of_the_image():
    side, factor, num = 4, 2, 4000
    ws = torch.randn(num, 1, 3, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(3, 3, side, side, dtype=torch.float64)
    images = torch.einsum("nlw,wchv->nchv", ws, matrix)
    large = upsample_nearest(images, factor=factor)
    squares = [
        path_lengths(shown, ws, torch.randn_like(shown)).square().mean()
        for shown in (images, large)
    ]
    # the mean over directions y of |J^T y|^2; its deviation at 4000 samples is about 1 %
    torch.testing.assert_close(squares[0], squares[1], rtol=0.06, atol=0)


def test_path_length_of_a_linear_generator_is_the_norm_of_its_transposed_product():
    num_ws, w_dim, side = 3, 5, 4
    matrices = torch.randn(num_ws, w_dim, 3, side, side, dtype=torch.float64)
    ws = torch.randn(2, num_ws, w_dim, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(2, 3, side, side, dtype=torch.float64)
    images = torch.einsum("nlw,lwchv->nchv", ws, matrices)
    jacobian = torch.einsum("lwchv,nchv->nlw", matrices, noise) / side
    expected = jacobian.square().sum(dim=2).mean(dim=1).sqrt()
    torch.testing.assert_close(path_lengths(images, ws, noise), expected)


def test_path_length_needs_ws_with_grad():
    with pytest.raises(ValueError, match="requires_grad"):
        path_lengths(torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 3), torch.zeros(1, 3, 4, 4))


def test_the_mean_moves_first_and_is_not_detached_in_the_penalty():
    lengths = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    penalty, mean = path_length_penalty(lengths, torch.tensor(1.0).double(), decay=0.01)
    torch.testing.assert_close(mean.item(), 1.01)
    torch.testing.assert_close(penalty, torch.tensor([0.01**2, 1.99**2], dtype=torch.float64))
    (grad,) = torch.autograd.grad(penalty.mean(), lengths)
    # d/dl_i of mean (l - a)^2 with a = 0.99 a0 + 0.01 mean(l)
    deviation = lengths.detach() - 1.01
    torch.testing.assert_close(grad, deviation - 0.01 * deviation.mean())
    assert not mean.requires_grad


@pytest.mark.parametrize(
    ("resolution", "gamma_pl"), [(256, 2.17983e-6), (512, 4.76837e-7), (1024, 1.05964e-7)]
)
def test_weight_two_is_the_papers_coefficient(resolution, gamma_pl):  # spec, section 17
    num_ws = 2 * resolution.bit_length() - 4
    ws = torch.zeros(1, num_ws, 1, requires_grad=True)
    images = ws[:, 0, 0] * torch.ones(1, 1, resolution, resolution)
    noise = torch.ones_like(images)
    plain = resolution**2  # |J^T y| of the paper's definition
    effective = LossConfig().pl_weight * path_lengths(images, ws, noise).square() / plain**2
    torch.testing.assert_close(effective.item(), gamma_pl, rtol=1e-4, atol=0)
