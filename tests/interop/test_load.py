"""What a source is, its content says."""

import shutil
from pathlib import Path

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.models import io
from stylegan.models.base import Networks
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
    assert is_copy(load(run), tiny(1))


@pytest.mark.parametrize("name", ["missing.pkl", "folder", "text.pkl", "empty.pkl"])
def test_an_unknown_source_is_told_what_is_known(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.pkl").write_text("not weights")
    (tmp_path / "empty.pkl").touch()
    found = "does not exist" if name == "missing.pkl" else "is of no known kind"
    with pytest.raises(WeightsError, match=found) as caught:
        load(tmp_path / name)
    for kind in ("native folder", "run folder", "official PyTorch pickle"):
        assert kind in caught.value.expected
