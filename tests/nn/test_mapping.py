import pytest
import torch

from stylegan.nn.mapping import MappingNetwork


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


@pytest.mark.parametrize(("z", "found"), [(None, "None"), (torch.zeros(2, 7), r"\[2, 7\]")])
def test_wrong_latents_are_refused(z, found):
    with pytest.raises(ValueError, match=rf"z must be \[N, 8\], got {found}"):
        network()(z)
