import json

import pytest

from stylegan.cli.bench import main
from stylegan.errors import ConfigError

BOUNDS = {"products", "memory", "neither"}
TINY = [
    *("--resolution", "16", "--batch", "4", "--channel-base", "64", "--channel-max", "8"),
    *("--rounds", "1", "--device", "cpu", "--precision", "fp32"),
]


def test_one_json_object_has_rates_and_phases(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert main([*TINY, "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert set(found["phases"]) == {"sample", "G", "path_length", "D", "R1", "iteration"}
    sampling, training = found["sample_images_per_second"], found["train_images_per_second"]
    assert sampling == found["phases"]["sample"]["images_per_second"] > training > 0
    assert training == found["phases"]["iteration"]["images_per_second"]
    assert found["settings"]["precision"] == "fp32"
    assert found["product_rate_flops"] > 0


@pytest.mark.parametrize("preset", ["progan", "stylegan-f", "stylegan2-small"])
def test_every_family_is_measured(preset, capsys):
    assert main(["--preset", preset, *TINY]) == 0
    lines = capsys.readouterr().out
    assert preset in lines.splitlines()[0]
    for word in ("sampling", "G main", "D main", "iteration", "TFLOP/s"):
        assert word in lines


def test_no_rounds_are_refused():
    with pytest.raises(ConfigError, match="--rounds 0"):
        main(["--rounds", "0"])


def test_layers_are_told_with_what_bounds_them(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert main([*TINY, "--layers", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("G b16.conv1    4x16x16") for line in lines)
    assert all(len(line) <= 80 for line in lines)
    found = json.loads(out.read_text())
    assert {layer["network"] for layer in found["layers"]} == {"G", "D"}
    assert {layer["forward"]["bound"] for layer in found["layers"]} <= BOUNDS
    assert found["memory_rate_bytes"] > 0
