import contextlib
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch

import stylegan
from stylegan import images
from stylegan.captions import draw_line, font_size, line_height, row_title_width
from stylegan.cli.attribute import main
from stylegan.errors import ConfigError, DataError
from stylegan.images import to_uint8
from stylegan.latent import projection_folder
from stylegan.latent.attribution import Calibration, image_with_seeded_noise
from stylegan.models import io

STEPS = 30


def make(folder, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = stylegan.create("stylegan2-e", 16, channel_base=128, z_dim=16, w_dim=16)
        with torch.no_grad():  # images with large shapes, which a few steps can follow
            networks.generator_ema.synthesis.b16.torgb.weight *= 0.3
    io.save(networks, folder)
    return str(folder)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return make(tmp_path_factory.mktemp("weights") / "a", 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make(tmp_path_factory.mktemp("weights") / "b", 1)


@pytest.fixture(scope="module")
def reals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reals")
    stream = torch.Generator().manual_seed(0)
    for index in range(8):
        coarse = torch.randint(0, 256, [3, 4, 4], generator=stream, dtype=torch.uint8)
        picture = coarse.repeat_interleave(5, 1).repeat_interleave(5, 2)
        images.write(picture, folder / f"{index}.png")
    return folder


def run(*paths, network, **options):
    words = [str(path) for path in paths]
    for each in network if isinstance(network, list) else [network]:
        words += ["--network", each]
    options = {"perceptual": "discriminator", "steps": STEPS, "device": "cpu"} | options
    for name, value in options.items():
        words.append("--" + name.replace("_", "-"))
        if not isinstance(value, bool):
            words.append(str(value))
    assert main(words) == 0


@pytest.fixture(scope="module")
def calibration(network, other, reals, tmp_path_factory):
    """Calibrate both networks; return the output of the first one, its folder and its text."""
    folder, text = tmp_path_factory.mktemp("calibration"), StringIO()
    with contextlib.redirect_stdout(text):
        run(network=network, calibrate=True, data=reals, num=8, out=folder / "first")
    run(network=other, calibrate=True, data=reals, num=8, out=folder / "second")
    return folder / "first", text.getvalue()


@pytest.fixture
def calibrated(calibration, network, other):
    return [network, other]


def test_a_calibration_is_stored_beside_the_network(calibration, network):
    out, text = calibration
    record = json.loads((Path(network) / "attribution.json").read_text())
    assert len(record["own"]) == len(record["real"]) == 8
    assert record["network"]["path"] == network
    assert record["options"]["num_steps"] == STEPS
    assert record["distance"]["name"] == "discriminator"
    assert record["area_under_curve"] > 0.9
    assert sorted(path.name for path in out.iterdir()) == [
        "histograms.png",
        "own",
        "real",
        "roc.png",
    ]
    assert len(list((out / "own").iterdir())) == 8
    assert "AUC 0.9" in text or record["area_under_curve"] == 1


def test_own_images_are_distinguished_from_real_ones_and_from_those_of_another(
    calibrated, reals, tmp_path, capsys
):
    for index, network in enumerate(calibrated):
        image, _ = image_with_seeded_noise(stylegan.load(network), 5)
        images.write(to_uint8(image)[0], tmp_path / "asked" / f"own{index}.png")
    capsys.readouterr()
    run(tmp_path / "asked", reals / "3.png", network=calibrated, out=tmp_path / "verdict")
    record = json.loads((tmp_path / "verdict" / "verdict.json").read_text())
    made_by = {row["name"]: row["made_by"] for row in record["images"]}
    assert made_by == {"own0": calibrated[0], "own1": calibrated[1], "3": None}
    for row in record["images"]:
        total = row["none"] + sum(each["probability"] for each in row["networks"])
        assert total == pytest.approx(1)
    sheet = images.read(tmp_path / "verdict" / "pairs.png")
    size = font_size(64)
    titles = row_title_width([row["verdict"] for row in record["images"]], size)
    line = line_height(size)
    assert sheet.shape == (3, line + 3 * (64 + line + 2) - 2, titles + 3 * 66 - 2)
    name = 255 - draw_line("own0", width=64, size=size)
    assert torch.equal(sheet[0, line + 64 : 2 * line + 64, titles : titles + 64], name)
    text = capsys.readouterr().out
    assert text.count("own0") == 1


def test_one_network_says_whether_it_made_an_image(calibrated, reals, tmp_path, capsys):
    network, _ = calibrated
    image, _ = image_with_seeded_noise(stylegan.load(network), 5)
    images.write(to_uint8(image)[0], tmp_path / "own.png")
    run(tmp_path / "own.png", reals / "3.png", network=network, out=tmp_path / "verdict")
    rows = json.loads((tmp_path / "verdict" / "verdict.json").read_text())["images"]
    # eight own images are too few to deny one
    assert [row["verdict"] for row in rows] == [f"probably made by {network}", "undecided"]
    assert 'with 8 own images it cannot say "not made by it"' in capsys.readouterr().out


def test_enough_images_exclude_a_picture(network, reals, tmp_path):
    options = {"network": network, "calibrate": True, "data": reals, "steps": 3, "num": 8}
    path = tmp_path / "c.json"
    run(**options, calibration=path, out=tmp_path / "a")
    record = json.loads(path.read_text())
    record["own"] = [0.9 * min(record["own"])] * 19
    path.write_text(json.dumps(record))
    run(reals / "3.png", network=network, calibration=path, steps=3, out=tmp_path / "b")
    (row,) = json.loads((tmp_path / "b" / "verdict.json").read_text())["images"]
    assert row["networks"][0]["own_p_value"] == pytest.approx(0.05)
    assert row["verdict"] == "probably not made by it"


@pytest.mark.slow
def test_a_stopped_calibration_goes_on(network, reals, tmp_path, monkeypatch):
    from stylegan.latent.project import Projector
    from stylegan.latent.projection_folder import ProjectionFolder

    options = {"network": network, "calibrate": True, "data": reals, "num": 5, "steps": 10}
    files = {name: tmp_path / f"{name}.json" for name in ("whole", "stopped")}
    run(**options, out=tmp_path / "whole", calibration=files["whole"])
    finish = ProjectionFolder.finish
    with monkeypatch.context() as patch:

        def stopping(self, *arguments, **named):
            finish(self, *arguments, **named)
            if self.target.name.endswith("3"):
                raise KeyboardInterrupt

        patch.setattr(ProjectionFolder, "finish", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(**options, out=tmp_path / "stopped", calibration=files["stopped"], batch=1)
    assert not files["stopped"].exists()
    run(**options, out=tmp_path / "stopped", calibration=files["stopped"])
    assert Projector is not None
    whole, stopped = (json.loads(path.read_text()) for path in files.values())
    assert stopped["own"] == pytest.approx(whole["own"], rel=0.3)
    assert stopped["data"]["sha256"] == whole["data"]["sha256"]


def test_a_calibration_of_something_else_is_refused(network, other, calibrated, reals, tmp_path):
    place = Path(network) / "attribution.json"
    with pytest.raises(DataError, match="another options"):
        run(reals / "1.png", network=network, out=tmp_path / "o", steps=STEPS + 1)
    with pytest.raises(DataError, match="another network"):
        run(reals / "1.png", network=other, calibration=place, out=tmp_path / "o")
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(DataError, match="not a readable calibration"):
        run(reals / "1.png", network=network, calibration=tmp_path / "c.json", out=tmp_path / "o")
    with pytest.raises(DataError, match=r"no calibration at.*--calibrate --network"):
        run(reals / "1.png", network=network, calibration=tmp_path / "n.json", out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_picture_beyond_all_real_ones_is_warned_of(calibrated, tmp_path, caplog):
    noise = torch.randint(0, 256, [3, 16, 16], dtype=torch.uint8)
    images.write(noise, tmp_path / "noise.png")
    with caplog.at_level("WARNING", "stylegan"):
        run(tmp_path / "noise.png", network=calibrated[0], out=tmp_path / "o")
    row = json.loads((tmp_path / "o" / "verdict.json").read_text())["images"][0]
    warned = "larger distance than every real image" in caplog.text
    assert warned == row["networks"][0]["is_further_than_all_real"]
    assert row["made_by"] is None


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        ([], {"calibrate": True}, "calibrate needs --data"),
        (["x.png"], {"calibrate": True, "data": "d"}, "--calibrate takes its images from --data"),
        ([], {"calibrate": True, "data": "d", "num": 4}, "num must be 5 or more, got 4"),
        (["x.png"], {"num": 9}, "only apply to --calibrate"),
        ([], {}, "needs an image"),
        (["x.png"], {"batch": 0}, "batch must be 1 or more"),
        (["x.png"], {"steps": 0}, "steps must be more than 0"),
    ],
)
def test_a_mistake_is_reported(network, tmp_path, paths, options, message):
    with pytest.raises(ConfigError, match=message):
        run(*paths, network=network, out=tmp_path / "o", **options)
    with pytest.raises(ConfigError, match="1 calibrations were given for 2 networks"):
        run("x.png", network=[network, network], calibration="c.json", out=tmp_path / "o")


@pytest.mark.slow
def test_python_attributes_without_files(calibrated, reals, tmp_path):
    options = {"perceptual": "discriminator", "steps": STEPS, "device": "cpu"}
    image, _ = image_with_seeded_noise(stylegan.load(calibrated[0]), 5)
    result = stylegan.attribute(to_uint8(image), calibrated, **options)
    assert result.folder is None
    assert [image.made_by for image in result.images] == [calibrated[0]]
    assert str(result).splitlines()[1].startswith("image0")
    assert "made by" in result._repr_html_()
    shown = result.picture(captions=False).pixels
    assert torch.equal(shown[:, :16, :16], to_uint8(image)[0])
    assert torch.equal(shown[:, :16, 18:34], result.images[0].projections[0])
    again = stylegan.attribute(to_uint8(image), calibrated, out=tmp_path, **options)
    assert again.images[0].probabilities == pytest.approx(result.images[0].probabilities)


def test_python_returns_the_calibration_that_it_stores(network, reals, tmp_path):
    options = {"perceptual": "discriminator", "steps": 2, "num": 5, "device": "cpu"}
    path = tmp_path / "c.json"
    result = stylegan.attribute(
        networks=network, calibrate=True, data=reals, calibrations=[path], **options
    )
    (stored,) = result.calibrations
    assert stored.path == path
    assert Calibration.from_json(json.loads(path.read_text())) == stored.calibration
    assert str(result).startswith(f"{path}: 5 own and 5 real images\n  AUC ")
    assert "0 of these real images have a distance below" in str(result)
    assert "is calibrated on few images" in str(result)
    assert all(len(line) <= 80 for line in str(result).splitlines()[1:])


def test_a_calibration_does_not_call_its_own_pictures_unlike_it(
    network, reals, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(projection_folder, "UNLIKE_FRACTION", 0.0)
    options = {"network": network, "calibrate": True, "data": reals, "num": 5, "steps": 2}
    with caplog.at_level("WARNING", "stylegan"):
        run(**options, out=tmp_path / "o", calibration=tmp_path / "c.json")
    assert caplog.text == ""


def test_scikit_learn_is_missed_before_the_work(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"sklearn is not installed; pip install .*\[metrics\]"):
        run(tmp_path / "x.png", network=network, out=tmp_path / "o")
