import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.models.stylegan2 import Generator, GeneratorConfig
from stylegan.workflows.networks import label_of


def conditional(*names):
    config = GeneratorConfig(
        resolution=8, z_dim=4, w_dim=4, c_dim=3, mapping_layers=1, channel_base=32, channel_max=4
    )
    generator = Generator(config)
    generator.class_names = names
    return generator


@pytest.mark.parametrize(
    ("names", "given", "number"),
    [
        ((), 2, 2),
        ((), "2", 2),
        (("cat", "dog", "owl"), "dog", 1),
        (("cat", "dog", "owl"), "1", 1),
        (("cat", "dog", "owl"), 1, 1),
        (("1", "2", "10"), "2", 1),  # a name, where it is one
        (("1", "2", "10"), 2, 2),
    ],
)
def test_a_class_is_found_by_name_or_number(names, given, number):
    assert torch.equal(label_of(given, conditional(*names)), torch.eye(3)[number])


@pytest.mark.parametrize("given", [None, 3, -1, "3", "dogg", ""])
def test_a_class_that_does_not_exist_is_refused_with_the_names(given):
    message = "the classes of this generator are 0 to 2, with the names cat, dog, owl"
    with pytest.raises(ConfigError, match=message) as caught:
        label_of(given, conditional("cat", "dog", "owl"))
    assert ("did you mean dog?" in str(caught.value)) == (given == "dogg")


def test_a_network_without_labels_has_no_class(generator_config):
    assert label_of(None, Generator(generator_config)) is None
    with pytest.raises(ConfigError, match="--class cat: this generator has no labels"):
        label_of("cat", Generator(generator_config))
