import base64
import re
from io import BytesIO

import pytest
import torch

import stylegan
from stylegan import images
from stylegan.cli.report import main
from stylegan.errors import ConfigError, DataError
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.workflows import report

SECTIONS = [
    "Network", "Metrics", "Samples", "Truncation", "Style mixing", "Interpolation", "Noise",
    "Directions", "Resolution usage", "Droplets", "Details that stick to pixels", "Power spectra",
    "Images by path length", "Projection", "Attribution", "Training",
]  # fmt: skip


def save(folder, preset, side=16, **options):
    torch.manual_seed(0)
    sizes = {"channel_base": 128, "channel_max": 16}
    if preset not in ("progan", "stylegan-b"):  # they have no mapping network
        sizes |= {"z_dim": 64, "w_dim": 64, "mapping_layers": 2}
    networks = stylegan.create(preset, side, **(sizes | options))
    io.save(networks, folder)
    return folder


def run(network, **options):
    words = ["--network", str(network)]
    for name, value in ({"num": 8, "steps": 3, "projections": 1} | options).items():
        words += ["--" + name.replace("_", "-"), str(value)]
    assert main(words) == 0


@pytest.fixture
def short_loop(monkeypatch):
    monkeypatch.setattr(report, "LOOP_FRAMES", 8)


@pytest.fixture(scope="module")
def reals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reals")
    for index in range(8):
        image = torch.randint(0, 256, [3, 16, 16], dtype=torch.uint8)
        images.write(image, folder / f"{index}.png")
    return folder


def sections(path):
    text = path.read_text(encoding="utf-8")
    parts = re.findall(r"<section>\n<h2>(.*?)</h2>(.*?)</section>", text, re.DOTALL)
    return dict(parts), text


def test_images_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        main(["--network", "runs/any", "--data", str(tmp_path / "nowhere")])


def test_a_page_has_every_section_and_holds_all_it_shows(reals, tmp_path, capsys):
    network = save(tmp_path / "n", "stylegan2-e")
    page = tmp_path / "new" / "page.html"
    run(network, data=reals, perceptual="discriminator", out=page)
    found, text = sections(page)
    assert list(found) == SECTIONS
    assert "http" not in re.sub(r'http-equiv|data:[^"]*', "", text)
    assert "<script" not in text
    for title in [*SECTIONS[2:12], "Projection"]:
        assert re.search("data:image/|<svg|<table", found[title]), title
        assert "Left out" not in found[title], title
    assert "data:image/gif" in found["Interpolation"]
    assert "Left out: --perceptual discriminator" in found["Images by path length"]
    assert "Left out: no calibration" in found["Attribution"]
    assert "Left out: weights without a run" in found["Training"]
    assert "Left out: no measured metrics" in found["Metrics"]
    assert '<div class="row">' in found["Samples"]
    assert found["Samples"].count("Real images, at even distances") == 2  # alt text and caption
    assert "16 sections" in capsys.readouterr().out


def test_real_images_of_the_data_come_before_those_that_the_run_shows(finished_run, reals):
    options = {
        "num": 8, "projections": 0, "steps": 1, "perceptual": "discriminator",
        "weights_dir": None, "class_index": None, "device": "cpu", "seed": 0, "progress": None,
    }  # fmt: skip
    (row, *_) = report.ReportBuilder(finished_run, None, **options).samples()
    shown = images.read(BytesIO(row.figures[0].data))
    assert torch.equal(shown, images.read(finished_run / "reals.png"))
    (row, *_) = report.ReportBuilder(finished_run, reals, **options).samples()
    shown = images.read(BytesIO(row.figures[0].data))
    assert torch.equal(shown[:, :16, :16], images.read(reals / "0.png"))
    assert shown.shape == (3, 16, 8 * 16)


