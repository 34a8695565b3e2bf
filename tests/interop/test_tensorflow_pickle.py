"""TensorFlow pickles of every age are read as data."""

import shutil
from pathlib import Path

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.tensorflow_pickle import is_tensorflow_pickle, read_tensorflow_pickle

PARITY = Path(__file__).parents[1] / "parity"
GOLDEN = PARITY / "stylegan2-tf.pkl"


def test_the_three_networks_come_back_with_their_components_variables():
    networks = read_tensorflow_pickle(GOLDEN)
    assert list(networks) == ["G", "D", "Gs"]
    average = networks["Gs"]
    assert (average.version, average.name, average.build_func_name) == (4, "Gs", "G_main")
    assert average.static_kwargs["fmap_base"] == 256
    shapes = {name: tuple(tensor.shape) for name, tensor in average.variables.items()}
    assert shapes["lod"] == ()
    assert shapes["dlatent_avg"] == (32,)
    assert shapes["mapping/Dense0/weight"] == (32, 32)
    assert shapes["synthesis/4x4/ToRGB/weight"] == (1, 1, 24, 3)
    assert all(tensor.dtype == torch.float32 for tensor in average.variables.values())
    assert networks["D"].variables["Output/bias"].shape == (1,)


def test_only_its_own_kind_is_known_at_a_look(tmp_path):
    assert is_tensorflow_pickle(GOLDEN)
    assert not is_tensorflow_pickle(PARITY / "stylegan2-torch-skip-resnet.pkl")
    assert not is_tensorflow_pickle(tmp_path / "missing")
    assert not is_tensorflow_pickle(tmp_path)
    (tmp_path / "short").write_bytes(b"\x80\x04")
    assert not is_tensorflow_pickle(tmp_path / "short")


def test_a_missing_file_and_a_cut_file_are_told_in_one_line(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_tensorflow_pickle(tmp_path / "missing")
    cut = tmp_path / "cut.pkl"
    shutil.copy(GOLDEN, cut)
    with cut.open("r+b") as file:
        file.truncate(200_000)
    with pytest.raises(WeightsError, match="breaks off"):
        read_tensorflow_pickle(cut)
