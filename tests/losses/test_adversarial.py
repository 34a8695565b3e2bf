import math

import pytest
import torch

from stylegan.losses.adversarial import (
    discriminator_logistic_fake,
    discriminator_logistic_real,
    discriminator_wasserstein,
    generator_logistic,
    generator_wasserstein,
    label_cross_entropy,
)


def test_undecided_logits_cost_log_two():
    logits = torch.zeros(3, 1)
    for loss in (generator_logistic, discriminator_logistic_fake, discriminator_logistic_real):
        torch.testing.assert_close(loss(logits), torch.full([3], math.log(2)))


def test_signs():
    real_looking = torch.full([1, 1], 20.0)
    assert generator_logistic(real_looking) < 1e-6
    assert discriminator_logistic_real(real_looking) < 1e-6
    assert abs(discriminator_logistic_fake(real_looking).item() - 20) < 1e-5


def test_the_generator_learns_most_where_it_is_found_out():
    logits = torch.tensor([[-10.0], [10.0]], requires_grad=True)
    generator_logistic(logits).sum().backward()
    assert logits.grad[0].item() < -0.99
    assert abs(logits.grad[1].item()) < 1e-4


def test_wasserstein_losses_are_differences_of_logits():
    real, fake = torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [3.0]])
    assert generator_wasserstein(fake).tolist() == [-0.5, -3.0]
    assert discriminator_wasserstein(real, fake).tolist() == [-0.5, 5.0]


def test_guessed_labels_cost_what_their_probability_says():
    guessed = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])  # 1/4 and 3/4
    losses = label_cross_entropy(guessed, torch.eye(2))
    torch.testing.assert_close(losses, torch.tensor([math.log(4), math.log(4 / 3)]))
    with pytest.raises(ValueError, match=r"c must be \[2, 2\], got \[2, 3\]"):
        label_cross_entropy(guessed, torch.zeros(2, 3))
