import pytest

from stylegan.cli.main import main
from stylegan.interop.classifiers import load_classifiers
from stylegan.models import io


@pytest.fixture
def line(labeled_folder, tmp_path):
    """A command line of two classifiers of four steps each."""
    return [
        "train-classifier", "--data", str(labeled_folder), "--out", str(tmp_path / "out"),
        "--kimg", "0.032", "--channel-base", "64", "--channel-max", "6", "--device", "cpu",
    ]  # fmt: skip


def test_trains_and_shows_how_good_they_are(line, tmp_path, capsys):
    assert main(line) == 0
    shown = capsys.readouterr()
    assert "2 attributes of 60 images at 8x8, 0.032 kimg each, on cpu" in shown.err
    for text in ("Bright_Pixels", "50.0 %", "accuracy", "AUC", "2 classifiers, complete"):
        assert text in shown.out
    assert "01-top: accuracy " in shown.err
    found = load_classifiers(tmp_path / "out")
    assert [(c.index, c.name, c.size.width) for c in found] == [
        (0, "Bright_Pixels", 8),
        (1, "top", 8),
    ]


def test_the_same_line_goes_on_and_another_is_refused_in_one(line, capsys):
    assert main([*line, "--max-minutes", "0"]) == 0
    assert (
        "0 of 2 classifiers, time limit reached, saved; run the same command again"
        in capsys.readouterr().out
    )
    assert main(line) == 0
    assert "Bright_Pixels: resumed at 8 images" in capsys.readouterr().err
    assert main([*line, "--seed", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "made with other options or images (seed: 0 -> 1)" in error


def test_every_option_reaches_the_classifier(line, tmp_path):
    more = [
        "--attributes", "0", "--names", "bright,top", "--batch", "4", "--lr", "0.01",
        "--mirror", "--seed", "3", "--resolution", "64",
    ]  # fmt: skip
    assert main([*line, *more]) == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == "00-bright"
    made_with = io.read_metadata(folder)["made_with"]
    del made_with["data"]
    assert made_with == {
        "attribute": "bright", "resolution": 8, "kimg": 0.032, "batch": 4, "lr": 0.01,
        "mirror": True, "channel_base": 64, "channel_max": 6, "seed": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            ["--attributes", "bald"],
            "there is no attribute 'bald'; the attributes are 0 Bright_Pixels, 1 top",
        ),
        (["--max-minutes", "-1"], "max_minutes must be 0 or more, got -1"),
        (["--resolution", "4"], "the resolution 4 is (4x4)"),
        (["--resolution", "50"], "the resolution 50 is (25x25)"),
        (["--kimg", "0"], "kimg must be more than 0, got 0"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_reported_in_one_line(line, option, message, capsys):
    assert main([*line, *option]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
