import json
from dataclasses import replace

import pytest

import stylegan
from stylegan.cli.bench import main
from stylegan.errors import ConfigError
from stylegan.profiling.roofline import measure_layers
from stylegan.profiling.speed import measure

pytestmark = pytest.mark.usefixtures("machine_measured_once")
WORKFLOW = "stylegan.workflows.bench"
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


@pytest.mark.parametrize("option", ["rounds", "label_dim"])
def test_numbers_that_cannot_be_are_refused(option):
    with pytest.raises(ConfigError, match=f"{option} must be .* got -1"):
        main([f"--{option.replace('_', '-')}", "-1"])


@pytest.mark.slow
def test_networks_with_labels_are_measured(capsys):
    assert main([*TINY, "--label-dim", "3", "--layers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["label_dim"] == 3
    assert found["train_images_per_second"] > 0


@pytest.mark.parametrize(
    "extra",
    [
        ["--preset", "progan"],
        pytest.param(["--preset", "stylegan-f"], marks=pytest.mark.slow),
    ],
)
def test_layers_of_a_growing_network_are_those_of_the_full_resolution(extra, capsys):
    assert main([*TINY, *extra, "--layers", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {layer["shape"][-1] for layer in layers if layer["network"] == "G"} == {4, 8, 16}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
def test_layers_are_timed_uncompiled(monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(f"{WORKFLOW}.measure", lambda config, **_: measure(plain(config), rounds=1))
    monkeypatch.setattr(
        f"{WORKFLOW}.measure_layers",
        lambda state, rounds: measured.append(state.config) or measure_layers(state, rounds=1),
    )
    assert main([*TINY, "--layers", "--json", "--compile"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["compile"]
    assert not measured[0].runtime.compile


def plain(config):
    return replace(config, runtime=replace(config.runtime, compile=False))


def test_layers_are_reported_with_what_bounds_them(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert main([*TINY, "--layers", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("G b16.conv1    4x16x16") for line in lines)
    assert all(len(line) <= 80 for line in lines)
    found = json.loads(out.read_text())
    assert {layer["network"] for layer in found["layers"]} == {"G", "D"}
    assert {layer["forward"]["bound"] for layer in found["layers"]} <= BOUNDS
    assert found["memory_rate_bytes"] > 0


def test_speed_is_measured_without_a_command_line():
    calls = []
    result = stylegan.bench(
        resolution=16,
        batch=4,
        channel_base=64,
        channel_max=8,
        rounds=2,
        device="cpu",
        progress=lambda *call: calls.append(call),
    )
    assert calls == [("rounds", 1, 2), ("rounds", 2, 2)]
    assert result.speed.phases["sample"].images_per_second > 0
    assert "<pre>stylegan2-e at 16x16, batch 4," in result._repr_html_()
