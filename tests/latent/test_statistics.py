import numpy as np
import pytest
import torch

import stylegan
from stylegan.latent.statistics import sample_styles, style_statistics


def test_statistics_are_those_of_the_official_projector(generator):
    z = torch.from_numpy(np.random.RandomState(123).randn(10_000, 16)).float()
    w = generator.mapping(z)[:, 0].numpy()
    found = style_statistics(generator)
    mean = w.mean(axis=0)
    deviation = (((w - mean) ** 2).sum() / 10_000) ** 0.5
    np.testing.assert_allclose(found.mean.numpy(), mean, atol=1e-5)
    assert found.std == pytest.approx(deviation, rel=1e-5)


def test_styles_of_a_class_are_its_own():
    network = stylegan.create("stylegan2-small", 16, channel_base=64, c_dim=2).generator.eval()
    one, two = (sample_styles(network, num=8, c=torch.eye(2)[index]) for index in (0, 1))
    assert one.shape == (8, network.w_dim)
    assert not torch.allclose(one, two)
