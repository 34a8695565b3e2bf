"""Official pickles of every architecture become our networks, or are refused by name."""

import dataclasses
import resource
from pathlib import Path

import pytest
import torch
from interop_files import Persistent, persistent
from torch import Tensor, nn

from cases import grid, in_turn
from stylegan.errors import WeightsError
from stylegan.interop.nvidia import load_official_pickle
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

GOLDEN = Path(__file__).parents[1] / "parity" / "stylegan2-torch-skip-resnet.pkl"
SMALL = {"resolution": 16, "channel_base": 128, "channel_max": 12}
ARCHITECTURES = ["orig", "skip", "resnet"]
STYLES = ["ada", "stylegan3", "silent"]
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


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


def arguments(config: GeneratorConfig | DiscriminatorConfig, style: str) -> dict[str, object]:
    """Say in the words of one of the official programs what a config says."""
    values = dataclasses.asdict(config)
    values["img_resolution"] = values.pop("resolution")
    depth = values.pop("mapping_layers")
    groups = {
        "mbstd_group_size": values.pop("mbstd_group_size", None),
        "mbstd_num_channels": values.pop("mbstd_num_channels", None),
    }
    if isinstance(config, DiscriminatorConfig):
        return values | {"epilogue_kwargs": groups, "mapping_kwargs": {}}
    values["mapping_kwargs"] = {"num_layers": depth}
    if style == "stylegan3":
        return values
    names = ("channel_base", "channel_max", "architecture")
    return values | {"synthesis_kwargs": {name: values.pop(name) for name in names}}


def module(network: nn.Module, style: str = "ada", **changes: Tensor | None) -> object:
    """Make the official form of a network; `changes` replace or (None) remove tensors."""
    tensors = dict(network.state_dict())
    for name in [name for name in tensors if name.endswith("conv1.weight")]:
        tensors[name.replace("weight", "resample_filter")] = TAPS.outer(TAPS)
    for name, tensor in changes.items():
        tensors[name] = tensor
    kwargs = {} if style == "silent" else arguments(network.config, style)
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return persistent(type(network).__name__, kept, init_kwargs=kwargs)


