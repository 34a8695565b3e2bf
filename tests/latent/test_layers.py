import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.latent.layers import mix_layers, parse_layers


@pytest.mark.parametrize(
    ("text", "num_ws", "layers"),
    [
        # The paper's ranges at 1024x1024.
        ("coarse", 18, [0, 1, 2, 3]),
        ("middle", 18, [4, 5, 6, 7]),
        ("fine", 18, list(range(8, 18))),
        # Cut where the network ends.
        ("middle", 7, [4, 5, 6]),
        ("coarse", 1, [0]),
        ("all", 8, list(range(8))),
        ("none", 8, []),
        ("0-3", 8, [0, 1, 2, 3]),
        ("7", 8, [7]),
        ("6, 0-1, Coarse", 8, [0, 1, 2, 3, 6]),
    ],
)
def test_layers_are_read_by_name_and_by_number(text, num_ws, layers):
    assert parse_layers(text, num_ws) == layers


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "contain '', which is neither"),
        ("rough", "contain 'rough', which is neither"),
        ("-1", "contain '-1', which is neither"),
        ("8", "'8', which this generator does not have"),
        ("0-8", "'0-8', which this generator does not have"),
        ("3-1", "'3-1', which this generator does not have"),
        ("fine", "'fine', which this generator does not have"),
        ("0-3,fine", "'fine', which this generator does not have"),
    ],
)
def test_other_layers_are_an_error_that_says_which_there_are(text, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_layers(text, 8)
    assert "choose from 0-7" in str(caught.value)


def test_mixing_takes_the_named_layers_and_no_others():
    destination, source = torch.zeros(2, 5, 3), torch.ones(2, 5, 3)
    mixed = mix_layers(destination, source, [1, 4])
    assert mixed[:, :, 0].tolist() == [[0, 1, 0, 0, 1]] * 2
    assert destination.sum() == 0


def test_all_layers_give_the_source_and_none_the_destination():
    destination, source = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    assert torch.equal(mix_layers(destination, source, range(5)), source)
    assert torch.equal(mix_layers(destination, source, []), destination)
