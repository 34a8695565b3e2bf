import math

import pytest
import torch
import torch.nn.functional as F

from stylegan.nn.equalized import HE_GAIN
from stylegan.nn.mapping import MappingNetwork
from stylegan.ops.normalize import pixel_norm


def network(**options):
    defaults = {"z_dim": 8, "w_dim": 12, "num_layers": 2, "num_ws": 6}
    return MappingNetwork(**defaults | options)


def test_w_is_repeated_for_every_style_input():
    ws = network()(torch.randn(3, 8))
    assert ws.shape == (3, 6, 12)
    assert torch.equal(ws[:, 0], ws[:, 5])


def test_the_length_of_z_does_not_matter():
    mapping, z = network(), torch.randn(3, 8)
    torch.testing.assert_close(mapping(z), mapping(5 * z))


def test_truncation_pulls_to_w_avg_below_the_cutoff():
    mapping, z = network(), torch.randn(3, 8)
    mapping.w_avg.normal_()
    ws = mapping(z)
    torch.testing.assert_close(mapping(z, None, 0.0)[0, 3], mapping.w_avg)
    half = mapping(z, None, 0.5, 2)
    torch.testing.assert_close(half[:, :2], (ws[:, :2] + mapping.w_avg) / 2)
    assert torch.equal(half[:, 2:], ws[:, 2:])


def test_only_update_moves_w_avg():
    mapping = network().train()
    ws = mapping(torch.randn(5, 8))
    assert torch.equal(mapping.w_avg, torch.zeros(12))
    mapping.update_w_avg(ws, 0.9)
    torch.testing.assert_close(mapping.w_avg, 0.1 * ws[:, 0].mean(dim=0))


def test_labels_are_normalized_apart_from_z():
    mapping = network(c_dim=3)
    z, c = torch.randn(2, 8), torch.eye(3)[:2]
    torch.testing.assert_close(mapping(z, c), mapping(10 * z, c))
    assert (mapping(z, c) - mapping(z, c.flip(0))).abs().max() > 1e-3


def test_joint_labels_are_the_formula():
    mapping = network(c_dim=3, num_layers=1, num_ws=None, label_norm="joint")
    assert mapping.embed.weight.shape == (8, 3)
    z, c = torch.randn(2, 8), torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 2.0]])
    both = pixel_norm(torch.cat([z, c @ mapping.embed.weight.t()], dim=1))
    torch.testing.assert_close(mapping(z, c), mapping.fc0(both))
    assert mapping.embed.weight.std() > 0.5  # not equalized: plain N(0, 1)


def test_joint_labels_without_labels_change_nothing():
    mapping = network(label_norm="joint")
    other = network()
    other.load_state_dict(mapping.state_dict())
    z = torch.randn(3, 8)
    assert torch.equal(mapping(z), other(z))


def test_hidden_layers_have_a_width_of_their_own():
    mapping = network(num_layers=3, hidden_dim=10)
    shapes = [list(mapping.get_submodule(f"fc{index}").weight.shape) for index in range(3)]
    assert shapes == [[10, 8], [10, 10], [12, 10]]
    assert mapping(torch.randn(2, 8)).shape == (2, 6, 12)


def test_he_gain_in_the_weight_leaves_the_bias_unscaled():
    mapping = network(num_layers=1, num_ws=None, weight_gain=HE_GAIN)
    torch.nn.init.normal_(mapping.fc0.bias, std=100)
    z = torch.randn(2, 8)
    product = pixel_norm(z) @ mapping.fc0.weight.t() * (0.01 * math.sqrt(2) / math.sqrt(8))
    expected = F.leaky_relu(product + 0.01 * mapping.fc0.bias, 0.2)
    torch.testing.assert_close(mapping(z), expected)


def test_without_layers_w_is_the_normalized_z():
    mapping, z = network(w_dim=8, num_layers=0), torch.randn(2, 8)
    torch.testing.assert_close(mapping(z)[:, 3], pixel_norm(z))
    with pytest.raises(ValueError, match="w has 8 numbers, not w_dim 12"):
        network(num_layers=0)


@pytest.mark.parametrize(("z", "found"), [(None, "None"), (torch.zeros(2, 7), r"\[2, 7\]")])
def test_wrong_latents_are_refused(z, found):
    with pytest.raises(ValueError, match=rf"z must be \[N, 8\], got {found}"):
        network()(z)