def assert_same(found: nn.Module | None, expected: nn.Module) -> None:
    assert found is not None
    assert type(found) is type(expected)
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def refusal(path: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError) as caught:
        load_official_pickle(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(("ours", "theirs", "style"), grid(ARCHITECTURES, ARCHITECTURES, STYLES))
def test_each_pair_of_architectures_comes_back(write_pickle, ours, theirs, style):
    first, average = generator(architecture=ours), generator(architecture=ours, mapping_layers=2)
    critic = discriminator(architecture=theirs)
    path = write_pickle(
        {"G": module(first, style), "D": module(critic, style), "G_ema": module(average, style)}
    )
    networks = load_official_pickle(path)
    assert_same(networks.generator, first)
    assert_same(networks.generator_ema, average)
    assert_same(networks.discriminator, critic)
    assert networks.generator.config == first.config
    assert networks.generator_ema.config == average.config
    assert networks.discriminator.config == critic.config


@pytest.mark.parametrize(
    ("options", "style"),
    in_turn(
        [
            {"resolution": 8},
            {"resolution": 64},
            {"img_channels": 1},
            {"img_channels": 4},
            {"c_dim": 3},
            {"channel_base": 100},
            {"channel_base": 90, "channel_max": 512},
            {"channel_base": 32768, "channel_max": 4},
            {"mapping_layers": 8},
            {"mapping_layers": 1},
        ],
        STYLES,
    ),
    ids=str,
)
def test_each_size_comes_back(write_pickle, options, style):
    network, critic = generator(**options), discriminator(**options)
    path = write_pickle({"G_ema": module(network, style), "D": module(critic, style)})
    networks = load_official_pickle(path)
    assert networks.generator is None
    assert_same(networks.generator_ema, network)
    assert_same(networks.discriminator, critic)


def test_each_statistics_group_comes_back(write_pickle):
    for num_channels, size in ((0, 4), (1, 8), (2, 2)):
        critic = discriminator(mbstd_num_channels=num_channels, mbstd_group_size=size)
        found = load_official_pickle(write_pickle({"D": module(critic)})).discriminator
        assert found.config == critic.config


def test_positional_arguments_count(write_pickle):
    network = generator()
    tensors = network.state_dict()
    path = write_pickle({"G": persistent("Generator", tensors, init_args=(6, 0, 5, 16, 3))})
    assert_same(load_official_pickle(path).generator, network)
    path = write_pickle({"G": persistent("Generator", tensors, init_args=(7, 0, 5, 16, 3))})
    assert "says z_dim = 7, its tensors say 6" in refusal(path)


def test_half_precision_files_give_float32_networks(write_pickle):
    network = generator().half()
    found = load_official_pickle(write_pickle({"G": module(network)})).generator
    assert_same(found, network.float())
    assert {tensor.dtype for tensor in found.state_dict().values()} == {torch.float32}


def test_one_network_stored_once_under_two_keys_gives_two(write_pickle):
    shared = module(generator())
    networks = load_official_pickle(write_pickle({"G": shared, "G_ema": shared}))
    assert_same(networks.generator, networks.generator_ema)
    assert networks.generator is not networks.generator_ema


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    load_official_pickle(GOLDEN)
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"synthesis.b8.conv0.affine.bias": None}, "lacks synthesis.b8.conv0.affine.bias"),
        ({"mapping.w_avg": None}, "lacks mapping.w_avg"),
        ({"mapping.fc0.weight": None}, "no tensor mapping.fc0.weight"),
        ({"synthesis.b8.conv9.bias": torch.ones(2)}, "unexpected tensors, synthesis.b8.conv9.bias"),
        ({"synthesis.b8.conv1.bias": torch.ones(3)}, "synthesis.b8.conv1.bias [3] for [12]"),
        ({"synthesis.b8.conv1.noise_const": torch.ones(8, 8).int()}, "conv1.noise_const"),
        ({"synthesis.b16.conv1.weight": torch.ones(5, 8, 3, 3)}, "channels {4: 12, 8: 12, 16: 5}"),
        ({"synthesis.b16.torgb.weight": torch.ones(5, 8, 1, 1)}, "says img_channels = 3"),
        ({"synthesis.b8.skip.weight": torch.ones(12, 12, 1, 1)}, "synthesis.b8.skip.weight"),
        ({"synthesis.b64.conv1.weight": torch.ones(8, 8, 3, 3)}, "blocks at [4, 8, 16, 64]"),
        ({"synthesis.input.freqs": torch.ones(3)}, "an alias-free StyleGAN3 generator"),
        ({"synthesis.b4.const": None}, "a 'Generator' that is not StyleGAN2"),
        ({"synthesis.b8.resample_filter": torch.ones(4, 4) / 16}, "'synthesis.b8.resample_filter'"),
        ({"synthesis.b8.resample_filter": torch.ones(12)}, "'synthesis.b8.resample_filter'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(write_pickle, changes, message):
    assert message in refusal(write_pickle({"G_ema": module(generator(), **changes)}))


def test_a_discriminator_of_another_kind_is_refused(write_pickle):
    tensors = {"main.0.weight": torch.ones(2)}
    message = refusal(write_pickle({"D": persistent("ProjectedDiscriminator", tensors)}))
    assert "(D) is a 'ProjectedDiscriminator' that is not StyleGAN2" in message


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("architecture", "resnet", "says architecture = 'resnet', its tensors say 'skip'"),
        ("img_resolution", 32, "says img_resolution = 32, its tensors say 16"),
        ("w_dim", "5", "says w_dim = '5', its tensors say 5"),
        ("z_dim", torch.ones(2), "says z_dim = a StoredTensor, its tensors say 6"),
        ("channel_base", 64, "for channel_base 64"),
        ("channel_max", "many", "channel_max 'many'"),
        ("mapping_kwargs", {"num_layers": 3}, "says num_layers = 3, its tensors say 8"),
    ],
)
def test_arguments_that_contradict_the_tensors_are_refused(write_pickle, name, value, found):
    network = generator()
    root = persistent(
        "Generator",
        network.state_dict(),
        init_kwargs=arguments(network.config, "stylegan3") | {name: value},
    )
    assert found in refusal(write_pickle({"G": root}))


@pytest.mark.parametrize(
    ("attribute", "value", "found"),
    [
        ("activation", "swish", "has 'swish' at"),
        ("bias_gain", 0, "at 'mapping.fc1' has learning-rate multiplier 0"),
        ("bias_gain", True, "at 'mapping.fc1' has learning-rate multiplier True"),
    ],
)
def test_layers_that_compute_something_else_are_refused(write_pickle, attribute, value, found):
    root = module(generator())
    mapping = root.meta["state"]["_modules"]["mapping"].meta["state"]
    mapping["_modules"]["fc1"].meta["state"][attribute] = value
    assert found in refusal(write_pickle({"G": root}))


def test_a_network_without_channels_is_refused(write_pickle):
    empty = {"synthesis.b16.torgb.weight": torch.ones(0, 8, 1, 1)}
    root = module(generator(), "silent", **empty)
    assert "(G): img_channels must be more than 0, got 0" in refusal(write_pickle({"G": root}))


def with_attributes(root: Persistent, attribute: str, values: dict[str, object]) -> Persistent:
    """Set an attribute of layers, which are given by their dotted names."""
    for path, value in values.items():
        node = root
        for part in path.split("."):
            children = node.meta["state"]["_modules"]
            node = children.setdefault(part, persistent("Layer", {}))
        node.meta["state"][attribute] = value
    return root


