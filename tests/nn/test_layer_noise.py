import torch

from stylegan.nn.noise import layer_noise


def test_modes_take_what_is_stored_draw_or_add_none():
    stored = torch.randn(4, 4)
    assert layer_noise(stored, 3, "none", None) is None
    assert layer_noise(stored, 3, "const", None) is stored
    first, again = (
        layer_noise(stored, 3, "random", torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert first.shape == (3, 1, 4, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_without_a_source_torchs_global_stream_draws():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torch.randn(2, 1, 8, 8)
        torch.manual_seed(5)
        assert torch.equal(layer_noise(torch.zeros(8, 8), 2, "random", None), expected)
