import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch

from stylegan import images
from stylegan.cli import demo as command
from stylegan.data.dataset import ImageDataset
from stylegan.errors import CheckpointError, DataError, WeightsError
from stylegan.interop import catalogue
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.registry import build_discriminator, build_generator
from stylegan.notebook import picture_html
from stylegan.training.checkpoint import RunRecord, list_checkpoints, read_config, write_run_record
from stylegan.training.loop import Outcome
from stylegan.workflows import demo, demo_report, report

SECTIONS = [
    "What this is",
    "Before and after",
    "Samples over fine-tuning",
    "Interpolation",
    "Style mixing",
    "Truncation",
    "Projection",
    "Sliced Wasserstein distance",
    "Training",
]


@pytest.fixture(scope="module")
def model(generator_config, discriminator_config, tmp_path_factory):
    """The folder of a tiny network, which stands for the bundled one."""
    torch.manual_seed(1)
    networks = Networks(
        generator=build_generator("stylegan2", generator_config),
        generator_ema=build_generator("stylegan2", generator_config),
        discriminator=build_discriminator("stylegan2", discriminator_config),
    )
    folder = tmp_path_factory.mktemp("bundled") / "model"
    io.save(networks, folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def bundled(model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "bundled_path", lambda name: model if name == demo.MODEL else None)
        patch.setattr(demo_report, "PROJECTION_STEPS", 2)
        patch.setattr(report, "LOOP_FRAMES", 1)
        yield


@pytest.fixture(scope="module")
def finished(image_folder, tmp_path_factory):
    """The folder of a demo of less than a second, and the lines about its start."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    lines = []
    run(folder, image_folder, on_start=lines.append)
    return folder, lines


def run(folder, data, **options):
    return demo.demo(data=data, out=folder, device="cpu", **{"minutes": 0.002} | options)


def test_the_report_of_a_fine_tuned_network_has_every_section(finished):
    folder, _ = finished
    text = (folder / "report.html").read_text()
    titles = re.findall("<h2[^>]*>(.*?)</h2>", text)
    assert titles == SECTIONS
    assert "Left out" not in text
    assert "Failed" not in text
    parts = dict(zip(titles, re.split("<h2", text)[1:], strict=True))
    assert parts["Before and after"].count("<img") == 3
    assert "Before: emoji64." in parts["Before and after"]
    assert parts["Interpolation"].count("data:image/gif") == 1
    assert "its projection into w+, 2 steps" in parts["Projection"]
    for title in ("Samples over fine-tuning", "Style mixing", "Truncation", "Projection"):
        assert "data:image/png" in parts[title], title
    assert "<td>emoji64</td>" in parts["What this is"]


def test_the_comparison_has_the_same_latents_before_and_after(finished, model):
    folder, _ = finished
    before, after = (images.read(folder / "report" / f"{x}.png") for x in ("before", "samples"))
    generator = io.load(model).generator_ema.eval()
    assert torch.equal(before, demo_report.compared_grid(generator))
    assert before.shape == after.shape == (3, 8 * 16, 4 * 16)
    assert not torch.equal(before, after)


def test_the_run_starts_from_the_bundled_network_with_adaptive_augmentation(finished):
    folder, lines = finished
    config = read_config(folder)
    assert config.init_from == "emoji64"
    assert config.augment.mode == "ada"
    assert config.generator.resolution == 16
    assert (folder / "initial.json").exists()
    assert lines[0] == f"images of the bundled network emoji64: {folder / 'pictures.png'}"
    assert "fine-tuning of emoji64 at 16x16 on 12 images" in lines[1]


def test_a_finished_demo_writes_its_report_again_without_training(
    finished, image_folder, tmp_path, monkeypatch
):
    folder = shutil.copytree(finished[0], tmp_path / "demo")
    monkeypatch.setattr(demo.loop, "train", None)
    (folder / "report.html").unlink()
    result = run(folder, image_folder)
    assert result.outcome is None
    assert result.report.is_file()
    swd = [(each / "report" / "swd.json").read_bytes() for each in (finished[0], folder)]
    assert swd[0] == swd[1]
    assert picture_html(images.read(folder / "report" / "samples.png")) in result._repr_html_()


def test_an_interrupted_demo_is_continued_by_the_same_call(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "write_comparison", lambda *_, **__: None)
    seen = []

    def interrupt(state):
        seen.append(state.nimg)
        signal.raise_signal(signal.SIGINT)

    result = run(tmp_path / "demo", image_folder, minutes=1, observe=interrupt)
    assert result.outcome.signal == signal.SIGINT
    assert result.report is None
    assert seen == [8]
    assert [path.stem for path in list_checkpoints(tmp_path / "demo")][-1] == "000000008"
    assert not (tmp_path / "demo" / "demo.json").exists()
    seen.clear()
    result = run(tmp_path / "demo", image_folder, minutes=1, observe=interrupt)
    assert seen == [16]


def test_images_of_the_network_come_before_the_set_is_read(image_folder, tmp_path, monkeypatch):
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(demo, "open_training_set", refuse)
        with pytest.raises(DataError, match="damaged"):
            run(tmp_path / "demo", image_folder, on_start=lines.append)
    assert images.read(tmp_path / "demo" / "pictures.png").shape == (3, 8 * 16, 8 * 16)
    assert len(lines) == 1
    # the folder can still be used
    outcome = Outcome(nimg=8, is_complete=False, signal=signal.SIGTERM)
    monkeypatch.setattr(demo.loop, "train", lambda *_, **__: outcome)
    assert run(tmp_path / "demo", image_folder, minutes=1).outcome is outcome


def refuse(*_, **__):
    raise DataError("the set is damaged")


def test_the_set_of_portraits_is_the_default(tmp_path, monkeypatch):
    configs = []
    monkeypatch.setattr(
        demo, "_train_for", lambda minutes, config, **options: configs.append(config)
    )
    monkeypatch.setattr(demo, "write_comparison", lambda *_, **__: None)
    demo.demo(out=tmp_path / "demo", device="cpu")
    path = Path(configs[0].data.path)
    assert path.name == "portraits64.zip"
    assert path.parent == catalogue.BUNDLED
    assert len(ImageDataset(path)) == 270


def test_images_of_any_size_are_prepared_in_the_size_of_the_network(tmp_path, monkeypatch):
    for index in range(3):
        picture = torch.zeros(3, 40 + index, 50, dtype=torch.uint8)
        images.write(picture, tmp_path / "own" / f"{index}.png")
    configs = []
    monkeypatch.setattr(
        demo, "_train_for", lambda minutes, config, **options: configs.append(config)
    )
    monkeypatch.setattr(demo, "write_comparison", lambda *_, **__: None)
    run(tmp_path / "demo", tmp_path / "own")
    assert re.fullmatch(r"own-16-\w+\.zip", Path(configs[0].data.path).name)
    assert configs[0].generator.resolution == 16


def test_grey_images_are_compared_with_the_mean_of_rgb(model, tmp_path):
    for index in range(4):
        stream = torch.Generator().manual_seed(index)
        grey = torch.randint(0, 256, [1, 16, 16], generator=stream, dtype=torch.uint8)
        images.write(grey, tmp_path / f"{index}.png")
    generator = io.load(model).generator_ema.eval()
    reals = ImageDataset(tmp_path)
    assert reals.num_channels == 1
    distances = demo_report.measure(generator, generator, reals=reals, seed=0)
    assert distances.start == distances.end
    assert distances.start.num_images == 2


def test_the_run_of_another_network_is_refused_and_left_as_it_is(
    run_config, image_folder, tmp_path
):
    folder = tmp_path / "run"
    write_run_record(folder, RunRecord(config=run_config, fingerprint=""))
    with pytest.raises(CheckpointError, match="was started with other options"):
        run(folder, image_folder)
    assert not (folder / "pictures.png").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(CheckpointError, match="is not empty"):
        run(tmp_path / "other", image_folder)


def test_a_set_that_does_not_exist_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        run(tmp_path / "demo", tmp_path / "nowhere")
    assert not (tmp_path / "demo").exists()


def test_without_the_bundled_network_the_error_names_the_demo_from_scratch(
    image_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(catalogue, "bundled_path", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"no bundled network emoji64.*--from-scratch"):
        run(tmp_path / "demo", image_folder)
    (tmp_path / "emoji64").mkdir()
    with pytest.raises(WeightsError, match="hides the bundled network"):
        run(tmp_path / "demo", image_folder)


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_the_report_is_opened_on_request_if_there_is_one(
    finished, image_folder, is_interrupted, monkeypatch, capsys
):
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    swd = json.loads((finished[0] / "report" / "swd.json").read_text())
    distances = demo_report.Distances(
        **{name: demo_report.SlicedWasserstein(**value) for name, value in swd.items()}
    )
    outcome = Outcome(nimg=8, is_complete=False, signal=signal.SIGINT if is_interrupted else None)
    result = demo.DemoResult(
        out=finished[0], outcome=outcome, distances=None if is_interrupted else distances
    )
    command.present(result, command.console())
    assert opened == []
    status = command.present(result, command.console(), open=True)
    assert status == (130 if is_interrupted else 0)
    page = (finished[0] / "report.html").resolve().as_uri()
    assert opened == ([] if is_interrupted else [page])
    assert ("report.html" in capsys.readouterr().out) == (not is_interrupted)
