"""Rosinality's files become our networks, and ours its files."""

import argparse
import logging
import math

import pytest
import torch
from torch import Tensor, nn

from stylegan.errors import WeightsError
from stylegan.interop import rosinality
from stylegan.interop.convert import convert
from stylegan.interop.load import load, load_networks
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan import Generator as StyleGAN
from stylegan.models.stylegan import GeneratorConfig as StyleGANConfig
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

SMALL = {"resolution": 16, "channel_base": 32768, "channel_max": 12}
KERNEL = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def randomized(network: nn.Module) -> nn.Module:
    """Give every number of a network another value, buffers and zeros included."""
    with torch.no_grad():
        for index, tensor in enumerate(network.state_dict().values()):
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)))
    return network


def generator(**options: object) -> Generator:
    config = SMALL | {"z_dim": 6, "w_dim": 6, "mapping_layers": 3} | options
    return randomized(Generator(GeneratorConfig(**config)))


def discriminator(**options: object) -> Discriminator:
    return randomized(Discriminator(DiscriminatorConfig(**(SMALL | options))))


def their_generator(network: Generator) -> dict[str, Tensor]:
    """Write a generator by the table of spec 14.4, row by row."""
    ours, theirs = network.state_dict(), {}
    for index in range(network.config.mapping_layers):
        theirs[f"style.{index + 1}.weight"] = ours[f"mapping.fc{index}.weight"]
        theirs[f"style.{index + 1}.bias"] = ours[f"mapping.fc{index}.bias"]

    def conv(there: str, here: str) -> None:
        theirs[f"{there}.conv.weight"] = ours[f"{here}.weight"][None]
        theirs[f"{there}.conv.modulation.weight"] = ours[f"{here}.affine.weight"]
        theirs[f"{there}.conv.modulation.bias"] = ours[f"{here}.affine.bias"]

    def layer(there: str, here: str, noise: int) -> None:
        conv(there, here)
        theirs[f"{there}.noise.weight"] = ours[f"{here}.noise_strength"][None]
        theirs[f"{there}.activate.bias"] = ours[f"{here}.bias"]
        theirs[f"noises.noise_{noise}"] = ours[f"{here}.noise_const"][None, None]

    def rgb(there: str, here: str) -> None:
        conv(there, here)
        theirs[f"{there}.bias"] = ours[f"{here}.bias"].reshape(1, -1, 1, 1)

    theirs["input.input"] = ours["synthesis.b4.const"][None]
    layer("conv1", "synthesis.b4.conv1", 0)
    rgb("to_rgb1", "synthesis.b4.torgb")
    for k in range(int(math.log2(network.img_resolution)) - 2):
        block = f"synthesis.b{8 * 2**k}"
        layer(f"convs.{2 * k}", f"{block}.conv0", 2 * k + 1)
        layer(f"convs.{2 * k + 1}", f"{block}.conv1", 2 * k + 2)
        rgb(f"to_rgbs.{k}", f"{block}.torgb")
        theirs[f"convs.{2 * k}.conv.blur.kernel"] = KERNEL * 4
        theirs[f"to_rgbs.{k}.upsample.kernel"] = KERNEL * 4
    return theirs


def their_discriminator(network: Discriminator) -> dict[str, Tensor]:
    """Write a discriminator by the same table."""
    ours = network.state_dict()
    theirs = {
        "convs.0.0.weight": ours[f"b{network.img_resolution}.fromrgb.weight"],
        "convs.0.1.bias": ours[f"b{network.img_resolution}.fromrgb.bias"],
        "final_conv.0.weight": ours["b4.conv.weight"],
        "final_conv.1.bias": ours["b4.conv.bias"],
    }
    for index, name in enumerate(("fc", "out")):
        theirs[f"final_linear.{index}.weight"] = ours[f"b4.{name}.weight"]
        theirs[f"final_linear.{index}.bias"] = ours[f"b4.{name}.bias"]
    for m in range(1, int(math.log2(network.img_resolution)) - 1):
        block = f"b{network.img_resolution // 2 ** (m - 1)}"
        theirs[f"convs.{m}.conv1.0.weight"] = ours[f"{block}.conv0.weight"]
        theirs[f"convs.{m}.conv1.1.bias"] = ours[f"{block}.conv0.bias"]
        theirs[f"convs.{m}.conv2.0.kernel"] = KERNEL
        theirs[f"convs.{m}.conv2.1.weight"] = ours[f"{block}.conv1.weight"]
        theirs[f"convs.{m}.conv2.2.bias"] = ours[f"{block}.conv1.bias"]
        theirs[f"convs.{m}.skip.0.kernel"] = KERNEL
        theirs[f"convs.{m}.skip.1.weight"] = ours[f"{block}.skip.weight"]
    return theirs


