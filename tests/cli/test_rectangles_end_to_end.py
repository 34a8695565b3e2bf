"""The commands on runs of images that are not square."""

import functools
import json
import re
from dataclasses import replace

import pytest
import torch

import stylegan
from stylegan import images
from stylegan.cli.main import main
from stylegan.image_size import ImageSize
from stylegan.metrics import records
from stylegan.models import progan
from stylegan.models import stylegan as stylegan1
from stylegan.training.checkpoint import list_checkpoints
from stylegan.training.config import GrowthConfig
from stylegan.training.log import read_log
from stylegan.training.loop import train
from stylegan.workflows import report

GROWTH = GrowthConfig(initial_resolution=4, train_kimg=0.004, fade_kimg=0.004, batches={}, lrs={})


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory):
    """Return a function that gives a folder of twelve noise images of a size."""

    @functools.cache
    def folder(resolution):
        size, path = ImageSize.of(resolution), tmp_path_factory.mktemp("rectangles")
        stream = torch.Generator().manual_seed(1)
        shape = [12, 3, size.height, size.width]
        for index, image in enumerate(torch.randint(0, 256, shape, generator=stream)):
            images.write(image.to(torch.uint8), path / f"{index:02d}.png")
        return path

    return folder


@pytest.fixture(scope="session")
def rectangle_config(run_config, rectangles):
    """Return a function that gives the tiny run of a family and size; "growing" is StyleGAN2's."""

    def configure(family, resolution):
        sizes = {"resolution": resolution, "channel_base": 128, "channel_max": 6}
        config = replace(
            run_config,
            generator=replace(run_config.generator, **sizes),
            discriminator=replace(run_config.discriminator, **sizes),
            data=replace(run_config.data, path=str(rectangles(resolution))),
            output=replace(
                run_config.output,
                total_kimg=0.008 if family == "stylegan2" else 0.032,
                tick_kimg=0.004,
                snapshot_kimg=0.016,
                checkpoint_kimg=0.016,
            ),
            batch=4,
        )
        if family == "growing":
            growing = {"architecture": "growing"}
            return replace(
                config,
                generator=replace(config.generator, **growing),
                discriminator=replace(config.discriminator, **growing),
                growth=GROWTH,
            )
        if family == "stylegan2":
            return config
        module = {"progan": progan, "stylegan": stylegan1}[family]
        loss = replace(config.loss, r1_interval=None)
        widths = {"z_dim": 8}
        if family == "progan":
            losses = {"gamma": 0, "pl_weight": 0, "pl_interval": None, "mixing_prob": 0}
            loss = replace(loss, adversarial="wgan-gp", **losses)
        else:
            widths |= {"w_dim": 12, "mapping_layers": 2}
        return replace(
            config,
            family=family,
            generator=module.GeneratorConfig(**sizes, **widths),
            discriminator=module.DiscriminatorConfig(**sizes),
            loss=loss,
            growth=GROWTH,
        )

    return configure


CASES = [
    pytest.param("stylegan2", "96x160", marks=pytest.mark.slow),
    ("stylegan2", "40x24"),
    pytest.param("growing", "40x24", marks=pytest.mark.slow),
    ("stylegan", "40x24"),
    ("progan", "40x24"),
]


@pytest.fixture(scope="session")
def rectangle_runs(rectangle_config, tmp_path_factory):
    """Return a function that gives the finished tiny run of a family and size, trained once."""

    @functools.cache
    def finished(family, resolution):
        folder = tmp_path_factory.mktemp("run") / "run"
        assert train(rectangle_config(family, resolution), folder).is_complete
        return folder

    return finished


@pytest.mark.parametrize(("family", "resolution"), CASES)
def test_an_interrupted_run_continues_exactly(
    family, resolution, rectangle_config, rectangle_runs, tmp_path
):
    config = rectangle_config(family, resolution)
    train(config, tmp_path / "run", max_minutes=0)  # stops after the first iteration
    assert train(config, tmp_path / "run").is_complete
    runs = (rectangle_runs(family, resolution), tmp_path / "run")
    one, other = (stylegan.load_networks(run) for run in runs)
    for (_, network), (_, again) in zip(one.items(), other.items(), strict=True):
        state = again.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert [path.name for path in list_checkpoints(runs[0])][-1:] == [
        path.name for path in list_checkpoints(runs[1])
    ][-1:]


