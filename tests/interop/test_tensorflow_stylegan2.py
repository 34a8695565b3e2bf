"""TensorFlow's StyleGAN2 of every configuration becomes ours, or is refused by name."""

import copy
import itertools

import numpy as np
import pytest
import tensorflow_files
import torch
from tensorflow_files import Network
from torch import nn

from cases import in_turn
from stylegan.errors import WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

SMALL = {"resolution": 16, "channel_base": 128, "channel_max": 12}


def randomized(network: nn.Module) -> nn.Module:
    """Give every number of a network another value, buffers and zeros included."""
    with torch.no_grad():
        for index, tensor in enumerate(network.state_dict().values()):
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)))
    return network


def generator(**options: object) -> Generator:
    return randomized(Generator(GeneratorConfig(**(SMALL | {"z_dim": 6, "w_dim": 5} | options))))


def discriminator(**options: object) -> Discriminator:
    return randomized(Discriminator(DiscriminatorConfig(**(SMALL | options))))


def arguments(config: GeneratorConfig | DiscriminatorConfig) -> dict[str, object]:
    """Say in the official words what a config says."""
    said = {
        "resolution": config.resolution,
        "num_channels": config.img_channels,
        "label_size": config.c_dim,
        "fmap_base": config.channel_base // 2,
        "fmap_max": config.channel_max,
        "resample_kernel": [1, 3, 3, 1],
        "nonlinearity": "lrelu",
    }
    if config.architecture != "growing":
        said["architecture"] = config.architecture
    if isinstance(config, GeneratorConfig):
        said |= {"latent_size": config.z_dim, "dlatent_size": config.w_dim}
        said |= {"mapping_layers": config.mapping_layers, "mapping_lrmul": 0.01}
    else:
        said |= {"mbstd_group_size": config.mbstd_group_size}
    return said


def assert_same(found: nn.Module | None, expected: nn.Module, *, is_exact: bool = True) -> None:
    assert found is not None
    if is_exact:
        assert found.config == expected.config
    assert found.lod == expected.lod
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        # the +1 of the styles' biases rounds
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=1e-6)


