import json
import math
import re
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from stylegan import images
from stylegan.captions import font_size, line_height, row_title_width
from stylegan.cli.demo import main
from stylegan.errors import CheckpointError, ConfigError, DataError
from stylegan.interop.load import load
from stylegan.rng import generator_for
from stylegan.training.loop import Outcome
from stylegan.workflows import demo, demo_report
from stylegan.workflows.curves import charts, evenly, metric_charts
from stylegan.workflows.page import Section, page


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pixels = torch.randint(
        256, (24, 3, 32, 32), dtype=torch.uint8, generator=generator_for("data", seed=0)
    )
    for index, image in enumerate(pixels):
        images.write(image, folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a demo of one second, and what it printed is not looked at."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_report, "LOOP_FRAMES_PER_KEY", 2)
        patch.setattr(demo_report, "LOOP_TILES", 4)
        assert run(folder, data, minutes=0.02) == 0
    return folder


def run(folder, data, *, minutes, seed=0):
    words = ["--minutes", minutes, "--data", data, "--out", folder, "--seed", seed]
    return main([*map(str, words), "--device", "cpu", "--from-scratch"])


def test_a_demo_trains_and_writes_its_pictures_and_its_report(finished):
    sizes, size = {}, font_size(96)
    titles, line = row_title_width(["seed0000"], size), line_height(size)
    for name in ("samples.png", "truncation.png", "mixing.png", "interpolation.gif"):
        with Image.open(finished / "report" / name) as picture:
            sizes[name] = (*picture.size, getattr(picture, "n_frames", 1))
    assert sizes == {
        "samples.png": (256, 256, 1),
        # three times the size, with titles of columns and rows
        "truncation.png": (titles + 6 * 98 - 2, line + 6 * 98 - 2, 1),
        "mixing.png": (titles + 7 * 98 - 2, line + 6 * 98 - 2, 1),
        "interpolation.gif": (64, 64, 8),
    }
    html = (finished / "report.html").read_text()
    assert html.count("<img") == 2 + 2 + 3  # over training, real and generated, the others
    assert html.count('role="img"') == len(charts([]))
    nimg = int(max((finished / "snapshots").iterdir()).name)
    assert nimg > 0
    assert f"{nimg / 1000:.1f} kimg</figcaption>" in html
    assert f"<td>{nimg:,}</td>" in html


def test_distances_are_those_of_the_untrained_the_trained_and_real_images(finished):
    distances = json.loads((finished / "report" / "swd.json").read_text())
    assert list(distances) == ["start", "end", "real"]
    assert {result["num_images"] for result in distances.values()} == {12}
    assert all(set(result["levels"]) == {"32", "16"} for result in distances.values())
    # The data are white noise, from which no generator is at the distance of a like sample.
    assert 0 < distances["real"]["average"] < distances["end"]["average"]
    assert distances["start"]["average"] != distances["end"]["average"]


@pytest.mark.slow
def test_a_finished_demo_is_shown_again_without_training(finished, data, monkeypatch, capsys):
    monkeypatch.setattr(demo_report, "LOOP_FRAMES_PER_KEY", 1)
    monkeypatch.setattr(demo.loop, "train", None)
    before = (finished / "report" / "swd.json").read_bytes()
    (finished / "report.html").unlink()
    assert run(finished, data, minutes=0.02) == 0
    assert (finished / "report.html").is_file()
    assert (finished / "report" / "swd.json").read_bytes() == before
    assert f"report: {finished / 'report.html'}" in capsys.readouterr().out


def test_more_minutes_train_for_the_difference(finished, data, monkeypatch):
    asked = []

    def train(config, run_dir, *, max_minutes, **options):
        asked.append(max_minutes)
        return Outcome(nimg=0, is_complete=False)

    monkeypatch.setattr(demo.loop, "train", train)
    monkeypatch.setattr(demo, "write_report", lambda *_, **__: None)
    logged = demo.trained_minutes(finished)
    run(finished, data, minutes=7)
    run(finished, data, minutes=9)
    run(finished, data, minutes=9)
    assert asked == pytest.approx([7 - logged, 2])


def test_the_time_of_an_interrupted_demo_is_taken_from_its_log(tmp_path):
    assert demo.trained_minutes(tmp_path) == 0
    lines = [
        {"kind": "tick", "nimg": 1, "time": {"seconds": 30}},
        {"kind": "other", "nimg": 1},
        {"kind": "tick", "nimg": 2, "time": {"seconds": 60}},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert demo.trained_minutes(tmp_path) == 1.5
    (tmp_path / "demo.json").write_text('{"minutes": 5.0}')
    assert demo.trained_minutes(tmp_path) == 5


def test_an_interrupted_demo_says_so_and_shows_nothing(data, tmp_path, monkeypatch, capsys):
    outcome = Outcome(nimg=16, is_complete=False, signal=signal.SIGINT)
    monkeypatch.setattr(demo.loop, "train", lambda *_, **__: outcome)
    monkeypatch.setattr(demo, "write_report", None)
    assert run(tmp_path / "run", data, minutes=1) == 130
    assert "the same command continues the run" in capsys.readouterr().out
    assert not (tmp_path / "run" / "demo.json").exists()


def test_the_folder_of_another_demo_is_refused_even_if_it_is_finished(finished, data):
    with pytest.raises((CheckpointError, ConfigError), match="seed"):
        run(finished, data, minutes=0.02, seed=1)


def test_a_demo_of_no_time_is_refused(data, tmp_path):
    for minutes in (0, -1, math.nan):
        with pytest.raises(ConfigError, match="minutes must be more than 0"):
            demo.demo(data=data, out=tmp_path / "run", minutes=minutes)
    assert not (tmp_path / "run").exists()


def test_pictures_of_any_size_are_prepared(tmp_path, monkeypatch):
    for index in range(3):
        picture = torch.zeros(3, 40 + index, 50, dtype=torch.uint8)
        images.write(picture, tmp_path / "own" / f"{index}.png")
    paths = []
    monkeypatch.setattr(
        demo, "_train_for", lambda minutes, config, **options: paths.append(config.data.path)
    )
    monkeypatch.setattr(demo, "write_report", lambda *args, **options: None)
    demo.demo(data=tmp_path / "own", out=tmp_path / "demo", from_scratch=True)
    assert re.fullmatch(r"own-32-\w+\.zip", Path(paths[0]).name)


def test_one_image_is_refused(data, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes((data / "0.png").read_bytes())
    with pytest.raises(DataError, match="one image only"):
        run(tmp_path / "run", tmp_path / "photos", minutes=1)


def test_the_demo_set_is_found_here_then_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkout = tmp_path / "checkout"
    monkeypatch.setattr(
        demo, "__file__", str(checkout / "src" / "stylegan" / "workflows" / "demo.py")
    )
    with pytest.raises(DataError, match=r"stylegan data prepare SRC demo/emoji64.zip"):
        demo.find_data(None)
    for folder in (checkout, tmp_path):
        (folder / "demo").mkdir(parents=True)
        (folder / "demo" / "emoji64.zip").touch()
        assert demo.find_data(None).resolve() == folder / "demo" / "emoji64.zip"
    with pytest.raises(DataError, match="no images at elsewhere"):
        demo.find_data(Path("elsewhere"))


@pytest.mark.parametrize(("count", "num"), [(1, 5), (5, 5), (6, 5), (100, 5), (11, 2)])
def test_a_choice_at_equal_distances_has_both_ends(count, num):
    chosen = evenly(range(count), num)
    assert len(chosen) == min(count, num)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    steps = [after - before for before, after in pairwise(chosen)]
    assert max(steps, default=0) - min(steps, default=0) <= 1


def test_charts_draw_what_the_log_has():
    log = [
        {"nimg": 1000, "terms": {"loss/G": 1.0, "loss/D": 2.0}, "time": {"images_per_second": 9}},
        {"nimg": 3000, "terms": {"loss/G": 3.0}, "time": {"images_per_second": 8}},
    ]
    drawn = {chart.title: chart for chart in charts(log)}
    assert drawn["Adversarial loss"].series == {
        "generator": [(1, 1), (3, 3)],
        "discriminator": [(1, 2)],
    }
    assert drawn["Speed"].series == {"speed": [(1, 9), (3, 8)]}
    assert drawn["R1 penalty"].series == {"R1": []}
    for chart in drawn.values():
        assert chart.x_label in page("p", sections=[Section(title="s", blocks=[chart])])


def test_each_metric_of_the_log_has_a_chart():
    log = [
        {"kind": "metrics", "nimg": 1000, "metrics": {"kid2k:efficientnet-lite0": 2.0}},
        {"kind": "tick", "nimg": 1500, "terms": {}},
        {"kind": "metrics", "nimg": 2000, "metrics": {"kid2k:efficientnet-lite0": 1.0, "swd2k": 4}},
    ]
    drawn = {chart.title: chart for chart in metric_charts(log)}
    assert {name: chart.series for name, chart in drawn.items()} == {
        "kid2k:efficientnet-lite0": {"kid2k:efficientnet-lite0": [(1, 2), (2, 1)]},
        "swd2k": {"swd2k": [(2, 4)]},
    }
    for name, chart in drawn.items():
        assert name in page("p", sections=[Section(title="s", blocks=[chart])])
    assert metric_charts(log[1:2]) == []


def test_samples_for_the_distance_have_random_noise_and_depend_on_the_seed(finished):
    generator = load(finished)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    first = demo_report.sample(generator, 3, seed=1)
    assert first.shape == (3, 3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, demo_report.sample(generator, 3, seed=1))
    assert not torch.equal(first, demo_report.sample(generator, 3, seed=2))
    z = torch.randn(3, generator.z_dim, generator=generator_for("swd latents", seed=1))
    assert not torch.equal(first, images.to_uint8(generator(z)))


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "Example: stylegan demo --minutes 5 --out runs/demo" in capsys.readouterr().out


def test_help_of_an_option_is_that_of_the_function_also_if_the_presenter_has_one_of_the_name(
    capsys,
):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert re.search(r"--out RUN +folder of the run", text)
    assert re.search(r"--open +open the report", text)