def test_a_growing_run_passes_through_the_sizes(rectangle_runs):
    log = read_log(rectangle_runs("stylegan", "40x24"))
    sizes = [record["growth"]["resolution"] for record in log if record["kind"] == "tick"]
    assert sizes[-1] == "40x24"
    sheet = images.read(rectangle_runs("stylegan", "40x24") / "samples" / "000000000.png")
    assert sheet.shape == (3, 80, 48)  # images of 5x3, enlarged to the final size


@pytest.mark.parametrize(("family", "resolution"), CASES)
def test_a_run_is_sampled_measured_analyzed_and_converted(
    family, resolution, rectangles, rectangle_runs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run, size = str(rectangle_runs(family, resolution)), ImageSize.of(resolution)
    analyses = {"stylegan2": ("usage",), "stylegan": ("noise",), "growing": ("phase",)}
    cpu = ["--device", "cpu"]
    description = json.loads(
        (next((tmp_path / run / "snapshots").iterdir()) / "model.json").read_text()
    )
    assert description["networks"]["generator"]["config"]["resolution"] == resolution
    generate = ["generate", "images", "--network", run, "--seeds", "0-2", "--out", "images"]
    assert main([*generate, *cpu]) == 0
    assert images.read("images/seed0001.png").shape == (3, size.height, size.width)
    video = ["generate", "video", "--network", run, "--seeds", "0,1", "--seconds", "0.5"]
    assert main([*video, "--fps", "4", "--grid", "2x1", "--out", "video.gif", *cpu]) == 0
    data = str(rectangles(resolution))
    measure = ["evaluate", "--network", run, "--data", data, "--metrics", "swd8"]
    assert main([*measure, "--out", "metrics.jsonl", *cpu]) == 0
    (record,) = records.read("metrics.jsonl")
    assert record["real"]["side"] == record["fake"]["side"] == resolution
    for name in analyses.get(family, ("spectra",)):
        assert main(["analyze", name, "--network", run, "--num", "2", "--out", name, *cpu]) == 0
    assert main(["convert", run, "converted"]) == 0
    assert main([*generate[:3], "converted", *generate[4:-1], "again", *cpu]) == 0
    for path in (tmp_path / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_format_of_square_networks_is_refused_in_one_line(rectangle_runs, tmp_path, capsys):
    run = str(rectangle_runs("stylegan2", "40x24"))
    assert main(["convert", run, str(tmp_path / "file.pt"), "--to", "nvidia"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has images of 40x24" in error
    assert error.endswith("; convert to native\n")


@pytest.mark.parametrize("resolution", [pytest.param("96x160", marks=pytest.mark.slow), "40x24"])
def test_images_are_projected_in_the_proportions_of_the_network(
    resolution, rectangles, rectangle_runs, tmp_path
):
    run, size = rectangle_runs("stylegan2", resolution), ImageSize.of(resolution)
    picture = rectangles(resolution) / "03.png"
    words = ["project", str(picture), "--network", str(run), "--steps", "2"]
    words += ["--perceptual", "discriminator", "--out", str(tmp_path), "--device", "cpu"]
    assert main(words) == 0
    (target,) = tmp_path.rglob("target.png")
    assert torch.equal(images.read(target), images.read(picture))
    assert images.read(target.with_name("projected.png")).shape == (3, size.height, size.width)


@pytest.mark.slow
def test_a_report_has_all_sections(rectangles, rectangle_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LOOP_FRAMES", 4)
    words = ["report", "--network", str(rectangle_runs("stylegan2", "40x24")), "--num", "8"]
    words += ["--steps", "2", "--projections", "1", "--data", str(rectangles("40x24"))]
    words += ["--perceptual", "discriminator", "--out", str(tmp_path / "page.html")]
    assert main([*words, "--device", "cpu"]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "40x24, 3 channels" in text
    sections = re.findall(r"<h2>(.*?)</h2>(.*?)</section>", text, re.DOTALL)
    left_out = [title for title, content in sections if "Left out" in content]
    assert left_out == ["Metrics", "Images by path length", "Attribution"]
