import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.latent.seeds import latents_from_seeds, parse_seeds


def test_seed_zero_gives_the_published_numbers():
    z = latents_from_seeds([0], 4)
    # numpy's legacy generator, frozen since 2009: np.random.seed(0); np.random.randn(4).
    expected = torch.tensor([[1.76405235, 0.40015721, 0.97873798, 2.2408932]])
    torch.testing.assert_close(z, expected)
    assert z.dtype == torch.float32


def test_a_seed_gives_the_same_latent_beside_any_others():
    together = latents_from_seeds([5, 85, 2**32 - 1, 5], 16)
    assert together.shape == (4, 16)
    assert torch.equal(together[0], together[3])
    assert torch.equal(together[1:2], latents_from_seeds([85], 16))


def test_no_seeds_give_no_latents():
    assert latents_from_seeds([], 16).shape == (0, 16)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-2,100", [0, 1, 2, 100]),
        (" 9 , 3 - 4 ", [9, 3, 4]),
        ("5-5,5", [5, 5]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_seeds_are_read_in_the_order_given(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' in seeds"),
        ("1,,2", "'' in seeds"),
        ("a", "'a' in seeds"),
        ("-1", "'-1' in seeds"),
        ("1-2-3", "'1-2-3' in seeds"),
        ("0x10", "'0x10' in seeds"),
        ("5-3", "range 5-3 .* runs backwards"),
        ("4294967296", "from 0 to 4294967295"),
        ("0-4294967295", "more than 1,000,000"),
    ],
)
def test_anything_else_is_reported_in_one_line_with_an_example(text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_seeds(text)
    if "is not a number" in str(caught.value):
        assert '"0-63,100"' in str(caught.value)
    assert "\n" not in str(caught.value)
