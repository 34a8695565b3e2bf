"""The command `stylegan evaluate`, with real features of small sets."""

import json
import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import processes
import stylegan
from stylegan import images
from stylegan.cli.main import main
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError, StyleganError, WeightsError
from stylegan.image_size import ImageSize
from stylegan.metrics import records
from stylegan.metrics.protocols import STANDARD, parse_all
from stylegan.metrics.targets import NetworkTarget, network_target
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.progan import Generator as GrowingGenerator
from stylegan.models.progan import GeneratorConfig as GrowingConfig
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)
from stylegan.ops.precision import is_tf32
from stylegan.perceptual import efficientnet
from stylegan.training.checkpoint import RunRecord, write_run_record
from stylegan.training.configure import configure
from stylegan.workflows.evaluate import is_mirrored
from stylegan.workflows.training_metrics import default_metrics, evaluator_for

LITE = "efficientnet-lite0"
pytestmark = pytest.mark.usefixtures("small_detectors")


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
    device = [] if "--compare" in words else ["--device", "cpu"]
    status = main(["evaluate", *device, *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys, *words):
    """Return the one line that a command fails with."""
    status, _, complaint = run(capsys, *words)
    assert status == 1
    assert complaint.count("\n") == 1
    return complaint


def test_a_network_is_measured_and_each_result_is_a_record(capsys, network, photos):
    status, reported, _ = run(
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
    assert f"kid70:{LITE}: kid {found[0]['value']:.5g}" in reported
    assert "appended to metrics.jsonl" in reported


def test_python_takes_a_loaded_network_and_writes_no_file(network, photos, tmp_path):
    seen, progress = [], []
    evaluation = stylegan.evaluate(
        stylegan.load(network),
        photos,
        metrics=["swd32", f"is20:{LITE}"],
        out=None,
        on_result=seen.append,
        progress=lambda *report: progress.append(report),
    )
    assert list(evaluation.values) == ["swd32", f"is20:{LITE}"]
    assert list(evaluation.results) == seen
    assert evaluation.records[0]["fake"]["origin"] == {}
    assert {"reading images", "generated images"} <= {description for description, *_ in progress}
    assert f"{evaluation.values['swd32']:.5g}" in evaluation._repr_html_()
    from_file = stylegan.evaluate(network, photos, metrics="swd32", device="cpu", out=None)
    assert from_file.values["swd32"] == evaluation.values["swd32"]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_loaded_network_is_measured_in_real_float32(network, photos):
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    seen = []
    stylegan.evaluate(
        stylegan.load(network),
        photos,
        metrics="swd32",
        out=None,
        on_result=lambda _: seen.append(is_tf32()),
    )
    assert seen == [False]


def test_help_lists_each_metric_on_a_line_of_its_own(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    for name, about in STANDARD.items():
        assert f"\n    {name} " in text
        assert f" {name} {about} " in " ".join(text.split())


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
    assert record["value"] > 10


def test_lossy_images_against_others_are_warned_of(capsys, photos, tmp_path):
    (tmp_path / "made").mkdir()
    for path in sorted(Path(photos).iterdir())[:36]:
        with Image.open(path) as image:
            image.save(tmp_path / "made" / f"{path.stem}.jpg")
    words = ["--metrics", "swd32", "--out", "a.jsonl"]
    status, _, complaint = run(capsys, "--fake", tmp_path / "made", "--real", photos, *words)
    assert status == 0
    assert "made has images with lossy compression (JPEG) and" in " ".join(complaint.split())
    (record,) = records.read("a.jsonl")
    assert record["fake"]["origin"]["formats"] == {"JPEG": 36}
    assert record["real"]["origin"]["formats"] == {"PNG": 80}
    for side in (photos, tmp_path / "made"):
        _, _, complaint = run(capsys, "--fake", side, "--real", side, *words)
        assert "lossy" not in complaint


def test_records_of_two_files_are_compared(capsys, network, photos):
    words = ["--network", network, "--data", photos, "--metrics", "swd32"]
    run(capsys, *words, "--out", "a.jsonl")
    run(capsys, *words, "--out", "b.jsonl", "--seed", 1)
    status, reported, _ = run(capsys, "--compare", "a.jsonl", "b.jsonl")
    assert status == 0
    assert "swd32" in reported
    assert "fake.seed 0 and 1" in reported
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
        (["--network", "NET", "--metrics", " ,"], "no metrics"),
        (["--network", "NET", "--metrics", "fud5k"], "metric 'fud5k'"),
        (["--metrics", "swd16"], "neither --network nor --fake is given"),
        (
            ["--metrics", "swd16", "--fake", "PHOTOS", "--network", "NET"],
            "--network cannot be combined with --fake",
        ),
        (["--metrics", "swd16", "--network", "NET"], "swd16 needs real images"),
        (
            ["--metrics", "swd16", "--network", "NET", "--real", "PHOTOS"],
            "--real only applies to --fake",
        ),
        (
            ["--metrics", "swd16", "--fake", "PHOTOS", "--data", "PHOTOS"],
            "--data cannot be combined with --fake",
        ),
        (["--metrics", "swd16", "--fake", "PHOTOS"], "needs real images"),
        (["--metrics", "swd16", "--network", "gone", "--data", "PHOTOS"], "gone does not exist"),
        (["--metrics", "swd16", "--fake", "PHOTOS", "--real", "gone"], "gone does not exist"),
        (
            ["--metrics", "swd16", "--network", "NET", "--data", "PHOTOS", "--save-ranking", "x"],
            "needs a path length",
        ),
        (["--metrics", "ls", "--network", "NET"], "needs classifiers of attributes"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fake", "x", "--real", "y", "--psi", "0.5"], "--psi cannot be combined with --fake"),
        (
            ["--fake", "x", "--real", "y", "--classifiers", "z"],
            "--classifiers cannot be combined with --fake",
        ),
        (["--fake", "x", "--save-ranking", "z"], "--save-ranking cannot be combined with --fake"),
    ],
)
def test_options_that_would_do_nothing_are_refused(capsys, words, message):
    assert message in refused(capsys, *words, "--metrics", "swd16")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--watch", "x", "--network", "y"], "--network"),
        (["--watch=x", "--fake", "y"], "--fake"),
        (["--watch", "x", "--real", "y"], "--real"),
        (["--watch", "x", "--psi", "0.5"], "--psi"),
        (["--watch", "x", "--mirror", "yes"], "--mirror"),
        (["--watch", "x", "--out", "y"], "--out"),
        (["--watch", "x", "--save-ranking", "y"], "--save-ranking"),
        (["--compare", "x", "y", "--watch", "z"], "--watch"),
        (["--compare", "x", "y", "--metrics", "swd16"], "--metrics"),
        (["--compare", "x", "y", "--seed", "0"], "--seed"),
        (["--network", "x"], "--metrics"),
    ],
)
def test_other_options_than_those_of_a_use_are_wrong_usage(capsys, words, option):
    metrics = [] if "--metrics" in [*words, option] or "--compare" in words else ["--metrics", "ls"]
    with pytest.raises(SystemExit) as stop:
        run(capsys, *words, *metrics)
    assert stop.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "neither --network nor --fake is given"),
        (["--network", "NET", "--fake", "x"], "--network cannot be combined with --fake"),
        (["--network", "NET"], "metric fid50k_full needs real images"),
        (["--network", "gone", "--data", "x"], "gone does not exist"),
        (["--network", "CONDITIONAL", "--metrics", "ppl2_wend"], "CONDITIONAL draws labels"),
        (["--network", "NET", "--data", "x", "--save-ranking", "y"], "needs a path length"),
        (
            ["--network", "NET", "--metrics", "ppl2_wend", "--save-ranking", "file"],
            "--save-ranking file cannot be written (",
        ),
        (["--fake", "x"], "metric fid50k_full needs real images"),
        (
            ["--fake", "x", "--metrics", "ppl2_wend"],
            "metric ppl2_wend cannot be computed from images",
        ),
        (["--network", "NET", "--data", "x", "--out", "."], "--out . cannot be written (it is a"),
        (
            ["--network", "NET", "--data", "x", "--out", "file/x.jsonl"],
            "--out file/x.jsonl cannot be written (",
        ),
        (["--watch", "x"], "x is no run folder"),
    ],
)
def test_usage_is_checked_before_anything_is_downloaded(
    capsys, monkeypatch, network, tmp_path, words, found
):
    (tmp_path / "file").write_text("")
    io.save(Networks(generator_ema=small_generator(c_dim=3)), tmp_path / "CONDITIONAL")

    def download(*_, **__):
        raise AssertionError("it came to a download")

    monkeypatch.setattr("stylegan.workflows.evaluate.load_dependencies", download)
    words = [network if word == "NET" else word for word in words]
    metrics = [] if "--metrics" in words else ["--metrics", "fid50k_full"]
    assert found in refused(capsys, *words, *metrics)


