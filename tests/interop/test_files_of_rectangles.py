"""Files of networks for images that are not square: read where the tensors' shapes tell all."""

import pytest
import tensorflow_files
import torch

from stylegan.errors import WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.interop.nvidia import state_dicts_of
from stylegan.interop.rosinality import tensors_of
from stylegan.models.registry import create

TINY = {"channel_base": 128, "channel_max": 6, "z_dim": 6}


def networks(resolution="40x24", name="stylegan2-e", **options):
    torch.manual_seed(0)
    return create(name, resolution, **(TINY | options))


def is_equal(one, other):
    state = other.state_dict()
    return one.config == other.config and all(
        torch.allclose(value, state[key], atol=1e-6) for key, value in one.state_dict().items()
    )


@pytest.mark.parametrize("resolution", ["40x24", "24x40", 48])  # bases 5x3, 3x5 and 3x3
@pytest.mark.parametrize("architecture", ["skip", "resnet", "growing"])
def test_tensorflow_files_are_read(resolution, architecture, write_tensorflow):
    ours = networks(resolution, w_dim=5, architecture=architecture)
    root = (
        tensorflow_files.discriminator(ours.discriminator),
        tensorflow_files.generator("Gs", ours.generator_ema),
    )
    read = load_networks(write_tensorflow(root))
    assert is_equal(ours.generator_ema, read.generator_ema)
    assert is_equal(ours.discriminator, read.discriminator)
    z = torch.randn(2, 6)
    torch.testing.assert_close(load(write_tensorflow(root))(z), ours.generator_ema.eval()(z))


def test_a_discriminator_alone_is_refused_where_two_bases_are_possible(write_tensorflow):
    critic = networks().discriminator
    with pytest.raises(WeightsError, match="is non-square, base 3x5 or 5x3, which its tensors"):
        load_networks(write_tensorflow(tensorflow_files.discriminator(critic)))
    square = networks(48).discriminator
    read = load_networks(write_tensorflow(tensorflow_files.discriminator(square)))
    assert read.discriminator.config.resolution == 48


def test_a_base_that_is_no_base_of_ours_is_refused(write_tensorflow):
    network = networks(8, w_dim=5).generator_ema
    network.synthesis.b4.const = torch.nn.Parameter(torch.zeros(6, 8, 12))
    with pytest.raises(WeightsError, match="is non-square, base 8x12"):
        load_networks(write_tensorflow(tensorflow_files.generator("Gs", network)))
    network.synthesis.b4.const = torch.nn.Parameter(torch.zeros(6, 2, 4))
    with pytest.raises(WeightsError, match="is non-square, base 2x4"):
        load_networks(write_tensorflow(tensorflow_files.generator("Gs", network)))


def test_official_state_dicts_are_read(tmp_path):
    ours = networks(w_dim=5, mapping_layers=2)
    content = {
        "D": ours.discriminator.state_dict(),
        "G_ema": ours.generator_ema.state_dict(),
    }
    torch.save(content, tmp_path / "networks.pt")
    read = load_networks(tmp_path / "networks.pt")
    assert is_equal(ours.generator_ema, read.generator_ema)
    assert read.discriminator.config.resolution == "40x24"


@pytest.mark.parametrize("write", [state_dicts_of, tensors_of])
def test_formats_without_such_sizes_are_refused(write):
    options = {"channel_base": 32768, "w_dim": 6}
    for resolution, shown in (("40x24", "40x24"), (48, "48x48")):
        ours = networks(resolution, **options)
        with pytest.raises(WeightsError, match=f"images of {shown}, .* square ones"):
            write(ours)


def test_rosinality_files_are_read(tmp_path, monkeypatch):
    ours = networks(w_dim=6, channel_base=32768, channel_max=12)
    with monkeypatch.context() as patch:  # the program has no such networks, but its forks might
        patch.setattr("stylegan.interop.rosinality._check_expressible", lambda *_: None)
        torch.save(tensors_of(ours), tmp_path / "networks.pt")
    read = load_networks(tmp_path / "networks.pt")
    assert is_equal(ours.generator_ema, read.generator_ema)
    assert is_equal(ours.discriminator, read.discriminator)
