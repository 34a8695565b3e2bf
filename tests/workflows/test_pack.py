"""Folders of networks to share, and their cards."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt  # rich needs it

import stylegan
from stylegan import images
from stylegan.cli.main import main
from stylegan.cli.train import understand
from stylegan.errors import ConfigError
from stylegan.interop import catalogue
from stylegan.latent.directions import read_directions
from stylegan.latent.project import DEFAULTS
from stylegan.models import io
from stylegan.training.config import RunConfig
from stylegan.training.configure import chosen_options, configure
from stylegan.workflows import pack as module
from stylegan.workflows.card import commands_of, without_folders
from stylegan.workflows.pack import choose_snapshot, pack

METRIC = "swd12"


@pytest.fixture(scope="module")
def run(image_folder, tmp_path_factory):
    """A short run of a preset from the networks of another one, whose folder is gone."""
    folder = tmp_path_factory.mktemp("packed") / "runs"
    options = {
        "preset": "stylegan2-small", "channel_max": 8, "generator.z_dim": 8, "generator.w_dim": 8,
        "snapshot_kimg": 0.016, "metrics_fraction": 1.0, "device": "cpu",
    }  # fmt: skip
    stylegan.train(image_folder, folder / "a", resolution=8, kimg=0.016, metrics="none", **options)
    stylegan.train(
        image_folder,
        folder / "b",
        init_from=folder / "a",
        resolution=16,
        kimg=0.032,
        gamma=0.5,
        mirror=True,
        metrics=METRIC,
        **options,
    )
    shutil.rmtree(folder / "a")
    return folder / "b"


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """The run, packed by the command."""
    out = tmp_path_factory.mktemp("out") / "noise16"
    words = ["--license", "cc-by-4.0", "--data-license", "CC0", "--about", "Noise | in color."]
    assert main(["pack", str(run), str(out), *words]) == 0
    return out


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    """Fewer samples, and no curves, where these are not the subject; `packed` has all of them."""
    monkeypatch.setattr(module, "NUM_SAMPLES", 8)
    monkeypatch.setattr(module, "charts_png", lambda charts: b"")
    monkeypatch.setattr(stylegan.directions, "NUM_STYLES", 100)


def section(card, title):
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_a_folder_has_all_parts(packed):
    found = sorted(path.relative_to(packed).as_posix() for path in packed.rglob("*.*"))
    assert found == [
        "README.md", "directions/factorize.safetensors", "directions/pca.safetensors",
        "images/curves.png", "images/samples-psi0.7.png", "images/samples-psi1.png",
        "metrics.jsonl", "model.json", "model.safetensors",
    ]  # fmt: skip
    for name in ("0.7", "1"):
        assert images.read(packed / f"images/samples-psi{name}.png").shape[0] == 3


def test_float16_changes_pixels_by_two_at_most(run, packed, tmp_path):
    names = {io.load(packed).generator, io.load(packed).generator_ema is None}
    assert names == {None, False}
    options = {"seeds": range(16), "device": "cpu"}
    best = choose_snapshot(run, "best")
    before = torch.stack([*stylegan.generate.images(best, **options)]).int()
    after = torch.stack([*stylegan.generate.images(packed, **options)]).int()
    assert (before - after).abs().max() <= 2
    assert before.float().std() > 1
    pack(run, tmp_path / "exact", dtype="float32", discriminator=False)
    exact = torch.stack([*stylegan.generate.images(tmp_path / "exact", **options)]).int()
    assert torch.equal(exact, before)
    assert io.load(tmp_path / "exact").discriminator is None
    assert "--init-from" not in section((tmp_path / "exact" / "README.md").read_text(), "Use")


def test_the_card_has_what_the_runs_recorded(run, packed, image_folder):
    card = (packed / "README.md").read_text()
    front = card.split("---\n")[1]
    assert "license: cc-by-4.0\n" in front
    assert f'datasets:\n- "{image_folder.name}"\n' in front
    assert "\n# noise16\n\nNoise | in color.\n" in card
    data = section(card, "Training data")
    assert "| images | 12 |" in data
    assert "| used as | 16x16, also mirrored |" in data
    assert "| license | CC0 |" in data
    training = section(card, "Training")
    assert re.search(
        r"\| 1 \| stylegan2-small \| \S+ \| 8x8 \| 16 \| .* CPU.* \| random weights \|", training
    )
    assert re.search(r"\| 2 \| stylegan2-small \| \S+ \| 16x16 \| \d\d \| .* \| run 1 \|", training)
    (record,) = [json.loads(line) for line in (packed / "metrics.jsonl").read_text().splitlines()]
    assert f"| {METRIC} |" in section(card, "Metrics")
    assert f"{record['value']:.5g}" in section(card, "Metrics")
    assert "chosen among those of the run by" in section(card, "Metrics")
    assert "Weights: cc-by-4.0. Training images: CC0." in section(card, "License")
    # names of folders of this machine are private
    for file in packed.rglob("*"):
        if file.is_file():
            assert str(run.parent).encode() not in file.read_bytes(), file
            assert str(packed.parent).encode() not in file.read_bytes(), file


def test_a_card_is_markdown_whose_links_lead_somewhere(packed):
    _, _, text = (packed / "README.md").read_text().split("---\n", 2)
    html = MarkdownIt("commonmark").enable("table").render(text)
    counts = [html.count(tag) for tag in ("<h1>", "<h2>", "<table>", "<img ", "<pre>")]
    assert counts == [1, 6, 5, 3, 3]
    assert "|" not in re.sub(r"<p>Noise.*?</p>", "", html)  # every row is in a table
    assert "##" not in html
    for link in re.findall(r'src="([^"]+)"', html):
        assert (packed / link).is_file()


def test_the_commands_of_the_card_train_the_same_networks_again(run, packed, image_folder):
    training = section((packed / "README.md").read_text(), "Training")
    lines = [line for line in training.splitlines() if line.startswith("stylegan train")]
    assert len(lines) == 2
    assert "--resolution 16 --init-from runs/noise16-1" in lines[1]
    call, options, _ = understand(shlex.split(lines[1])[2:])
    recorded = RunConfig.from_json(io.read_metadata(packed)["run"])
    first = RunConfig.from_json(io.read_metadata(packed)["history"][0]["run"])
    config, _ = configure(
        call["preset"],
        options | {"device": "cpu"},
        resolution=call["resolution"],
        num_images=12,
        initial=[first.generator, first.discriminator],
    )
    for name in ("generator", "discriminator", "loss", "optim", "ema", "augment", "batch"):
        assert getattr(config, name) == getattr(recorded, name), name
    assert config.output.total_kimg == recorded.output.total_kimg == 0.032
    assert (options["mirror"], options["gamma"]) == (True, 0.5)


def test_the_python_of_the_card_runs(packed, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (packed / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(packed.parent)
    found = {}
    exec(code, found)
    assert len(found["pictures"]) == 16


@pytest.fixture
def bundled(packed, tmp_path, monkeypatch):
    """The packed folder as one that comes with the package."""
    shutil.copytree(packed, tmp_path / "bundled" / "noise16")
    monkeypatch.setattr(catalogue, "BUNDLED", tmp_path / "bundled")
    return "noise16"


def test_the_shell_commands_of_the_card_run_with_a_bundled_network(
    bundled, packed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _ = re.findall(r"```sh\n((?:.*\n)*?)```", (packed / "README.md").read_text())
    generate, edit, train = code.splitlines()
    assert main(shlex.split(generate)[1:]) == 0
    assert len([*Path("pictures").iterdir()]) == 16
    assert main(shlex.split(edit)[1:]) == 0
    assert len([*Path("edited").glob("*.png")]) == 4
    assert stylegan.load(bundled).img_resolution == 16
    assert "--init-from noise16 " in train


def test_directions_are_found_by_their_name_in_the_networks_folder(packed):
    sheet = stylegan.directions.sheet(packed, "pca", [1], names="pca-0", device="cpu")
    path = packed / "directions" / "pca.safetensors"
    assert torch.equal(
        sheet.pixels,
        stylegan.directions.sheet(packed, path, [1], names="pca-0", device="cpu").pixels,
    )
    assert read_directions(path).facts["network"]["path"] == "noise16"


def test_a_run_starts_from_a_folder_and_has_its_history(packed, image_folder, tmp_path):
    stylegan.train(
        image_folder, tmp_path / "run", preset="stylegan2-small", init_from=packed, kimg=0.008,
        resolution=16, metrics="none", device="cpu",
    )  # fmt: skip
    pack(tmp_path / "run", tmp_path / "again", metrics="none")
    metadata = io.read_metadata(tmp_path / "again")
    stages = [*metadata["history"], metadata]
    assert [stage["run"]["generator"]["resolution"] for stage in stages] == [8, 16, 16]
    assert None not in [stage["seconds"] for stage in stages]
    assert len(commands_of(stages, name="x")) == 3
    stages[0]["nimg"] = 8  # a snapshot before the end of the run
    assert "--init-from runs/x-1/snapshots/000000008 " in commands_of(stages, name="x")[1]
    assert "--init-from runs/x-2 " in commands_of(stages, name="x")[2]
    card = (tmp_path / "again" / "README.md").read_text()
    assert "None was measured." in section(card, "Metrics")
    assert "license: unknown" in card


def test_metrics_are_measured_on_the_spot_with_other_latents(run, tmp_path):
    pack(run, tmp_path / "a", metrics="swd8", snapshot="last")
    (record,) = [
        json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()
    ]
    assert (record["metric"], record["fake"]["seed"]) == ("swd8", 1)
    assert record["fake"]["origin"]["path"] == "a"
    assert "with other latents (seed 1)" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.slow
def test_a_calibration_is_that_of_the_packed_weights(run, image_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(DEFAULTS, "w", DEFAULTS["w"].__class__(num_steps=2))
    monkeypatch.setattr(module, "attribute", quick_attribute)
    pack(run, tmp_path / "a", calibrate=5)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "calibrated on 5 images" in section(card, "Metrics")
    assert "--perceptual discriminator" in section(card, "Use")
    moved = shutil.copytree(tmp_path / "a", tmp_path / "moved")  # wherever the folder is
    verdict = stylegan.attribute(image_folder / "00.png", moved, perceptual="discriminator")
    assert len(verdict.images) == 1


def quick_attribute(**options):
    return stylegan.attribute(**options, perceptual="discriminator")


def test_the_snapshot_is_chosen_by_metric_or_position(run):
    record = json.loads((run / "best" / METRIC / "best.json").read_text())
    assert choose_snapshot(run, "best") == choose_snapshot(run, METRIC) == run / "best" / METRIC
    assert record["metric"] == METRIC
    assert choose_snapshot(run, "last").name == "000000032"
    assert choose_snapshot(run, "16") == run / "snapshots" / "000000016"
    with pytest.raises(ConfigError, match=r"--snapshot 17: .* has best, last, swd12, 000000016"):
        choose_snapshot(run, "17")


def test_without_metrics_the_last_snapshot_is_packed(finished_run, tmp_path):
    result = pack(finished_run, tmp_path / "a")
    assert result.snapshot.name == "000000160"
    assert f"{len(result.files)} files" in str(result)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "started from Python with options of its own" in card  # of no preset


@pytest.mark.slow
@pytest.mark.parametrize("family", ["progan", "conditional"])
def test_networks_without_styles_and_with_labels_are_packed(finished_runs, tmp_path, family):
    pack(finished_runs(family), tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text()
    assert ("directions" in card) == (family != "progan")
    assert ("--psi" in card) == (family != "progan")
    assert ("--class 0" in card) == (family == "conditional")


def test_mistakes_are_reported_before_anything_is_written(run, finished_runs, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for out, options, message in [
        ("full", {}, "exists and holds no network"),
        ("a", {"metrics": "fad"}, "fad"),
        ("a", {"calibrate": 4}, "calibrate must be 0, or 5 or more, got 4"),
        ("a", {"data": tmp_path / "nowhere"}, "nowhere does not exist"),
    ]:
        with pytest.raises(stylegan.errors.StyleganError, match=message):
            pack(run, tmp_path / out, **options)
    with pytest.raises(ConfigError, match="a calibration for each class"):
        pack(finished_runs("conditional"), tmp_path / "a", calibrate=5)
    with pytest.raises(ConfigError, match="is no run folder"):
        pack(tmp_path / "full", tmp_path / "a")
    with pytest.raises(ConfigError, match="place of the run's own snapshots"):
        pack(run, run / "snapshots" / "000000016")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_weights_that_float16_cannot_hold_are_refused(finished_run, tmp_path):
    copy = shutil.copytree(finished_run, tmp_path / "run")
    last = copy / "snapshots" / "000000160"
    networks, metadata = io.load(last), io.read_metadata(last)
    networks.generator_ema.mapping.fc0.bias.data[0] = 1e5
    io.save(networks, last, metadata=metadata)
    with pytest.raises(ConfigError, match="up to 100000, and float16 holds at most 65504"):
        pack(copy, tmp_path / "a")
    pack(copy, tmp_path / "a", dtype="float32")


def test_a_folder_that_was_packed_is_replaced(finished_run, tmp_path):
    for title in ("One", "Two"):
        pack(finished_run, tmp_path / "a", title=title, metrics="none")
    assert "\n# Two\n" in (tmp_path / "a" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 16, "kimg": 20},
        {"augment": "ada", "mirror": True, "gamma": 3.0, "loss.pl_weight": 0, "seed": 5},
        {"growth.initial_resolution": 8, "generator.architecture": "growing",
         "discriminator.architecture": "growing"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("preset", ["stylegan2-small", "stylegan2-f", "progan"])
def test_the_chosen_options_make_the_same_run(preset, options):
    if preset == "progan":
        options = {name: value for name, value in options.items() if "." not in name}
        options = {
            name: value for name, value in options.items() if name not in ("augment", "gamma")
        }
    sizes = {"resolution": 32, "num_images": 500}
    config, _ = configure(preset, {"data": "x", "device": "cpu", **options}, **sizes)
    chosen = chosen_options(config, num_images=500)
    again, _ = configure(preset, {"data": "x", "device": "cpu", **chosen}, **sizes)
    assert again == config
    assert len(chosen) <= 2 * len(options)


def test_paths_lose_their_folders():
    data = {"path": "/home/me/x.zip", "n": [{"init_from": "/tmp/a"}], "source": "https://a/b.pkl"}
    assert without_folders(data, {"/tmp/a": "name"}) == {
        "path": "x.zip", "n": [{"init_from": "name"}], "source": "https://a/b.pkl",
    }  # fmt: skip
