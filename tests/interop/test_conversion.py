"""Conversions are whole or not at all, and say what they found."""

from pathlib import Path

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.convert import convert, summarize
from stylegan.interop.load import load_networks
from stylegan.models import io
from stylegan.models.base import Networks, num_parameters
from stylegan.models.registry import create

PARITY = Path(__file__).parents[1] / "parity"
TF, TORCH = PARITY / "stylegan2-tf.pkl", PARITY / "stylegan2-torch-skip-resnet-c5.pkl"


@pytest.mark.parametrize("stem", ["stylegan2-tf", "stylegan-tf", "progan-tf"])
def test_a_native_folder_holds_what_the_file_held(tmp_path, stem):
    source = PARITY / f"{stem}.pkl"
    found = convert(source, tmp_path / "native")
    assert (found.kind, found.path, found.out) == (
        "an official TensorFlow pickle (.pkl)",
        source,
        tmp_path / "native",
    )
    before, after = load_networks(source), io.load(tmp_path / "native")
    for (name, expected), (again, network) in zip(before.items(), after.items(), strict=True):
        assert (name, expected.config, expected.lod) == (again, network.config, network.lod)
        for key, tensor in expected.state_dict().items():
            assert torch.equal(network.state_dict()[key], tensor)
    assert io.read_metadata(tmp_path / "native") == {
        "converted_from": {"name": f"{stem}.pkl", "kind": found.kind}
    }


def test_the_metadata_of_a_native_folder_stays(tmp_path):
    io.save(create("stylegan2-small", 8, channel_max=4), tmp_path / "a", metadata={"my": 1})
    convert(tmp_path / "a", tmp_path / "b")
    assert io.read_metadata(tmp_path / "b") == {"my": 1}


def test_networks_are_summarized():
    networks = load_networks(TORCH)
    first, average, critic = summarize(networks, to="nvidia")
    assert (first.name, first.becomes) == ("generator", "G")
    assert (average.name, average.becomes) == ("generator_ema", "G_ema")
    assert average.family == "stylegan2"
    assert average.architecture == "skip"
    assert average.images == "16x16, 3 channels"
    assert average.widths == "24 at 4 to 8, 16 at 16"
    assert average.latents == "z 32, w 40, 3 mapping layers"
    assert (average.labels, average.others) == (5, "conv_clamp 256")
    assert average.parameters == num_parameters(networks.generator_ema)
    assert (critic.becomes, critic.architecture, critic.latents) == ("D", "resnet", "")


def test_a_growing_network_is_summarized_with_its_level_of_detail():
    networks = create("stylegan2-d", 16, channel_max=4, mbstd_group_size=8)
    networks.generator.lod = 0.5
    first, average, critic = summarize(networks)
    assert first.architecture == "growing, lod 0.5"
    assert average.architecture == "growing, lod 0"
    assert critic.others == "mbstd_group_size 8"
    assert first.becomes == "generator"


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    for out, to in (
        ("file", "nvidia"),
        ("file", "native"),
        ("folder", "nvidia"),
        ("folder", "native"),
    ):
        with pytest.raises(WeightsError) as caught:
            convert(TF, tmp_path / out, to=to)
        assert str(tmp_path / out) in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="exists"):
        convert(TF, tmp_path / "link", to="nvidia")


def test_a_native_folder_is_replaced_whole(tmp_path):
    io.save(create("stylegan2-small", 8, channel_max=4), tmp_path / "native")
    convert(TF, tmp_path / "native")
    assert io.load(tmp_path / "native").generator_ema.img_resolution == 16


def test_a_failed_conversion_leaves_nothing(tmp_path, monkeypatch):
    def fail(content, file):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(OSError, match="full"):
        convert(TORCH, tmp_path / "out.pt", to="nvidia")
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_our_mistake(tmp_path):
    with pytest.raises(ValueError, match="to must be one of"):
        convert(TF, tmp_path / "out", to="onnx")


def test_a_source_without_networks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("stylegan.interop.nvidia.networks_of", lambda *_: Networks())
    with pytest.raises(WeightsError, match="has no network"):
        convert(TORCH, tmp_path / "out")


@pytest.mark.parametrize("to", ["nvidia", "rosinality"])
def test_a_generator_without_noise_is_written_with_noise_of_strength_zero(tmp_path, to):
    generator = create("stylegan2-e", 8, noise=False).generator_ema
    io.save(Networks(generator_ema=generator), tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "network.pt", to=to)
    again = load_networks(tmp_path / "network.pt").generator_ema
    z = torch.randn(2, again.z_dim)
    torch.testing.assert_close(again(z, noise_mode="const"), generator(z), rtol=0, atol=1e-5)