def offline(*_, **__):
    raise WeightsError("no network", expected="one", fix="connect")


@pytest.mark.parametrize("use", ["network", "watch"])
def test_a_program_that_is_not_the_published_one_needs_an_option(
    capsys, network, photos, tmp_path, use
):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vgg16.pt").write_bytes(b"a program")
    subject = ["--network", network, "--data", photos]
    if use == "watch":
        (tmp_path / "run").mkdir()
        config = configure("stylegan2-small", {"data": photos, "device": "cpu"}, resolution=16)[0]
        write_run_record(tmp_path / "run", RunRecord(config=config, fingerprint=""))
        subject = ["--watch", tmp_path / "run"]
    words = [*subject, "--metrics", "kid20:vgg16", "--weights-dir", tmp_path / "weights"]
    complaint = refused(capsys, *words)
    assert "vgg16.pt is a program and not the published one" in complaint
    assert "--allow-unknown-detector" in complaint
    complaint = refused(capsys, *words, "--allow-unknown-detector")
    assert "vgg16.pt is not a TorchScript file" in complaint  # so it was opened


def test_weights_that_cannot_be_had_are_reported_before_data_is_read(capsys, network):
    start_s = time.monotonic()
    words = ["--network", network, "--data", "no-such-folder", "--metrics", "fid50k_full"]
    status, _, messages = run(capsys, *words)
    announced, complaint = messages.splitlines()
    assert status == 1
    assert announced.startswith("downloading https://")
    assert "pt_inception-2015-12-05-6726825d.pth is not there" in complaint
    assert time.monotonic() - start_s < 30


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
    assert is_mirrored("auto", tmp_path / "other") is None
    assert is_mirrored("auto", None) is None