def test_no_statistics_group_means_the_whole_batch(write_pickle):
    expected = discriminator(mbstd_group_size=None)
    root = with_attributes(module(discriminator()), "group_size", {"b4.mbstd": None})
    found = load_official_pickle(write_pickle({"D": root})).discriminator
    assert found.config == expected.config
    images = torch.randn(6, 3, 16, 16)
    assert torch.equal(found(images), discriminator(mbstd_group_size=6)(images))


def test_statistics_groups_of_another_kind_are_refused(write_pickle):
    root = with_attributes(module(discriminator()), "group_size", {"b4.mbstd": "all"})
    assert "(D) has minibatch groups of 'all'" in refusal(write_pickle({"D": root}))


@pytest.mark.parametrize("lr_multiplier", [0.01, 0.1, 1])
def test_mapping_layers_are_rescaled_to_our_learning_rate_multiplier(write_pickle, lr_multiplier):
    network, critic = generator(mapping_layers=2), discriminator(c_dim=3, mapping_layers=2)
    gains = {f"mapping.fc{index}": lr_multiplier for index in range(2)}
    root = {
        "G": with_attributes(module(network), "bias_gain", gains),
        "D": with_attributes(module(critic), "bias_gain", gains),
    }
    networks = load_official_pickle(write_pickle(root))
    for layer in [*network.mapping.children(), *critic.mapping.children()]:
        if layer is not critic.mapping.embed:  # what the file's multiplier computes with
            layer.scale *= lr_multiplier / 0.01
            layer.bias_scale *= lr_multiplier / 0.01
    z, c = torch.randn(4, 6), torch.eye(4, 3)
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    expected = network.mapping(z)
    torch.testing.assert_close(networks.generator.mapping(z), expected, **tolerance)
    expected = critic.mapping(None, c)
    torch.testing.assert_close(networks.discriminator.mapping(None, c), expected, **tolerance)


def test_a_label_mapping_may_have_no_layers(write_pickle):
    critic = discriminator(c_dim=3, mapping_layers=0)
    found = load_official_pickle(write_pickle({"D": module(critic)})).discriminator
    assert found.config == critic.config
    assert_same(found, critic)


CLAMPED_G = ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1", "b16.torgb"]
CLAMPED_D = ["b16.fromrgb", "b16.conv0", "b16.conv1", "b8.conv0", "b8.conv1", "b4.conv"]


def test_the_clamp_of_official_files_is_read_as_they_record_it():
    networks = load_official_pickle(GOLDEN)  # every layer but D's residual branches has 256
    for _, network in networks.items():
        assert network.config.conv_clamp == 256


def test_the_clamp_of_every_layer_counts_but_those_of_residual_branches(write_pickle):
    first = {f"synthesis.{name}": 2.5 for name in CLAMPED_G} | {"synthesis.b8.skip": None}
    critic = dict.fromkeys(CLAMPED_D, 2.5) | {"b16.skip": None, "b4.fromrgb": None}
    root = {
        "G": with_attributes(module(generator(architecture="resnet")), "conv_clamp", first),
        "D": with_attributes(module(discriminator()), "conv_clamp", critic),
    }
    networks = load_official_pickle(write_pickle(root))
    assert networks.generator.config.conv_clamp == networks.discriminator.config.conv_clamp == 2.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"b4.conv": 256, "b8.conv0": None}, "layers with different conv_clamp"),
        ({"b4.conv": 256, "b8.conv0": 128}, "layers with different conv_clamp"),
        ({"b4.conv": "256"}, "conv_clamp '256'"),
        ({"b4.conv": -1}, "conv_clamp must be more than 0, got -1"),
    ],
)
def test_clamps_that_no_network_of_ours_has_are_refused(write_pickle, values, message):
    root = with_attributes(module(discriminator()), "conv_clamp", values)
    assert message in refusal(write_pickle({"D": root}))


def test_a_small_file_cannot_ask_for_a_large_network(write_pickle):
    network = generator()
    tensors = dict(network.state_dict())
    for level in range(5, 19):  # noise maps of 2**18 squared would take 256 GiB
        prefix = f"synthesis.b{1 << level}"
        tensors[f"{prefix}.conv1.weight"] = torch.ones(1, 1, 3, 3)
        tensors[f"{prefix}.torgb.weight"] = torch.ones(3, 1, 1, 1)
    for name in [name for name in tensors if name.endswith("conv1.weight")]:
        tensors[name] = torch.ones(1, 1, 3, 3)
    root = persistent("Generator", tensors, init_kwargs={"channel_base": 1 << 18, "channel_max": 1})
    assert "lacks synthesis." in refusal(write_pickle({"G": root}))