def test_the_table_of_metrics_has_the_last_values_and_those_of_the_best_snapshot():
    def record(nimg, metric, values, *, key="a", lower=True):
        return {
            "nimg": nimg, "metric": metric, "values": values,
            "value": next(iter(values.values())),
            "comparable": key, "lower_is_better": lower, "fake": {"num": 5000},
        }  # fmt: skip

    table = report.metric_table(
        [
            record(1000, "fid", {"fid": 1.0}, key="other data"),
            record(1000, "fid", {"fid": 9.0}),
            record(2000, "fid", {"fid": 5.0}),
            record(3000, "fid", {"fid": 7.0}),
            record(1000, "pr", {"precision": 0.5, "recall": 0.1}, lower=False),
            record(2500, "pr", {"precision": 0.4, "recall": 0.2}, lower=False),
        ]
    )
    assert table.rows == [
        ["fid", "fid", "7", "3", "5", "2", "5,000"],
        ["pr", "precision", "0.4", "2.5", "0.5", "1", "5,000"],
        ["pr", "recall", "0.2", "2.5", "0.1", "1", "5,000"],
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("short_loop")
def test_a_picture_is_no_wider_than_a_page_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "SHOWN_WIDTH", 60)  # of a 1024x1024 network: 1800
    network, page = save(tmp_path / "n", "stylegan2-f"), tmp_path / "page.html"
    run(network, perceptual="discriminator", out=page)
    found, _ = sections(page)
    for title in ("Noise", "Droplets"):
        pictures = re.findall('data:image/png;base64,([^"]*)', found[title])
        assert pictures, title
        for each in pictures:
            assert images.read(BytesIO(base64.b64decode(each))).shape[-1] <= 60


@pytest.mark.usefixtures("short_loop")
@pytest.mark.parametrize(
    "preset",
    [
        "stylegan-f",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("progan", "stylegan-b", "stylegan2-d")
        ),
    ],
)
def test_every_family_has_a_page(preset, tmp_path):
    network = save(tmp_path / "n", preset, c_dim=2)
    run(network, **{"class": 0}, out=tmp_path / "page.html")
    found, _ = sections(tmp_path / "page.html")
    assert list(found) == SECTIONS
    assert "Left out: " in found["Resolution usage"]
    assert ("Left out: " in found["Truncation"]) == (preset == "progan")
    assert ("Left out: " in found["Style mixing"]) == (preset in ("progan", "stylegan-b"))
    assert "Left out: no images to project" in found["Projection"]
    assert "data:image/png" in found["Droplets"]


@pytest.mark.slow
@pytest.mark.usefixtures("short_loop")
def test_a_figure_that_fails_costs_no_other(tmp_path, monkeypatch, caplog):
    def fails(*arguments, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("stylegan.workflows.figures.analyze_droplets", fails)
    network = save(tmp_path / "n", "stylegan2-e")
    run(network, out=tmp_path / "page.html")
    found, _ = sections(tmp_path / "page.html")
    assert "Failed: out of memory" in found["Droplets"]
    assert "data:image/png" in found["Details that stick to pixels"]
    assert "Droplets failed (out of memory)" in caplog.text


@pytest.mark.slow
def test_python_takes_a_loaded_network_and_may_write_no_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = stylegan.create("stylegan2-e", 16, channel_base=64, channel_max=8).generator_ema
    done = []
    result = stylegan.report(
        generator,
        out=None,
        num=8,
        perceptual="discriminator",
        progress=lambda *report: done.append(report),
    )
    assert [section.title for section in result.sections] == SECTIONS
    assert done[-1] == ("sections", 16, 16)
    assert "<iframe" in result._repr_html_()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_large_pictures_are_reduced(tmp_path):
    network = save(tmp_path / "n", "stylegan2-e", side=256, channel_base=256, channel_max=4)
    networks = io.load(network, only=["generator_ema"])
    io.save(Networks(generator_ema=networks.generator_ema), network)
    run(network, out=tmp_path / "page.html")
    found, _ = sections(tmp_path / "page.html")
    width = re.search(r'width="(\d+)"', found["Samples"])
    assert width is None or int(width[1]) <= 8 * 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "page.txt"}, "ends in .html"),
        ({"num": 7}, "--num must be 8"),
        ({"projections": -1}, "--projections must be 0"),
        ({"steps": 0}, "--steps must be 1"),
    ],
)
def test_a_mistake_is_reported(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "nothing", **({"out": tmp_path / "page.html"} | options))
