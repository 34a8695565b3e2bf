"""The command `stylegan evaluate`, with real features of small sets."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stylegan import images
from stylegan.cli.main import main
from stylegan.cli.measuring import default_metrics, evaluator_for, is_mirrored, protocols_of
from stylegan.data.dataset import ImageDataset
from stylegan.errors import StyleganError, WeightsError
from stylegan.metrics import records
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

LITE = "efficientnet-lite0"


def small_generator(**options):
    config = GeneratorConfig(
        **{"resolution": 16, "z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 64}
        | options
    )
    return Generator(config)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "network"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = small_generator()
    io.save(Networks(generator_ema=generator), folder, metadata={"nimg": 5000})
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    stream = torch.Generator().manual_seed(1)
    for index in range(80):
        image = torch.randint(0, 256, [3, 16, 16], generator=stream, dtype=torch.uint8)
        images.write(image, folder / f"{index:02d}.png")
    return str(folder)


def run(capsys, *words):
    status = main(["evaluate", "--device", "cpu", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys, *words):
    """Return the one line that a command fails with."""
    status, _, complaint = run(capsys, *words)
    assert status == 1
    assert complaint.count("\n") == 1
    return complaint


def test_a_network_is_measured_and_each_result_is_a_record(capsys, network, photos):
    status, told, _ = run(
        capsys,
        "--network",
        network,
        "--data",
        photos,
        "--metrics",
        f"kid70:{LITE},swd32,is20:{LITE}",
    )
    assert status == 0
    found = records.read("metrics.jsonl")
    assert [record["metric"] for record in found] == [f"kid70:{LITE}", "swd32", f"is20:{LITE}"]
    assert found[0]["fake"]["origin"]["nimg"] == 5000
    assert found[0]["real"]["num"] == 70
    assert f"kid70:{LITE}: kid {found[0]['value']:.5g}" in told
    assert "appended to metrics.jsonl" in told


def test_folders_of_images_are_compared_whatever_their_sizes(capsys, photos, tmp_path):
    for index in range(40):
        pixels = torch.full([1, 20 + index % 2, 30], 5 * index, dtype=torch.uint8)
        images.write(pixels, tmp_path / "made" / f"{index}.png")
    words = ["--fake", tmp_path / "made", "--real", photos, "--out", "a.jsonl"]
    status, _, complaint = run(capsys, *words, "--metrics", "fid40_full", "--features", LITE)
    assert status == 0
    assert "biased upwards" in complaint
    (record,) = records.read("a.jsonl")
    assert record["metric"] == f"fid40_full:{LITE}"
    assert (record["fake"]["kind"], record["real"]["num"]) == ("images", 80)
    assert record["value"] > 100


def test_records_of_two_files_are_compared(capsys, network, photos):
    words = ["--network", network, "--data", photos, "--metrics", "swd32"]
    run(capsys, *words, "--out", "a.jsonl")
    run(capsys, *words, "--out", "b.jsonl", "--seed", 1)
    status, told, _ = run(capsys, "--compare", "a.jsonl", "b.jsonl")
    assert status == 0
    assert "swd32" in told
    assert "fake.seed 0 and 1" in told
    run(capsys, *words, "--out", "c.jsonl", "--psi", 0.5)
    complaint = refused(capsys, "--compare", "a.jsonl", "c.jsonl")
    assert "fake.truncation is 1.0 in a.jsonl and 0.5 in c.jsonl" in complaint


def test_images_are_sorted_by_their_path_length(capsys, network, tmp_path):
    metric = f"ppl2_40_wend:{LITE}"
    status, _, _ = run(
        capsys, "--network", network, "--metrics", metric, "--save-ranking", "ranked"
    )
    assert status == 0
    (record,) = records.read("metrics.jsonl")
    assert not record["quantized"]
    name = f"ppl2_40_wend-{LITE}"
    assert sorted(path.name for path in (tmp_path / "ranked").iterdir()) == [
        f"{name}-longest.png",
        f"{name}-shortest.png",
        f"{name}.npz",
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "no --metrics"),
        (["--metrics", "fud5k"], "metric 'fud5k'"),
        (["--metrics", "swd16"], "neither --network nor --fake"),
        (
            ["--metrics", "swd16", "--fake", "PHOTOS", "--network", "NET"],
            "both --network and --fake",
        ),
        (["--metrics", "swd16", "--network", "NET"], "without --data"),
        (["--metrics", "swd16", "--network", "NET", "--real", "PHOTOS"], "--real with --network"),
        (["--metrics", "swd16", "--fake", "PHOTOS", "--data", "PHOTOS"], "--data with --fake"),
        (["--metrics", "swd16", "--fake", "PHOTOS"], "without real images"),
        (["--metrics", "swd16", "--network", "gone", "--data", "PHOTOS"], "gone does not exist"),
        (
            ["--metrics", "swd16", "--network", "NET", "--data", "PHOTOS", "--psi", "nan"],
            "--psi nan",
        ),
        (
            ["--metrics", "swd16", "--network", "NET", "--save-ranking", "x"],
            "without a path length",
        ),
        (["--metrics", "ls", "--network", "NET"], "without classifiers"),
        (["--metrics", "is100:vgg16", "--network", "NET"], ""),
        (["--watch", "gone", "--metrics", "swd16"], "gone is no run folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    capsys, monkeypatch, network, photos, words, found
):
    monkeypatch.setattr("stylegan.perceptual.weights.fetch", offline, raising=False)
    names = {"NET": network, "PHOTOS": photos}
    assert found in refused(capsys, *(names.get(word, word) for word in words))


def offline(*_, **__):
    raise WeightsError("no network", expected="one", fix="connect")


def test_weights_that_cannot_be_had_are_told_of_before_data_is_read(capsys, network):
    start_s = time.monotonic()
    words = ["--network", network, "--data", "no-such-folder", "--metrics", "fid50k_full"]
    complaint = refused(capsys, *words)
    assert "pt_inception-2015-12-05-6726825d.pth" in complaint
    assert time.monotonic() - start_s < 5


def test_separability_is_measured_by_classifiers_of_a_folder(capsys, network, tmp_path):
    for index, name in enumerate(["round", "dark"]):
        with torch.random.fork_rng():
            torch.manual_seed(index)
            config = DiscriminatorConfig(resolution=8, channel_base=64, mbstd_group_size=1)
            classifier = Discriminator(config)
        io.save(
            Networks(discriminator=classifier),
            tmp_path / "classifiers" / f"0{index}-{name}",
            metadata={"attribute": name, "index": index},
        )
    words = ["--network", network, "--metrics", "ls200", "--classifiers", "classifiers"]
    status, _, complaint = run(capsys, *words)
    assert status == 0, complaint
    (record,) = records.read("metrics.jsonl")
    assert record["details"]["attributes"] == ["round", "dark"]
    assert 1 <= record["value"] <= 4
    assert record["value"] == record["values"]["ls_w"]
    assert [each["name"] for each in record["classifiers"]] == ["round", "dark"]


def test_mirroring_is_read_from_the_run_that_trained_the_network(tmp_path):
    for flag in (False, True):
        folder = tmp_path / str(flag)
        io.save(
            Networks(generator_ema=small_generator()),
            folder,
            metadata={"run": {"data": {"mirror": flag}}},
        )
        assert is_mirrored("auto", folder) is flag
        assert is_mirrored("yes", folder)
        assert not is_mirrored("no", folder)
    io.save(Networks(generator_ema=small_generator()), tmp_path / "other")
    assert not is_mirrored("auto", tmp_path / "other")


def test_names_are_taken_once_and_features_fill_in():
    found = protocols_of("fid5k,fid5k, is5k:vgg16,swd16k", features=LITE)
    assert [protocol.name for protocol in found] == [f"fid5k:{LITE}", "is5k:vgg16", "swd16k"]


def test_training_is_given_what_measures_and_told_at_once_of_what_lacks(photos):
    dataset = ImageDataset(photos, mirror=True)
    measure = evaluator_for("swd32", dataset, seed=0, device=torch.device("cpu"), mirror=True)
    generator = small_generator().eval()
    (record,) = measure(generator, 1000)
    assert record["metric"] == "swd32"
    assert record["real"]["num"] == 32
    options = {"seed": 0, "device": torch.device("cpu"), "mirror": False}
    assert evaluator_for("none", dataset, **options) is None
    for metrics, found in [
        ("fud", "metric 'fud'"),
        ("ls", "metric ls in training"),
        ("swd81", "has 80 images"),
    ]:
        with pytest.raises(StyleganError, match=found):
            evaluator_for(metrics, dataset, **options)


def test_what_training_measures_needs_no_download(monkeypatch, photos):
    dataset = ImageDataset(photos, mirror=True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert default_metrics(dataset, cpu) == f"kid1k:{LITE}"
    assert default_metrics(dataset, gpu) == f"kid5k:{LITE}"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_metrics(dataset, gpu) == "swd80"
    assert default_metrics(ImageDataset(photos, resolution=8), cpu) == "none"


def test_two_processes_give_what_one_gives(network, photos, tmp_path):
    metrics = f"fid70:{LITE},pr70_3:{LITE},swd64,ppl2_70_wend:{LITE},kid70:{LITE}"
    words = [
        "-m",
        "stylegan",
        "evaluate",
        "--device",
        "cpu",
        "--network",
        network,
        "--data",
        photos,
    ]
    words += ["--metrics", metrics, "--out"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {
        "OMP_NUM_THREADS": "1",
        "PATH": str(Path(sys.executable).parent),
        "HOME": str(tmp_path),
    }
    for name, before in (("one", []), ("two", launch)):
        done = subprocess.run(
            [sys.executable, *before, *words, f"{name}.jsonl"],
            env=environment | {"STYLEGAN_CACHE": str(tmp_path / name)},
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    one, two = (records.read(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert [record["processes"] for record in one + two] == [1] * 5 + [2] * 5
    for a, b in zip(one, two, strict=True):
        assert b["values"] == pytest.approx(a["values"], rel=1e-12, abs=1e-12)


def test_a_run_is_watched_by_one_process(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["--watch", tmp_path, "--metrics", "swd32"]
    assert "--watch in several processes" in refused(capsys, *words)


def test_snapshots_of_a_run_are_measured_as_they_come(capsys, photos, tmp_path):
    from stylegan.cli.train import main as train

    out = tmp_path / "run"
    words = ["--preset", "stylegan2-small", "--data", photos, "--resolution", "16", "--batch", "4"]
    words += ["--channel-base", "64", "--channel-max", "8", "--total-kimg", "0.03"]
    words += ["--snapshot-kimg", "0.01", "--metrics", "none", "--device", "cpu", "--out", str(out)]
    train(words)
    capsys.readouterr()
    status, told, _ = run(capsys, "--watch", out, "--metrics", "swd32")
    assert status == 0
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    watched = [record for record in found if record["metric"] == "swd32"]
    snapshots = sorted(path.name for path in (out / "snapshots").iterdir())
    assert sorted(f"{record['nimg']:09d}" for record in watched) == snapshots
    least = min(watched, key=lambda record: record["value"])
    best = json.loads((out / "best" / "swd32" / "best.json").read_text())
    assert (best["value"], best["nimg"]) == (least["value"], least["nimg"])
    assert told.count("kimg ") == len(snapshots)
    run(capsys, "--watch", out, "--metrics", "swd32")
    assert len((out / "metrics.jsonl").read_text().splitlines()) == len(found)