def assert_same(found: nn.Module | None, expected: nn.Module) -> None:
    assert found is not None
    assert found.config == expected.config
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_converted_file_comes_back(tmp_path, caplog, is_zip):
    network, average, critic = generator(), generator(), discriminator()
    content = {
        "g_ema": their_generator(average),
        "latent_avg": average.mapping.w_avg,
        "g": their_generator(network),
        "d": their_discriminator(critic),
    }
    path = tmp_path / "weights.pt"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    networks = load_networks(path)
    assert_same(networks.generator, network)
    assert_same(networks.generator_ema, average)
    assert_same(networks.discriminator, critic)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "options", [{"resolution": 8}, {"resolution": 64}, {"mapping_layers": 8}, {"img_channels": 1}]
)
def test_each_size_comes_back(tmp_path, options):
    average = generator(**options)
    content = {"g_ema": their_generator(average), "latent_avg": average.mapping.w_avg}
    torch.save(content, tmp_path / "weights.pt")
    found = load(tmp_path / "weights.pt")
    assert found.state_dict().keys() == average.state_dict().keys()
    assert all(torch.equal(v, average.state_dict()[k]) for k, v in found.state_dict().items())


def test_a_training_checkpoint_is_read_and_its_mean_of_w_computed(tmp_path, caplog):
    network, average, critic = generator(), generator(), discriminator()
    optimizer = torch.optim.Adam(critic.parameters())
    critic(torch.randn(4, 3, 16, 16)).sum().backward()
    optimizer.step()
    content = {
        "g": their_generator(network),
        "d": their_discriminator(critic),
        "g_ema": their_generator(average),
        "g_optim": {"state": {}, "param_groups": []},
        "d_optim": optimizer.state_dict(),
        "args": argparse.Namespace(path="lmdb", size=16, channel_multiplier=2, wandb=False),
        "ada_aug_p": 0.0,
    }
    torch.save(content, tmp_path / "000100.pt")
    with caplog.at_level(logging.INFO):
        networks = load_networks(tmp_path / "000100.pt")
    assert caplog.text.count("lacks the mean of w (computed from 10,000 latents)") == 2
    found = networks.generator_ema
    z = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(1))
    mean = average.mapping(z)[:, 0].mean(dim=0)
    spread = average.mapping(z)[:, 0].std(dim=0)
    # two means of so many samples differ by about spread * sqrt(1/10,000 + 1/20,000)
    assert ((found.mapping.w_avg - mean).abs() < 0.06 * spread + 1e-6).all()
    again = load(tmp_path / "000100.pt")
    assert torch.equal(again.mapping.w_avg, found.mapping.w_avg)
    found.mapping.w_avg.copy_(average.mapping.w_avg)
    assert_same(found, average)
    assert_same(networks.discriminator, critic)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda tensors: tensors, id="bare"),
        pytest.param(lambda tensors: {f"module.{k}": v for k, v in tensors.items()}, id="module"),
        pytest.param(
            lambda tensors: {"g_ema": {f"module.{k}": v for k, v in tensors.items()}}, id="parallel"
        ),
        pytest.param(lambda tensors: {"params_ema": tensors, "params": tensors}, id="params_ema"),
        pytest.param(
            lambda tensors: {
                "state_dict": {
                    "encoder.input_layer.0.weight": torch.zeros(3),
                    **{f"decoder.{k}": v for k, v in tensors.items()},
                },
                "opts": {"output_size": 16},
            },
            id="encoder",
        ),
        pytest.param(
            lambda tensors: {f"_orig_mod.{k}": v for k, v in tensors.items()}, id="compiled"
        ),
        pytest.param(
            lambda tensors: {"g_ema": {f"module._orig_mod.{k}": v for k, v in tensors.items()}},
            id="compiled and parallel",
        ),
        pytest.param(lambda tensors: {"netG": tensors, "epoch": 3}, id="netG"),
        pytest.param(
            lambda tensors: {
                "state_dict": {
                    **{f"g.{k}": torch.zeros_like(v) for k, v in tensors.items()},
                    **{f"g_ema.{k}": v for k, v in tensors.items()},
                    "d.final_conv.0.weight": torch.zeros(3),
                },
                "pytorch-lightning_version": "2.1",
            },
            id="lightning",
        ),
    ],
)
@pytest.mark.parametrize("mean", ["none", "one", "of each style"])
def test_a_generator_within_another_programs_file_is_read(tmp_path, caplog, wrap, mean):
    network = generator()
    content = wrap(their_generator(network))
    if mean != "none":
        average = network.mapping.w_avg.clone()
        content["latent_avg"] = average if mean == "one" else average.repeat(network.num_ws, 1)
    torch.save(content, tmp_path / "file.pt")
    with caplog.at_level(logging.INFO):
        networks = load_networks(tmp_path / "file.pt")
    assert ("lacks the mean of w (computed" in caplog.text) == (mean == "none")
    found = networks.generator_ema
    if mean == "none":
        found.mapping.w_avg.copy_(network.mapping.w_avg)
    assert_same(found, network)
    assert networks.generator is None


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda tensors: tensors, id="bare"),
        pytest.param(
            lambda tensors: {
                "g_ema": {f"module.{k}": v for k, v in tensors.items()},
                "latent_avg": None,
                "args": argparse.Namespace(size=16),
            },
            id="parallel",
        ),
        pytest.param(
            lambda tensors: {"g_ema": {k: v for k, v in tensors.items() if "kernel" not in k}},
            id="without filters",
        ),
        pytest.param(
            lambda tensors: {"g_ema": {k: nn.Parameter(v.double()) for k, v in tensors.items()}},
            id="double parameters",
        ),
        pytest.param(
            lambda tensors: {"state_dict": {f"decoder.{k}": v for k, v in tensors.items()}},
            id="decoder",
        ),
    ],
)
def test_files_of_every_kind_may_lack_noise_maps(tmp_path, caplog, wrap):
    network = generator()
    tensors = {k: v for k, v in their_generator(network).items() if not k.startswith("noises.")}
    torch.save(wrap(tensors), tmp_path / "file.pt")
    with caplog.at_level(logging.INFO):
        found = load(tmp_path / "file.pt")
    (line,) = [line for line in caplog.messages if "lacks" in line]
    assert "lacks noise maps (those of a fixed seed are used) and the mean of w" in line
    for name, value in network.state_dict().items():
        if "noise_const" not in name and name != "mapping.w_avg":
            assert torch.equal(found.state_dict()[name], value), name