def test_names_are_taken_once_and_features_fill_in():
    found = parse_all("fid5k,fid5k, is5k:vgg16,swd16k", features=LITE)
    assert [protocol.name for protocol in found] == [f"fid5k:{LITE}", "is5k:vgg16", "swd16k"]


def test_training_is_given_what_measures_and_reported_at_once_of_what_lacks(photos):
    dataset = ImageDataset(photos, mirror=True)
    options = {"seed": 3, "device": torch.device("cpu"), "mirror": True}
    evaluator = evaluator_for("swd032,swd16", dataset, **options)
    assert evaluator.names == ["swd32", "swd16"]
    generator = small_generator().eval()
    results = evaluator.measure(generator, 1000, ["swd32", "swd16"])
    assert next(results)["metric"] == "swd32"  # and the other has not begun
    (record,) = evaluator.measure(generator, 1000, ["swd16"])
    assert record["metric"] == "swd16"
    assert record["comparable"] == records.comparable_key(record)
    assert record["real"]["num"] == 16
    assert record["real"]["mirrored"]
    assert (record["real"]["mirror_seed"], record["fake"]["seed"]) == (3, 3)
    options["mirror"] = False
    (plain,) = evaluator_for("swd16", dataset, **options).measure(generator, 1000, ["swd16"])
    assert not plain["real"]["mirrored"]
    assert plain["comparable"] != record["comparable"]
    assert evaluator_for("none", dataset, **options) is None
    for metrics, found in [
        ("fud", "metric 'fud'"),
        ("ls", "metric ls in training"),
        ("swd81", "has 80 images"),  # 160 with the mirrored ones, which do not count
    ]:
        with pytest.raises(StyleganError, match=found):
            evaluator_for(metrics, dataset, **options)


