import json
import os
import re
import shlex
import zipfile

import numpy as np
import pytest
from PIL import Image

from stylegan.cli.data import main
from stylegan.errors import ConfigError


@pytest.fixture
def photos(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    for index in range(4):
        Image.effect_noise((16, 16), 50).convert("RGB").save(path / f"{index}.png")
    return path


def test_check_is_quiet_about_a_good_set(photos, capsys):
    assert main(["check", str(photos)]) == 0
    assert capsys.readouterr().out == "4 images can be trained on at 16x16.\n"
    assert main(["check", str(photos), "--resolution", "8"]) == 0
    assert capsys.readouterr().out == "4 images can be trained on at 8x8.\n"


def test_check_lists_offenders_and_ends_with_what_to_do(photos, capsys):
    (photos / "a [b].png").write_bytes(b"")
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:200])
    (photos / "readme.txt").write_text("hello")
    Image.new("RGB", (40, 30)).save(photos / "wide.png")
    assert main(["check", str(photos)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a [b].png: empty"
    assert lines[1].startswith("cut.png: truncated or damaged")
    assert lines[2] == "readme.txt: not an image (by its file name extension)"
    assert lines[3] == "wide.png: wrong size 40x30 (not square)"
    assert lines[4] == "4 images can be trained on at 16x16."
    assert lines[5] == "4 files cannot, and training skips them. What to do:"
    assert lines[6].startswith("  empty, truncated, unreadable: copy or download the files again")
    assert lines[7].startswith("  not an image: remove")
    assert lines[8].endswith(f"`stylegan data prepare {photos} photos16.zip --resolution 16`.")
    assert len(lines) == 9


def test_check_names_images_with_equal_pixels_without_failing(photos, capsys):
    with Image.open(photos / "1.png") as image:
        image.save(photos / "1 again.bmp")
        for index in range(6):
            image.save(photos / f"1 copy{index}.png", compress_level=index)
        grey = image.convert("L").point(lambda level: 255 - level)
    grey.save(photos / "grey.png")
    grey.convert("RGB").save(photos / "gray.png")
    assert main(["check", str(photos)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "13 images can be trained on at 16x16."
    assert lines[1:] == [
        "8 images are copies of another, with the same pixels:",
        "  1 again.bmp, 1 copy0.png, 1 copy1.png, 1 copy2.png, 1 copy3.png and 3 more",
        "  gray.png, grey.png",
    ]


def test_check_shows_twenty_groups_of_copies(tmp_path, capsys):
    for index in range(21):
        for name in "ab":
            Image.new("L", (4, 4), index).save(tmp_path / f"{index:02d}{name}.png")
    assert main(["check", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "21 images are copies of another, with the same pixels:"
    assert (len(lines), lines[-1]) == (23, "  and 1 more groups")


def test_a_rotated_copy_with_the_tag_that_turns_it_back_has_the_same_pixels(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "b.png", exif=exif)
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "c.png")
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  a.png, b.png"


def test_check_of_an_empty_folder_fails_and_says_so(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "No image can be trained on." in out
    assert "There are no images: check the path." in out


def test_prepare_makes_a_set_that_info_describes(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (photos / "bad.png").write_text("hello")
    assert main(["prepare", str(photos), "set.zip", "--resolution", "8", "--filter", "box"]) == 0
    assert capsys.readouterr().out.startswith("set.zip: 4 images, 8x8 RGB, 0.0 MB; 1 files skipped")
    assert main(["info", "set.zip"]) == 0
    out = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["images"] == "4 can be trained on, 0 files cannot"
    assert rows["sizes"] == "8x8 (4)"
    assert rows["modes"] == "RGB (4)"
    assert rows["formats"] == "PNG (4)"
    assert rows["labels"] == "none"
    assert len(rows["fingerprint"]) == 64
    assert rows["from"] == "photos"
    assert "resolution 8, crop center" in rows["options"]
    assert rows["steps"] == "resized 16x16 to 8x8 (box) (4)"
    assert rows["left"] == "out     1 files"
    assert rows["sheet"] == "set-sheet.png"
    with Image.open("set-sheet.png") as sheet:
        assert (sheet.mode, sheet.size) == ("RGB", (4 * 8 + 3 * 2, 8))


def test_info_fits_a_terminal_and_names_the_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(30):
        folder = tmp_path / "set" / f"a class with a long name {index}"
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "a.png")
    line = ["prepare", "set", "set.zip", "--resolution", "4", "--labels-from", "folders"]
    assert main(line) == 0
    capsys.readouterr()
    assert main(["info", "set.zip"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "labels 30 classes, for 30 of 30 images: a class with a long name 0 (1)," in text
    assert "and 22 others" in text
    assert "None" not in text


def test_prepare_refuses_to_overwrite_without_the_flag(photos, tmp_path):
    line = ["prepare", str(photos), str(tmp_path / "set.zip"), "--resolution", "8"]
    assert main(line) == 0
    with pytest.raises(ConfigError, match="exists"):
        main(line)
    assert main([*line, "--overwrite"]) == 0


def test_prepare_passes_every_option_on(photos, tmp_path):
    (photos / "cats").mkdir()
    Image.new("RGBA", (16, 16)).save(photos / "cats" / "a.png")
    line = "--resolution 8 --crop wide --wide-height 4 --filter box --background #010203"
    line += (
        " --pad-color #040506 --compress-level 1 --labels-from folders --on-bad skip --workers 1"
    )
    archive = tmp_path / "set.zip"
    assert main(["prepare", str(photos), str(archive), *line.split()]) == 0
    with zipfile.ZipFile(archive) as file:
        options = json.loads(file.read("prepare.json"))["options"]
        pixels = np.asarray(Image.open(file.open("00000/img00000000.png")))
    assert options == {
        "resolution": 8,
        "crop": "wide",
        "wide_height": 4,
        "filter": "box",
        "background": "#010203",
        "range": None,
        "alpha": "auto",
        "depth": "keep",
        "pad_color": "#040506",
        "compress_level": 1,
        "labels_from": "folders",
        "every": 1,
        "on_bad": "skip",
    }
    assert pixels[:, 0].tolist() == [[0, 0, 0]] * 2 + [[1, 2, 3]] * 4 + [[0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([["0.png", 0], ["1.png", 2], ["2.png", 2]], "3 classes, for 3 of 4 images: 2 (2), 0 (1)"),
        ([["0.png", [0.1, 1]], ["1.png", [0, 0]]], "vectors of 2 numbers, for 2 of 4 images"),
        ([], "none of 4 images has one"),
    ],
)
def test_info_describes_labels(photos, tmp_path, capsys, labels, expected):
    (photos / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert main(["info", str(photos), "--out", str(tmp_path / "sheet.png")]) == 0
    assert f"labels       {expected}\n" in capsys.readouterr().out


def test_info_draws_images_of_any_size(photos, tmp_path, capsys):
    Image.new("L", (50, 40), 7).save(photos / "5.png")
    (photos / "bad.png").write_text("hello")
    assert main(["info", str(photos), "--out", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "sizes        16x16 (4), 50x40 (1)" in out
    assert f"See `stylegan data check {photos}`" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * 16 + 4 * 2, 16)


def test_lines_to_paste_quote_their_paths(photos, capsys):
    folder = photos.rename(photos.with_name("my  photos; $(all)"))
    Image.new("L", (50, 40), 7).save(folder / "5.png")
    (folder / "bad.png").write_text("hello")
    assert main(["info", str(folder), "--out", str(folder.with_name("sheet.png"))]) == 0
    assert main(["check", str(folder)]) == 1
    lines = re.findall("`(stylegan [^`]+)`", capsys.readouterr().out)
    names = [shlex.split(line)[3] for line in lines]
    assert len(names) >= 2
    assert set(names) == {str(folder)}


@pytest.mark.parametrize("command", ["prepare", "check", "info"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"Example: stylegan data {command} " in capsys.readouterr().out


def test_wrong_usage_exits_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "photos"])
    assert caught.value.code == 2


def test_check_decodes_a_prepared_zip_and_a_pipe_is_no_image(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        noise = Image.effect_noise((16, 16), 50 + index)
        noise.convert("RGB").save(folder / f"{index}.png")
    prepared = tmp_path / "set.zip"
    assert main(["prepare", str(folder), str(prepared), "--resolution", "16"]) == 0
    assert main(["check", str(prepared)]) == 0
    content = bytearray(prepared.read_bytes())
    place = content.index(b"IDAT") + 8
    content[place : place + 4] = b"####"
    prepared.write_bytes(content)
    assert main(["check", str(prepared)]) == 1
    assert "00000/img00000000.png" in capsys.readouterr().out

    os.mkfifo(folder / "pipe.png")
    assert main(["check", str(folder)]) == 1
    assert "pipe.png: unreadable (not a regular file)" in capsys.readouterr().out


def test_augment_draws_the_images_and_what_is_made_of_them(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["augment", str(photos), "--num", "3", "--draws", "2", "--scale", "2"]
    assert main([*line, "--p", "1"]) == 0
    assert capsys.readouterr().out == "photos-augmented.png: 96x96\n"
    with Image.open("photos-augmented.png") as picture:
        rows = [picture.crop((0, 32 * row, 96, 32 * row + 32)).tobytes() for row in range(3)]
    assert len(set(rows)) == 3
    assert main([*line, "--p", "0", "--out", "same.png"]) == 0
    with Image.open("same.png") as picture:
        first = picture.crop((0, 0, 96, 32)).tobytes()
        assert picture.crop((0, 64, 96, 96)).tobytes() == first == rows[0]
    assert main([*line, "--mode", "diffaugment", "--out", "other.png"]) == 0
    with pytest.raises(ConfigError, match=r"augment\.p"):
        main([*line, "--p", "2"])
    with pytest.raises(ConfigError, match="draws"):
        main([*line, "--draws", "0"])
