"""The commands on a finished run of each family, and on one with labels."""

import pytest

from stylegan.cli.main import main
from stylegan.metrics import records


@pytest.fixture(params=["progan", "stylegan", "stylegan2", "conditional"])
def run(request, finished_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    return str(finished_runs(request.param))


def test_a_run_is_sampled_measured_analyzed_and_converted(run, family_config, request, tmp_path):
    config = family_config(request.node.callspec.params["run"])
    cpu = ["--device", "cpu"]
    label = ["--class", "1"] if config.generator.c_dim else []
    generate = ["generate", "images", "--network", run, "--seeds", "0-2", "--out", "images"]
    assert main([*generate, *label, *cpu]) == 0
    assert len(list((tmp_path / "images").glob("*.png"))) == 3
    measure = ["evaluate", "--network", run, "--data", config.data.path, "--metrics", "swd8"]
    assert main([*measure, "--out", "metrics.jsonl", *cpu]) == 0
    (record,) = records.read("metrics.jsonl")
    assert record["fake"]["origin"]["nimg"] == 160
    spectra = ["analyze", "spectra", "--network", run, "--num", "8", "--out", "spectra"]
    assert main([*spectra, *label, *cpu]) == 0
    assert main(["convert", run, "converted"]) == 0
    assert main([*generate[:3], "converted", *generate[4:-1], "again", *label, *cpu]) == 0
    for path in (tmp_path / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