def test_results_of_another_precision_do_not_compete(photos):
    options = {"seed": 0, "device": torch.device("cpu"), "mirror": False}
    evaluator = evaluator_for("swd16,ppl2_4_wend:" + LITE, ImageDataset(photos), **options)
    generator = small_generator(resolution=32).eval()
    keys = {}
    for dtype in (torch.float32, torch.bfloat16):
        generator.compute_dtype = dtype
        (record,) = evaluator.measure(generator, 1000, ["ppl2_4_wend:" + LITE])
        keys[dtype, "ppl"] = record["comparable"]
    generator = small_generator().eval()
    for dtype in (torch.float32, torch.bfloat16):
        generator.compute_dtype = dtype
        (record,) = evaluator.measure(generator, 1000, ["swd16"])
        keys[dtype, "swd"] = record["comparable"]
    assert keys[torch.float32, "swd"] != keys[torch.bfloat16, "swd"]
    assert keys[torch.float32, "ppl"] == keys[torch.bfloat16, "ppl"]  # always in float32


def test_unknown_mirroring_is_warned_of_where_it_matters(capsys, network, photos, tmp_path):
    words = ["--network", network, "--data", photos, "--metrics", f"kid20:{LITE},kid20_full:{LITE}"]
    for mirror, is_warned in (("auto", True), ("no", False), ("yes", False)):
        _, _, messages = run(capsys, *words, "--mirror", mirror)
        assert (
            f"kid20:{LITE}: it is not recorded whether the network was" in messages
        ) == is_warned
    _, _, messages = run(capsys, *words[:-1], f"kid20_full:{LITE}")  # never mirrored
    assert messages == ""
    generator = small_generator()
    io.save(
        Networks(generator_ema=generator),
        tmp_path / "n",
        metadata={"run": {"data": {"mirror": True}}},
    )
    _, _, messages = run(capsys, "--network", tmp_path / "n", *words[2:])
    assert messages == ""
    assert [record["real"]["mirrored"] for record in records.read("metrics.jsonl")] == [
        *(False, False, False, False, True, False),
        *(False, True, False),
    ]


def test_unknown_mirroring_of_images_is_warned_of_where_it_matters(capsys, photos):
    words = ["--fake", photos, "--real", photos, "--metrics"]
    for mirror, is_warned in (("auto", True), ("no", False), ("yes", False)):
        status, _, messages = run(capsys, *words, "swd32", "--mirror", mirror)
        assert status == 0
        assert ("swd32: it is not recorded whether the network was" in messages) == is_warned
    mirrored = [record["real"]["mirrored"] for record in records.read("metrics.jsonl")]
    assert mirrored == [False, False, True]
    _, _, messages = run(capsys, *words, f"kid20_full:{LITE}")  # never mirrored
    assert messages == ""


def test_labels_are_those_of_the_network_or_refused(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "labelled")
    table = [[f"{index:02d}.png", index % 3] for index in range(80)]
    (tmp_path / "labelled" / "dataset.json").write_text(json.dumps({"labels": table}))
    dataset = ImageDataset(tmp_path / "labelled")
    assert network_target(small_generator(c_dim=3), dataset, origin={}, seed=0).labels.dim == 3
    assert network_target(small_generator(), dataset, origin={}, seed=0).labels is None
    with pytest.raises(ConfigError, match="labels of 3 numbers, but the network has labels of 4"):
        network_target(small_generator(c_dim=4), dataset, origin={}, seed=0)
    for without in (None, ImageDataset(photos)):
        with pytest.raises(
            ConfigError, match="labels of 0 numbers, but the network has labels of 3"
        ):
            network_target(small_generator(c_dim=3), without, origin={}, seed=0)


