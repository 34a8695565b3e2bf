"""`stylegan evaluate --watch`: a small run, measured after the fact and while it grows."""

import json
import shutil

import pytest
import torch

from stylegan import images
from stylegan.cli.main import main
from stylegan.cli.train import main as train
from stylegan.metrics import records
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.progan import Generator as GrowingGenerator
from stylegan.models.progan import GeneratorConfig as GrowingConfig
from stylegan.training.log import read_metrics
from stylegan.workflows import evaluate as workflow

SEED = 5


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    stream = torch.Generator().manual_seed(1)
    for index in range(40):
        image = torch.randint(0, 256, [3, 16, 16], generator=stream, dtype=torch.uint8)
        images.write(image, folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos):
    """A run of snapshots at 12, 20 and 32 images, which has measured the last of them."""
    out = tmp_path_factory.mktemp("trained") / "run"
    words = ["--preset", "stylegan2-small", "--data", str(photos), "--resolution", "16"]
    words += ["--batch", "4", "--channel-base", "64", "--channel-max", "8", "--mirror"]
    words += ["--total-kimg", "0.032", "--snapshot-kimg", "0.01", "--set", "output.samples=4"]
    words += ["--device", "cpu", "--seed", str(SEED), "--out", str(out), "--metrics"]
    train([*words, "none"])
    train([*words, "swd16"])
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def nimgs_of(run):
    return [int(path.name) for path in sorted((run / "snapshots").iterdir())]


def watched(capsys, run, *words, status=0):
    """Watch a run; return the images shown of each line, both texts, and the run's records."""
    before = len(read_metrics(run))
    words = ["evaluate", "--device", "cpu", "--watch", str(run), *map(str, words)]
    assert main(words) == status
    captured = capsys.readouterr()
    return read_metrics(run)[before:], captured.out, captured.err


def test_snapshots_are_measured_the_newest_first_and_the_best_is_kept(capsys, run):
    nimgs = nimgs_of(run)
    assert len(nimgs) >= 3
    found, reported, _ = watched(capsys, run, "--metrics", "swd32")
    assert [record["nimg"] for record in found] == nimgs[::-1]
    assert [line.split(":")[0] for line in reported.splitlines()] == [
        f"kimg {nimg / 1000:g}" for nimg in nimgs[::-1]
    ]
    least = min(found, key=lambda record: record["value"])
    best = json.loads((run / "best" / "swd32" / "best.json").read_text())
    assert (best["value"], best["nimg"]) == (least["value"], least["nimg"])
    assert best["comparable"] == least["comparable"] == records.comparable_key(least)
    assert watched(capsys, run, "--metrics", "swd32")[:2] == ([], "")


def test_only_what_is_missing_is_measured(capsys, run):
    nimgs = nimgs_of(run)
    (own,) = read_metrics(run)
    assert (own["metric"], own["nimg"], own["fake"]["seed"]) == ("swd16", nimgs[-1], SEED)
    found, _, _ = watched(capsys, run, "--metrics", "swd16,swd8")
    assert [(each["nimg"], each["metric"]) for each in found] == [
        (nimgs[-1], "swd8"),
        *[(nimg, metric) for nimg in nimgs[-2::-1] for metric in ("swd16", "swd8")],
    ]
    assert {each["comparable"] for each in found if each["metric"] == "swd16"} == {
        own["comparable"]
    }


def test_snapshots_that_lack_nothing_are_not_even_loaded(capsys, monkeypatch, run):
    watched(capsys, run, "--metrics", "swd8")
    loaded, load = [], workflow.load
    monkeypatch.setattr(workflow, "load", lambda path: loaded.append(path.name) or load(path))
    watched(capsys, run, "--metrics", "swd8")
    assert loaded == [f"{nimgs_of(run)[-1]:09d}"]  # one, to know what their records are called


def test_another_seed_is_another_measurement(capsys, run):
    found, _, _ = watched(capsys, run, "--metrics", "swd16", "--seed", 1)
    assert [each["nimg"] for each in found] == nimgs_of(run)[::-1]
    assert {each["fake"]["seed"] for each in found} == {1}


def test_real_images_are_mirrored_as_in_the_run(capsys, run):
    found, _, _ = watched(capsys, run, "--metrics", "swd8")
    assert all(each["real"]["mirrored"] for each in found)
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["config"]["data"]["mirror"] = False
    path.write_text(json.dumps(config))
    found, _, _ = watched(capsys, run, "--metrics", "swd8")
    assert len(found) == len(nimgs_of(run))
    assert not any(each["real"]["mirrored"] for each in found)


def test_data_may_lie_elsewhere(capsys, run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "moved")
    (tmp_path / "moved" / "00.png").unlink()
    found, _, _ = watched(capsys, run, "--metrics", "swd8", "--data", tmp_path / "moved")
    assert {each["real"]["origin"]["path"] for each in found} == {str(tmp_path / "moved")}


def test_a_snapshot_that_still_grows_is_passed_over(capsys, run):
    nimgs = nimgs_of(run)
    for lod, nimg in ((2.0, nimgs[0]), (1.0, nimgs[1]), (0.5, nimgs[2])):
        generator = GrowingGenerator(
            GrowingConfig(resolution=16, z_dim=8, channel_base=64, channel_max=8)
        )
        generator.lod = lod
        folder = run / "snapshots" / f"{nimg:09d}"
        shutil.rmtree(folder)
        io.save(Networks(generator_ema=generator), folder, metadata={"nimg": nimg})
    found, _, _ = watched(capsys, run, "--metrics", "swd8")
    assert [each["nimg"] for each in found] == nimgs[:1:-1]


@pytest.mark.parametrize("which", [0, -1])
def test_a_snapshot_that_cannot_be_read_is_a_line(capsys, run, which):
    nimgs = nimgs_of(run)
    bad = nimgs.pop(which)
    weights = run / "snapshots" / f"{bad:09d}" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    found, _, complaint = watched(capsys, run, "--metrics", "swd8")
    assert [each["nimg"] for each in found] == nimgs[::-1]
    (line,) = [line for line in complaint.splitlines() if "not measured" in line]
    assert f"snapshots/{bad:09d}: not measured (" in line


def test_what_no_snapshot_can_have_is_an_error_at_once(capsys, run):
    found, _, complaint = watched(capsys, run, "--metrics", "swd41", status=1)
    assert found == []
    assert complaint.count("\n") == 1
    assert "has 40 images" in complaint


def test_a_run_is_waited_for_until_it_is_complete(capsys, monkeypatch, run, tmp_path):
    nimgs = nimgs_of(run)
    later = [run / "snapshots" / f"{nimg:09d}" for nimg in nimgs[1:]]
    for folder in later:
        folder.rename(tmp_path / folder.name)
    waits_s = []

    def come(wait_s):
        waits_s.append(wait_s)
        if len(waits_s) > 1:  # nothing new the first time
            folder = later[len(waits_s) - 2]
            (tmp_path / folder.name).rename(folder)

    monkeypatch.setattr(workflow, "POLL_S", 7)
    monkeypatch.setattr(workflow.time, "sleep", come)
    found, _, _ = watched(capsys, run, "--metrics", "swd8")
    assert [each["nimg"] for each in found] == nimgs
    assert waits_s == [7] * len(nimgs)


def test_a_run_is_watched_by_one_process(capsys, monkeypatch, run):
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, _, complaint = watched(capsys, run, "--metrics", "swd8", status=1)
    assert "--watch in several processes" in complaint
