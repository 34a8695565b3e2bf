"""ProGAN and StyleGAN files, made here from our own networks by the names of spec 14.2."""

import math
from dataclasses import replace

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.tensorflow_pickle import TensorFlowNetwork
from stylegan.interop.tensorflow_stylegan import (
    build_progan,
    build_stylegan,
    family_of_tensorflow,
    networks_of,
)
from stylegan.models.registry import create

BUILD = {"progan": build_progan, "stylegan": build_stylegan}


def tensorflow(tensor):
    """Turn a tensor to TensorFlow's layout."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0)
    return tensor.t() if tensor.ndim == 2 else tensor


def layer_of(name):
    """Split a name into its block's resolution, its layer, and what it is of the layer."""
    block, layer, part = name.split(".", 2)
    return int(block.removeprefix("b")), layer, part


def variables_of(network):
    """Write a network of ours as a file has it, with separate up-convolutions in ProGAN."""
    top = network.img_resolution
    is_generator = hasattr(network, "synthesis")
    is_progan = "progan" in type(network).__module__
    variables = {"lod": torch.tensor(0.0)}
    for name, tensor in network.state_dict().items():
        if name == "mapping.w_avg":
            variables["dlatent_avg"] = tensor
        elif name == "mapping.embed.weight":
            variables["mapping/LabelConcat/weight"] = tensor.t()
        elif name.startswith("mapping.fc"):
            theirs = name.replace(".fc", "/Dense").replace(".", "/")
            variables[theirs] = tensorflow(tensor)
        else:
            side, layer, part = layer_of(name.removeprefix("synthesis."))
            place = f"{side}x{side}"
            if layer in ("torgb", "fromrgb"):
                rgb = "ToRGB" if layer == "torgb" else "FromRGB"
                theirs = f"{rgb}_lod{int(math.log2(top // side))}"
            elif is_generator:
                has_const = "synthesis.b4.input.const" in network.state_dict()
                first = "Const" if has_const else "Dense"
                up = "Conv0" if is_progan else "Conv0_up"
                names = {"dense": "Dense", "input": first, "conv": "Conv", "conv0": up}
                last = "Conv" if side == 4 else "Conv1"
                theirs = f"{place}/{names.get(layer, last)}"
            else:
                fused = getattr(network.config, "fused_scale", True)
                down = "Conv1_down" if fused else "Conv1"
                names = {"conv": "Conv", "fc": "Dense0", "out": "Dense1", "conv1": down}
                theirs = f"{place}/{names.get(layer, 'Conv0')}"
            prefix = "" if is_progan or not is_generator else "synthesis/"
            if part == "const":
                variables[f"{prefix}{theirs}/const"] = tensor[None]
            elif part == "noise_strength":
                variables[f"{prefix}{theirs}/Noise/weight"] = tensor
            elif part == "noise_const":
                index = 2 * int(math.log2(side // 4)) + (layer == "conv1")
                variables[f"{prefix}noise{index}"] = tensor[None, None]
            else:
                part = part.replace("affine.", "StyleMod/")
                variables[f"{prefix}{theirs}/{part}"] = tensorflow(tensor)
    return variables


def file_of(name, *, resolution=16, **options):
    """Return G, D, Gs of a made-up file, and our networks that are in it."""
    small = {"channel_base": 64, "channel_max": 6, "z_dim": 8}
    if name != "progan":
        small["w_dim"] = 8
    networks = create(name, resolution, **small | options)
    for _, network in networks.items():
        for key, parameter in network.named_parameters():
            if key.endswith(("bias", "noise_strength")):
                torch.nn.init.normal_(parameter, std=0.3)
    said = {"resolution": resolution, "num_channels": 3, "label_size": options.get("c_dim", 0)}
    keyed = {"G": "generator", "D": "discriminator", "Gs": "generator_ema"}
    found = {
        key: TensorFlowNetwork(
            version=2 if name == "progan" else 3,
            name=key,
            build_func_name="",
            static_kwargs=said,
            variables=variables_of(getattr(networks, ours)),
        )
        for key, ours in keyed.items()
    }
    return found, networks


@pytest.mark.parametrize("labels", [0, 1, 3])
@pytest.mark.parametrize("name", ["progan", *(f"stylegan-{letter}" for letter in "bcdef")])
def test_every_letter_is_read(name, labels):
    options = {"c_dim": labels}
    if labels and name == "stylegan-b":
        options["w_dim"] = 16  # w is then z and the labels' embedding
    found, networks = file_of(name, **options)
    again = networks_of(found, "file")
    assert found == {}
    for (_, network), (_, read) in zip(networks.items(), again.items(), strict=True):
        assert type(read) is type(network)
        assert read.config.__class__ is network.config.__class__
        ours, theirs = network.state_dict(), read.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    z = torch.randn(2, 8)
    c = torch.eye(labels)[[0, -1]] if labels else None
    assert torch.equal(again.generator(z, c), networks.generator(z, c))
    # the group of the statistics is 4 where the file does not say
    images = torch.randn(4, 3, 16, 16)
    c = torch.eye(labels)[[0, -1, 0, -1]] if labels else None
    assert torch.equal(again.discriminator(images, c), networks.discriminator(images, c))


def test_networks_for_rectangles_are_read_where_their_shapes_tell_the_base():
    found, networks = file_of("stylegan-f", resolution="40x24")
    again = networks_of(found, "file")
    for (_, network), (_, read) in zip(networks.items(), again.items(), strict=True):
        assert read.config.resolution == "40x24"
        ours, theirs = network.state_dict(), read.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    found, _ = file_of("progan", resolution="40x24")  # without a constant: 15 pixels of either form
    with pytest.raises(WeightsError, match="is non-square, base 3x5 or 5x3"):
        networks_of(found, "file")


def test_progan_distinguishes_joined_operations_by_their_names():
    found, networks = file_of("progan", fused_scale=False, mbstd_group_size=16)
    config = networks_of(found, "file").discriminator.config
    assert not config.fused_scale
    assert config.mbstd_group_size == networks.discriminator.config.mbstd_group_size


@pytest.mark.parametrize("name", ["progan", "stylegan-f"])
@pytest.mark.parametrize("shape", [[], [1]])
def test_the_level_of_detail_is_taken_over(name, shape):
    found, _ = file_of(name)
    for network in found.values():
        network.variables["lod"] = torch.full(shape, 1.5)
    networks = networks_of(found, "file")
    assert [network.lod for _, network in networks.items()] == [1.5, 1.5, 1.5]


def test_the_level_of_the_synthesis_network_counts():
    found, _ = file_of("stylegan-f")
    found["G"].variables["synthesis/lod"] = torch.tensor(1.0)
    assert build_stylegan(found["G"], origin="G").lod == 1


def test_families_are_distinguished():
    progan, _ = file_of("progan")
    stylegan, _ = file_of("stylegan-f")
    assert family_of_tensorflow(progan) == "progan"
    assert family_of_tensorflow(stylegan) == "stylegan"
    basic = replace(stylegan["D"], build_func_name="D_basic")
    assert family_of_tensorflow({"D": basic}) == "stylegan"
    paper = replace(basic, build_func_name="D_paper")
    assert family_of_tensorflow({"D": paper}) == "progan"
    stylegan["G"].variables["synthesis/ToRGB_lod0/mod_weight"] = torch.zeros(8, 6)
    assert family_of_tensorflow({"G": stylegan["G"]}) is None
    assert family_of_tensorflow({}) is None
    with pytest.raises(WeightsError, match="file holds no ProGAN or StyleGAN network"):
        networks_of({}, "file")


@pytest.mark.parametrize(
    ("name", "key", "said", "message"),
    [
        ("progan", "G", {"resolution": 32}, "resolution = 32, its tensors say 16"),
        ("progan", "G", {"num_channels": 1}, "num_channels = 1"),
        ("progan", "G", {"latent_size": 9}, "latent_size = 9, its tensors say 8"),
        ("progan", "G", {"label_size": "x"}, "label_size = 'x'"),
        ("progan", "G", {"use_wscale": False}, "use_wscale = False"),
        ("progan", "G", {"use_pixelnorm": False}, "use_pixelnorm = False"),
        ("progan", "D", {"label_size": 2}, "label_size = 2, its tensors say 0"),
        ("progan", "D", {"mbstd_group_size": -1}, "mbstd_group_size = -1"),
        ("stylegan-f", "G", {"dlatent_size": 9}, "dlatent_size = 9, its tensors say 8"),
        ("stylegan-f", "G", {"mapping_layers": 2}, "mapping_layers = 2, its tensors say 8"),
        ("stylegan-f", "G", {"mapping_fmaps": 9}, "mapping_fmaps = 9, its tensors say 8"),
        ("stylegan-f", "G", {"use_noise": False}, "use_noise = False, its tensors say True"),
        ("stylegan-f", "G", {"use_pixel_norm": True}, "use_pixel_norm = True"),
        ("stylegan-f", "G", {"use_styles": False}, "use_styles = False"),
        ("stylegan-f", "G", {"const_input_layer": False}, "const_input_layer = False"),
        ("stylegan-f", "G", {"nonlinearity": "relu"}, "nonlinearity = 'relu'"),
        ("stylegan-f", "G", {"blur_filter": None}, "blur_filter = None"),
        ("stylegan-f", "G", {"blur_filter": [1, 3, 3, 1]}, "blur_filter = "),
        ("stylegan-f", "G", {"mapping_lrmul": 1.0}, "expected mapping_lrmul = 0.01"),
        ("stylegan-f", "G", {"fused_scale": "sometimes"}, "fused_scale = 'sometimes'"),
        ("stylegan-f", "D", {"label_size": 2}, "label_size = 2, its tensors say 0"),
        ("stylegan-f", "D", {"blur_filter": None}, "blur_filter = None"),
    ],
)
def test_arguments_that_contradict_are_refused_by_name(name, key, said, message):
    found, _ = file_of(name)
    network = replace(found[key], static_kwargs=found[key].static_kwargs | said)
    with pytest.raises(WeightsError, match=message):
        BUILD[name.partition("-")[0]](network, origin="file")


def changed(network, name, value):
    variables = dict(network.variables)
    if value is None:
        del variables[name]
    else:
        variables[name] = value
    return replace(network, variables=variables)


@pytest.mark.parametrize(
    ("name", "key", "variable", "value", "message"),
    [
        ("progan", "G", "8x8/Conv1/weight", None, "8x8/Conv1/weight"),
        ("progan", "G", "8x8/Extra/weight", torch.zeros(2), "unexpected tensors, 8x8/Extra/weight"),
        ("progan", "G", "64x64/Conv1/bias", torch.zeros(2), r"blocks at \[4, 8, 16, 64\]"),
        ("progan", "G", "lod", torch.tensor(9.0), "lod = 9; expected one number from 0 to 2"),
        ("progan", "G", "lod", torch.tensor(math.nan), "lod = nan"),
        ("progan", "G", "lod", torch.zeros(2), "lod = 2 numbers"),
        ("progan", "D", "4x4/Dense1/bias", None, "no tensor 4x4/Dense1/bias"),
        ("progan", "D", "4x4/Dense0/weight", torch.zeros(5, 6), "a dense layer of 5 numbers"),
        ("stylegan-f", "G", "dlatent_avg", None, "no tensor dlatent_avg"),
        ("stylegan-f", "G", "synthesis/noise1", torch.zeros(1, 1, 2, 4), "other shapes"),
        ("stylegan-f", "G", "synthesis/noise1", torch.zeros(4, 4), "of 2 axes"),
        ("stylegan-f", "G", "synthesis/16x16/Conv1/bias", torch.zeros(3), "other shapes"),
        ("stylegan-f", "G", "mapping/Dense3/weight", None, "mapping/Dense4/weight"),
    ],
)
def test_damaged_files_are_refused_by_name(name, key, variable, value, message):
    found, _ = file_of(name)
    network = changed(found[key], variable, value)
    with pytest.raises(WeightsError, match=message):
        BUILD[name.partition("-")[0]](network, origin="file")


def test_convolutions_are_joined_from_128_on_where_the_file_says_nothing():
    sizes = {"channel_base": 256, "channel_max": 4, "z_dim": 4, "w_dim": 4, "mapping_layers": 1}
    network = create("stylegan-f", 128, **sizes).generator
    variables = variables_of(network)
    joined = "synthesis/128x128/Conv0_up/weight"
    variables[joined] = variables[joined].flip(0, 1)
    found = TensorFlowNetwork(
        version=3, name="G", build_func_name="", static_kwargs={}, variables=variables
    )
    read = build_stylegan(found, origin="file").state_dict()
    assert all(torch.equal(value, read[key]) for key, value in network.state_dict().items())
