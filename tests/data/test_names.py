"""File names that a console cannot show end no command."""

import os
import sys

import pytest
import torch

import processes
from stylegan import images
from stylegan.cli.main import main
from stylegan.data.check import group_by_reason

NAMES = [
    *(
        "Muñoz.png",
        "写真.png",
        "-rf.png",
        "a b.png",
        "line\nbreak.png",
        "tab\t.png",
        "\x1b[31m.png",
    ),
    *("a" * 251 + ".png", "%s {0} $HOME.png", "'quoted\".png", "e\u0301.png", "\u202egnp.png"),
    *("[bold]x[/bold].png", "x[/].png", "😀.png", "\udce9.png", " .png"),
]


def command_on(encoding, words):
    """Run `stylegan` on a console of another encoding."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=encoding, errors="strict")
    return main(words)


def can_be_stored(folder, name):
    try:
        (folder / name).touch()
    except (OSError, UnicodeError):
        return False
    (folder / name).unlink()
    return True


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images, and empty files, with each name."""
    folder = tmp_path_factory.mktemp("names") / "photos"
    for kind in ("good", "empty"):
        (folder / kind).mkdir(parents=True)
        for name in NAMES:
            if can_be_stored(folder / kind, name):
                (folder / kind / name).touch()
    for index, name in enumerate(os.listdir(folder / "good")):
        pixels = torch.full([3, 16, 16], 5 * index, dtype=torch.uint8)
        images.write(pixels, folder / "good" / "tmp.png")
        os.replace(folder / "good" / "tmp.png", folder / "good" / name)
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp949"])
def test_no_name_ends_check_and_prepare(photos, tmp_path, encoding):
    words = ["data", "check", str(photos)]
    group = processes.start(command_on, encoding, words, folder=tmp_path)
    assert group.join() == [1]
    output = group.output_file.read_bytes().decode(encoding, "replace")
    num = len(os.listdir(photos / "empty"))
    assert output.count(": empty\n") == num
    assert "\x1b" not in output
    assert "line\\nbreak.png: empty\n" in output
    assert "Traceback" not in output
    words = ["data", "prepare", str(photos), str(tmp_path / "set.zip"), "--resolution", "16"]
    group = processes.start(command_on, encoding, words, folder=tmp_path / "2")
    assert group.join() == [0]
    output = group.output_file.read_bytes().decode(encoding, "replace")
    assert f"skipped {num} files: empty (" in output
    assert f"and {num - 5} more)" in output
    assert "Traceback" not in output


def test_files_are_grouped_by_reason():
    bad = [(f"{index}.png", "empty") for index in range(7)] + [("a.txt", "not an image")]
    assert group_by_reason(bad) == [
        "skipped 7 files: empty (0.png, 1.png, 2.png, 3.png, 4.png and 2 more)",
        "skipped 1 file: not an image (a.txt)",
    ]