def test_a_growing_network_is_measured_at_the_side_it_has(capsys, photos, tmp_path):
    generator = GrowingGenerator(
        GrowingConfig(resolution=16, z_dim=8, channel_base=64, channel_max=8)
    )
    for lod, side in ((0.0, 16), (0.5, 16), (1.0, 8), (2.0, 4)):
        generator.lod = lod
        assert NetworkTarget(generator=generator, origin={}).size == ImageSize(side, side)
    generator.lod = 1.0
    io.save(Networks(generator_ema=generator), tmp_path / "growing")
    words = ["--network", tmp_path / "growing", "--data", photos, "--metrics", f"kid8:{LITE}"]
    assert run(capsys, *words)[0] == 0
    (record,) = records.read("metrics.jsonl")
    assert record["real"]["side"] == 8


def test_what_training_measures_needs_no_download_and_refuses_no_set(monkeypatch, photos, tmp_path):
    dataset = ImageDataset(photos, mirror=True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert default_metrics(dataset, cpu) == f"kid1k:{LITE}"
    assert default_metrics(dataset, gpu) == f"kid5k:{LITE}"
    options = {"seed": 0, "device": cpu, "mirror": False}
    sets = {}
    for num in (1, 2):
        for name in [f"{index:02d}.png" for index in range(num)]:
            (tmp_path / str(num)).mkdir(exist_ok=True)
            shutil.copy(Path(photos) / name, tmp_path / str(num) / name)
        sets[num] = ImageDataset(tmp_path / str(num), mirror=True)
    tiny = ImageDataset(photos, resolution=4)
    assert evaluator_for("auto", sets[1], **options) is None
    for found in (sets[2], tiny):
        assert evaluator_for("auto", found, **options).names == [f"kid1k:{LITE}"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_metrics(dataset, gpu) == "swd80"
    assert evaluator_for("auto", sets[2], **options).names == ["swd2"]
    low = SimpleNamespace(image_names=range(80), size=ImageSize(12, 24))
    for found in (sets[1], tiny, low):
        assert evaluator_for("auto", found, **options) is None
    wide = SimpleNamespace(image_names=range(80), size=ImageSize(24, 40))
    assert default_metrics(wide, cpu) == "swd80"


def evaluate_with_small_detectors(words):
    """Run `stylegan evaluate` as `small_detectors` has it."""
    efficientnet.SIZE = 32
    return main(["evaluate", "--device", "cpu", *words])


@pytest.mark.slow
def test_two_processes_give_what_one_gives(capsys, network, photos, tmp_path):
    metrics = f"fid20:{LITE},pr20_3:{LITE},swd16,ppl2_20_wend:{LITE},kid20:{LITE}"
    words = ["--network", network, "--data", photos, "--metrics", metrics]
    status, _, complaint = run(capsys, *words, "--out", "one.jsonl")
    assert status == 0, complaint
    words += ["--out", str(tmp_path / "two.jsonl")]
    processes.run(
        evaluate_with_small_detectors,
        words,
        folder=tmp_path,
        num=2,
        environment={"STYLEGAN_CACHE": str(tmp_path / "two")},
    )
    one, two = (records.read(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert [record["processes"] for record in one + two] == [1] * 5 + [2] * 5
    for a, b in zip(one, two, strict=True):
        assert b["values"] == pytest.approx(a["values"], rel=1e-12, abs=1e-12)


def test_a_psi_that_is_no_number_is_refused(network):
    with pytest.raises(ConfigError, match="--psi must be a finite number, got nan"):
        stylegan.evaluate(network, "photos", metrics="swd16", psi=math.nan)