def refusal(path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_networks(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("architectures", "is_silent"),
    in_turn(
        [*itertools.product(["orig", "skip", "resnet"], repeat=2), ("growing", "growing")],
        [False, True],
    ),
)
def test_each_configuration_comes_back(write_tensorflow, architectures, is_silent):
    ours, theirs = architectures
    first, average = generator(architecture=ours), generator(architecture=ours)
    critic = discriminator(architecture=theirs)
    said = [{}, {}] if is_silent else [arguments(first.config), arguments(critic.config)]
    root = (
        tensorflow_files.generator("G", first, **said[0]),
        tensorflow_files.discriminator(critic, **said[1]),
        tensorflow_files.generator("Gs", average, **said[0]),
    )
    networks = load_networks(write_tensorflow(root))
    assert_same(networks.generator, first)
    assert_same(networks.generator_ema, average)
    assert_same(networks.discriminator, critic)


def test_a_growing_network_comes_back_at_its_level_of_detail(write_tensorflow):
    network, critic = generator(architecture="growing"), discriminator(architecture="growing")
    network.lod = critic.lod = 1.25
    root = (tensorflow_files.generator("Gs", network), tensorflow_files.discriminator(critic))
    networks = load_networks(write_tensorflow(root))
    assert_same(networks.generator_ema, network)
    assert_same(networks.discriminator, critic)
    assert networks.generator_ema(torch.zeros(1, 6)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("lod", [-1.0, 3.0, float("nan")])
def test_an_impossible_level_of_detail_is_refused(write_tensorflow, lod):
    root = tensorflow_files.generator("Gs", generator(architecture="growing"))
    variables = root.state["components"]["synthesis"].state["variables"]
    variables[[name for name, _ in variables].index("lod")] = ("lod", np.array(lod, np.float32))
    assert "lod = " in refusal(write_tensorflow(root))


@pytest.mark.parametrize(
    ("options", "is_silent"),
    in_turn(
        [
            {"resolution": 8},
            {"resolution": 64},
            {"img_channels": 1},
            {"channel_base": 100},
            {"channel_base": 32768, "channel_max": 4},
            {"mapping_layers": 8},
            {"mapping_layers": 1},
        ],
        [False, True],
    ),
    ids=str,
)
def test_each_size_comes_back(write_tensorflow, options, is_silent):
    network = generator(**options)
    critic = discriminator(**{k: v for k, v in options.items() if k != "mapping_layers"})
    said = [{}, {}] if is_silent else [arguments(network.config), arguments(critic.config)]
    root = (
        tensorflow_files.generator("Gs", network, **said[0]),
        tensorflow_files.discriminator(critic, **said[1]),
    )
    networks = load_networks(write_tensorflow(root))
    assert networks.generator is None
    # a silent file gives the smallest channel_base that explains its widths
    assert_same(networks.generator_ema, network, is_exact=not is_silent)
    assert_same(networks.discriminator, critic, is_exact=not is_silent)


def test_a_mapping_network_of_another_width_comes_back(write_tensorflow):
    network = generator(mapping_layers=3, mapping_width=7)
    root = tensorflow_files.generator("Gs", network, mapping_fmaps=7)
    assert_same(load_networks(write_tensorflow(root)).generator_ema, network)


@pytest.mark.parametrize("c_dim", [2, 5])
def test_labels_of_stylegan2_come_back(write_tensorflow, c_dim):
    network = generator(c_dim=c_dim, label_norm="joint")
    critic = discriminator(c_dim=c_dim, label_head="select")
    root = (tensorflow_files.generator("Gs", network), tensorflow_files.discriminator(critic))
    networks = load_networks(write_tensorflow(root))
    assert_same(networks.generator_ema, network)
    assert_same(networks.discriminator, critic)


def test_one_label_needs_the_files_word(write_tensorflow):
    critic = discriminator(c_dim=1, label_head="select")
    root = tensorflow_files.discriminator(critic, label_size=1)
    assert_same(load_networks(write_tensorflow(root)).discriminator, critic)
    root = tensorflow_files.discriminator(critic)
    assert load_networks(write_tensorflow(root)).discriminator.c_dim == 0


def test_labels_of_ada_come_back(write_tensorflow):
    network, critic = generator(c_dim=4), discriminator(c_dim=4, mapping_layers=2)
    root = (
        tensorflow_files.generator("Gs", network, ada=True),
        tensorflow_files.discriminator(critic, mapping_lrmul=0.01),
    )
    networks = load_networks(write_tensorflow(root))
    assert_same(networks.generator_ema, network)
    assert_same(networks.discriminator, critic)


def computing_with(lr_multiplier: float, network: nn.Module) -> nn.Module:
    """Make the layers of a mapping network compute as those of another multiplier do."""
    network = copy.deepcopy(network)
    for index in range(network.mapping.num_layers):
        layer = network.mapping.get_submodule(f"fc{index}")
        layer.scale *= lr_multiplier / 0.01
        layer.bias_scale *= lr_multiplier / 0.01
    return network


# Where a discriminator's file does not say, ADA's default was 0.1.
@pytest.mark.parametrize(("said", "lr_multiplier"), [(None, 0.1), (0.01, 0.01), (0.5, 0.5)])
def test_another_learning_rate_multiplier_of_the_labels_gives_the_same_logits(
    write_tensorflow, said, lr_multiplier
):
    critic = discriminator(c_dim=4, mapping_layers=2)
    root = tensorflow_files.discriminator(critic, mapping_lrmul=said)
    found = load_networks(write_tensorflow(root)).discriminator
    images, labels = torch.randn(4, 3, 16, 16), torch.eye(4)
    expected = computing_with(lr_multiplier, critic)(images, labels)
    torch.testing.assert_close(found(images, labels), expected, rtol=1e-5, atol=1e-6)


def test_without_mapping_layers_the_multiplier_of_adas_discriminator_says_nothing(
    write_tensorflow,
):
    critic = discriminator(c_dim=4, mapping_layers=0)
    root = tensorflow_files.discriminator(critic, mapping_lrmul=0.1, mapping_layers=0)
    assert_same(load_networks(write_tensorflow(root)).discriminator, critic)


@pytest.mark.parametrize("lr_multiplier", [0.01, 0.1, 1.0, 1])
def test_another_learning_rate_multiplier_of_a_generator_gives_the_same_styles(
    write_tensorflow, lr_multiplier
):
    network = generator(mapping_layers=3)
    root = tensorflow_files.generator("Gs", network, mapping_lrmul=lr_multiplier)
    found = load_networks(write_tensorflow(root)).generator_ema
    z = torch.randn(4, 6)
    expected = computing_with(lr_multiplier, network).mapping(z)
    torch.testing.assert_close(found.mapping(z), expected, rtol=1e-5, atol=1e-6)


def test_each_statistics_group_comes_back(write_tensorflow):
    for num_channels, size in ((0, 4), (1, 8), (2, 2)):
        critic = discriminator(mbstd_num_channels=num_channels, mbstd_group_size=size)
        root = tensorflow_files.discriminator(critic, **arguments(critic.config))
        assert_same(load_networks(write_tensorflow(root)).discriminator, critic)


def test_only_the_average_is_built_for_use(write_tensorflow, monkeypatch):
    root = (
        tensorflow_files.generator("G", generator()),
        tensorflow_files.discriminator(discriminator()),
        tensorflow_files.generator("Gs", generator()),
    )
    path = write_tensorflow(root)
    monkeypatch.setattr("stylegan.interop.tensorflow_stylegan2.Discriminator", None)
    assert load(path).num_ws == 6
    networks = load_networks(path, only=["generator"])
    assert (networks.generator is None, networks.generator_ema) == (False, None)


def test_a_file_without_an_average_gives_its_generator(write_tensorflow):
    assert load(write_tensorflow(tensorflow_files.generator("G", generator()))).num_ws == 6
    path = write_tensorflow(tensorflow_files.discriminator(discriminator()))
    with pytest.raises(WeightsError, match="has no generator"):
        load(path)


def changed(network: Network, name: str, value: np.ndarray | None) -> Network:
    """Replace or (None) remove one variable of the synthesis network, or of D."""
    part = network.state["components"].get("synthesis", network)
    variables = dict(part.state["variables"])
    variables.pop(name, None)
    if value is not None:
        variables[name] = value
    part.state["variables"] = list(variables.items())
    return network


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("8x8/Conv0_up/mod_bias", None, "lacks synthesis/8x8/Conv0_up/mod_bias"),
        ("noise3", None, "lacks synthesis/noise3"),
        ("8x8/Conv9/bias", np.ones(2, np.float32), "unexpected tensors, synthesis/8x8/Conv9/bias"),
        ("8x8/Conv1/bias", np.ones(3, np.float32), "b8.conv1.bias [3] for [12]"),
        ("8x8/Conv1/weight", np.ones(3, np.float32), "no tensor synthesis/8x8/Conv1/weight"),
        ("8x8/Conv1/mod_bias", np.ones((1, 3), np.float32), "mod_bias' of 2 axes"),
        ("noise2", np.ones((2, 1, 8, 8), np.float32), "noise2' of shape [2, 1, 8, 8]"),
        ("noise2", np.ones((1, 1, 8, 8), np.int32), "has integers in"),
        ("16x16/Conv1/weight", np.ones((3, 3, 8, 5), np.float32), "channels {4: 12, 8: 12, 16: 5}"),
        ("64x64/Conv1/weight", np.ones((3, 3, 8, 5), np.float32), "blocks at [4, 8, 16, 64]"),
        ("4x4/Const/const", None, "is a 'G_main' that is not StyleGAN2"),
    ],
)
def test_variables_that_do_not_fit_are_refused_by_name(write_tensorflow, name, value, message):
    root = changed(tensorflow_files.generator("Gs", generator()), name, value)
    found = refusal(write_tensorflow(root))
    assert message in found


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"resolution": 32}, "says resolution = 32, its tensors say 16"),
        ({"latent_size": "6"}, "says latent_size = '6', its tensors say 6"),
        ({"architecture": "resnet"}, "says architecture = 'resnet', its tensors say 'skip'"),
        ({"fmap_base": 32}, "for channel_base 64"),
        ({"resample_kernel": [1, 2, 1]}, "was made with resample_kernel"),
        ({"resample_kernel": None}, ""),
        ({"mapping_nonlinearity": "relu"}, "was made with mapping_nonlinearity = 'relu'"),
        ({"mapping_lrmul": 0.0}, "has learning-rate multiplier 0"),
        ({"mapping_lrmul": float("nan")}, "has learning-rate multiplier nan"),
        ({"mapping_lrmul": "0.01"}, "has learning-rate multiplier '0.01'"),
        ({"mapping_lrmul": np.float64(0.01)}, ""),
        ({"normalize_latents": False}, "was made with normalize_latents"),
        ({"fmap_decay": np.ones(3)}, "was made with fmap_decay = a Array"),
    ],
)
def test_arguments_that_say_something_else_are_refused(write_tensorflow, said, message):
    path = write_tensorflow(tensorflow_files.generator("Gs", generator(), **said))
    if message:
        assert message in refusal(path)
    else:
        assert load_networks(path).generator_ema is not None


def test_minibatch_groups_that_are_no_number_are_refused(write_tensorflow):
    root = tensorflow_files.discriminator(discriminator(), mbstd_group_size="all")
    assert "minibatch groups of another kind" in refusal(write_tensorflow(root))


def test_a_network_of_another_kind_is_refused(write_tensorflow):
    root = Network("D", {"conv/weight": np.ones(3, np.float32)}, build_func_name="vgg16")
    refusal(write_tensorflow(root))
    root = Network("inception", {"conv/weight": np.ones(3, np.float32)})
    assert "holds network 'inception'" in refusal(write_tensorflow(root))