def test_a_noise_map_that_is_missing_among_others_is_named(tmp_path):
    tensors = their_generator(generator())
    del tensors["noises.noise_1"]
    torch.save({"g_ema": tensors}, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match=r"lacks noises\.noise_1"):
        load(tmp_path / "file.pt")


def test_networks_of_a_parallel_compiled_run_are_all_read(tmp_path):
    network, average, critic = generator(), generator(), discriminator()
    content = {
        "g": {f"module._orig_mod.{k}": v for k, v in their_generator(network).items()},
        "d": {f"_orig_mod.module.{k}": v for k, v in their_discriminator(critic).items()},
        "g_ema": their_generator(average),
        "latent_avg": average.mapping.w_avg,
    }
    torch.save(content, tmp_path / "file.pt")
    networks = load_networks(tmp_path / "file.pt")
    assert_same(networks.generator, network)
    assert_same(networks.generator_ema, average)
    assert_same(networks.discriminator, critic)


def test_a_generator_of_two_that_have_no_known_names_is_not_guessed(tmp_path):
    tensors = their_generator(generator())
    content = {f"{name}.{k}": v for name in ("first", "second") for k, v in tensors.items()}
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="holds 'first"):
        load(tmp_path / "file.pt")


def test_a_file_without_noise_maps_gets_those_of_a_fixed_seed(tmp_path, caplog):
    network = generator()
    tensors = {k: v for k, v in their_generator(network).items() if not k.startswith("noises.")}
    torch.save({"g_ema": tensors}, tmp_path / "ffhq.pt")
    with caplog.at_level(logging.INFO):
        first = load(tmp_path / "ffhq.pt")
    (line,) = [line for line in caplog.messages if "lacks" in line]
    assert "lacks noise maps (those of a fixed seed are used) and the mean of w (computed" in line
    z = torch.randn(2, 6)
    assert torch.equal(load(tmp_path / "ffhq.pt")(z), first(z))
    ours = network.state_dict()
    for name, value in first.state_dict().items():
        if "noise_const" not in name and name != "mapping.w_avg":
            assert torch.equal(value, ours[name]), name
    assert abs(first.synthesis.b16.conv1.noise_const.std() - 1) < 0.2
    assert not torch.equal(
        first.synthesis.b16.conv0.noise_const, first.synthesis.b16.conv1.noise_const
    )


def full_size(**options: object) -> Networks:
    """Make networks of the widths that the program has."""
    critic = {k: v for k, v in options.items() if k in ("resolution", "channel_base")}
    style = {"z_dim": 6, "w_dim": 6, "mapping_layers": 2, "resolution": 8}
    average = randomized(Generator(GeneratorConfig(**(style | options))))
    return Networks(
        generator=average,
        generator_ema=average,
        discriminator=randomized(
            Discriminator(DiscriminatorConfig(**({"resolution": 8} | critic)))
        ),
    )


