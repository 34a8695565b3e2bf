"""What a source is, its content says."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.load import kind_of, load, load_networks
from stylegan.interop.official_pickle import read_official_pickle
from stylegan.interop.tensorflow_pickle import read_tensorflow_pickle
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.registry import family_of
from stylegan.models.stylegan2 import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

PARITY = Path(__file__).parents[1] / "parity"
GOLDEN = PARITY / "stylegan2-torch-skip-resnet.pkl"


def tiny(seed: int) -> Generator:
    torch.manual_seed(seed)
    return Generator(
        GeneratorConfig(resolution=8, z_dim=4, w_dim=4, channel_base=32, channel_max=4)
    )


def is_copy(network: torch.nn.Module | None, other: torch.nn.Module) -> bool:
    return network is not None and all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_pickle_is_known_whatever_its_name(tmp_path):
    shutil.copy(GOLDEN, tmp_path / "weights.safetensors")
    networks = load_networks(tmp_path / "weights.safetensors")
    assert networks.generator is not None
    assert networks.discriminator is not None
    assert is_copy(load(str(GOLDEN)), networks.generator_ema)


def test_the_average_comes_first_then_the_generator(tmp_path):
    first, average = tiny(0), tiny(1)
    io.save(Networks(generator=first, generator_ema=average), tmp_path / "both")
    io.save(Networks(generator=first), tmp_path / "one")
    assert is_copy(load(tmp_path / "both"), average)
    assert is_copy(load(tmp_path / "one"), first)
    critic = Discriminator(DiscriminatorConfig(resolution=8, channel_base=32, channel_max=4))
    io.save(Networks(discriminator=critic), tmp_path / "none")
    with pytest.raises(WeightsError, match="has no generator"):
        load(tmp_path / "none")


def test_a_loaded_generator_is_ready_for_use():
    generator = load(GOLDEN)
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert not generator(torch.zeros(1, generator.z_dim)).requires_grad


def test_a_run_gives_its_newest_complete_snapshot(tmp_path):
    run = tmp_path / "run"
    (run / "snapshots" / "notes").mkdir(parents=True)
    with pytest.raises(WeightsError, match="no complete snapshot"):
        load(run)
    io.save(Networks(generator_ema=tiny(1)), run / "snapshots" / "000009000")
    io.save(Networks(generator_ema=tiny(2)), run / "snapshots" / "000010000")
    (run / "snapshots" / "000011000").mkdir()
    (run / "snapshots" / "000011000" / "model.safetensors").write_bytes(b"half")
    assert is_copy(load(run), tiny(2))
    shutil.rmtree(run / "snapshots" / "000010000")
    (run / "snapshots" / "\u00b2").mkdir()  # a superscript, which `isdigit` takes for a digit
    assert is_copy(load(run), tiny(1))


@pytest.mark.parametrize(
    ("stem", "kind"),
    [
        ("progan-tf", "an official TensorFlow pickle"),
        ("stylegan-tf", "an official TensorFlow pickle"),
        ("stylegan2-tf", "an official TensorFlow pickle"),
        ("stylegan2-torch-skip-resnet", "an official PyTorch pickle"),
    ],
)
def test_pickles_are_distinguished_by_what_they_name(stem, kind):
    path = PARITY / f"{stem}.pkl"
    assert kind_of(path).name == f"{kind} (.pkl)"
    family = stem.partition("-")[0]
    networks = load_networks(path)
    assert {family_of(network) for _, network in networks.items()} == {family}
    only = load_networks(path, only=["discriminator"])
    assert [name for name, _ in only.items()] == ["discriminator"]
    assert is_copy(only.discriminator, networks.discriminator)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"state_dict": {"generator.x": torch.ones(2)}, "meta": {}}, "holds 'state_dict', 'meta'"),
        ({"model": {"x": torch.ones(2)}, "epoch": 3}, "holds 'model', 'epoch'"),
        ({}, "holds nothing"),
    ],
)
def test_torch_files_of_no_known_program_are_described(tmp_path, content, found):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(WeightsError) as caught:
        load(tmp_path / "weights.pt")
    assert found in str(caught.value)
    assert "official state dicts" in caught.value.expected


def test_a_damaged_torch_file_is_not_taken_for_a_pickle(tmp_path):
    torch.save({"g_ema": {"x": torch.ones(2)}}, tmp_path / "weights.pt")
    data = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(data[:-30])
    with pytest.raises(WeightsError, match="expected a whole file"):
        load(tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["folder", "text.pkl", "empty.pkl"])
def test_an_unknown_source_is_refused_with_the_known_names(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.pkl").write_text("not weights")
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(WeightsError, match="is of an unknown kind") as caught:
        load(tmp_path / name)
    for kind in ("native folder", "run folder", "official PyTorch pickle", "rosinality file"):
        assert kind in caught.value.expected


def test_a_source_that_does_not_exist_is_refused_with_a_similar_name(tmp_path):
    with pytest.raises(WeightsError, match="does not exist; expected a run folder"):
        load(tmp_path / "missing.pkl")
    with pytest.raises(WeightsError, match="did you mean stylegan2-ffhq-config-f"):
        load("stylegan2-ffhq-conf-f")


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    with pytest.raises(WeightsError, match="is neither a file nor a folder"):
        load(tmp_path / "pipe.pkl")
    for read in (read_official_pickle, read_tensorflow_pickle):
        with pytest.raises(WeightsError, match=r"cannot be read \(not a regular file\)"):
            read(tmp_path / "pipe.pkl")