@pytest.mark.slow
def test_what_is_written_is_what_the_program_writes(tmp_path):
    networks = full_size()
    io.save(networks, tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "weights.pt", to="rosinality")
    content = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert set(content) == {"g", "g_ema", "d", "latent_avg"}
    assert torch.equal(content["latent_avg"], networks.generator_ema.mapping.w_avg)
    for key, expected in (
        ("g_ema", their_generator(networks.generator_ema)),
        ("d", their_discriminator(networks.discriminator)),
    ):
        assert content[key].keys() == expected.keys()
        for name, tensor in expected.items():
            assert content[key][name].shape == tensor.shape, name
            assert torch.equal(content[key][name], tensor), name
    convert(tmp_path / "weights.pt", tmp_path / "again")
    found = io.load(tmp_path / "again")
    assert_same(found.generator_ema, networks.generator_ema)
    assert_same(found.generator, networks.generator)
    assert_same(found.discriminator, networks.discriminator)


@pytest.mark.parametrize("channel_base", [16384, 32768])
def test_both_widths_of_the_program_can_be_written(channel_base):
    with torch.device("meta"):
        config = GeneratorConfig(resolution=1024, channel_base=channel_base)
        critic = DiscriminatorConfig(resolution=1024, channel_base=channel_base)
        networks = Networks(generator_ema=Generator(config), discriminator=Discriminator(critic))
        for network in (networks.generator_ema, networks.discriminator):
            rosinality._check_expressible(network.config, "x")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"architecture": "resnet"}, "generator_ema has architecture resnet"),
        ({"architecture": "growing"}, "has architecture growing"),
        ({"c_dim": 3}, "has labels (c_dim 3)"),
        ({"img_channels": 1}, "has 1 image channels"),
        ({"w_dim": 7}, "has z_dim 6, w_dim 7"),
        ({"mapping_width": 7}, "mapping_width 7"),
        ({"channel_max": 256}, "has channels {4: 256, 8: 256}"),
        ({"channel_base": 2048}, "has channels {4: 512, 8: 256}"),
    ],
)
def test_what_it_cannot_say_is_refused_and_nothing_is_written(tmp_path, options, found):
    style = {"z_dim": 6, "w_dim": 6, "mapping_layers": 2, "resolution": 8}
    network = Generator(GeneratorConfig(**(style | options)))
    io.save(Networks(generator_ema=network), tmp_path / "native")
    with pytest.raises(WeightsError) as caught:
        convert(tmp_path / "native", tmp_path / "weights.pt", to="rosinality")
    assert found in str(caught.value)
    assert "rosinality files do not support" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["native"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"architecture": "skip"}, "discriminator has architecture skip"),
        ({"mbstd_group_size": 8}, "has minibatch group and channels 8 and 1"),
    ],
)
def test_discriminators_that_it_cannot_say_are_refused(options, found):
    critic = Discriminator(DiscriminatorConfig(resolution=8, **options))
    with pytest.raises(WeightsError) as caught:
        rosinality.tensors_of(Networks(discriminator=critic))
    assert found in str(caught.value)


def test_a_clamp_is_left_out_with_a_warning(caplog):
    critic = Discriminator(DiscriminatorConfig(resolution=8, conv_clamp=256))
    with caplog.at_level(logging.WARNING):
        rosinality.tensors_of(Networks(discriminator=critic))
    assert "discriminator is written without its conv_clamp of 256" in caplog.text


def test_other_families_are_refused():
    config = StyleGANConfig(resolution=8, channel_base=32, channel_max=4)
    with pytest.raises(WeightsError, match="generator has family stylegan,"):
        rosinality.tensors_of(Networks(generator=StyleGAN(config)))


def refusal(tmp_path, content: object) -> str:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(WeightsError) as caught:
        load_networks(tmp_path / "weights.pt")
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path):
    theirs, mean = their_generator(generator()), torch.zeros(6)

    def changed(**changes: Tensor | None) -> dict[str, object]:
        names = {name.replace("__", "."): value for name, value in changes.items()}
        tensors = {k: v for k, v in (theirs | names).items() if v is not None}
        return {"g_ema": tensors, "latent_avg": mean}

    assert "lacks convs.1.activate.bias" in refusal(
        tmp_path, changed(convs__1__activate__bias=None)
    )
    assert "unexpected tensors, more" in refusal(tmp_path, changed(more=torch.ones(1)))
    assert "another filter" in refusal(
        tmp_path, changed(convs__0__conv__blur__kernel=torch.ones(4, 4) / 16)
    )
    assert "is not a generator of that program" in refusal(tmp_path, changed(input__input=None))
    critic = their_discriminator(discriminator())
    critic.pop("final_conv.0.weight")
    assert "is not a discriminator" in refusal(tmp_path, {"g_ema": theirs, "d": critic})
    assert "as latent_avg" in refusal(tmp_path, {"g_ema": theirs, "latent_avg": 3})
    assert "mapping.w_avg [5] for [6]" in refusal(
        tmp_path, {"g_ema": theirs, "latent_avg": torch.ones(5)}
    )
