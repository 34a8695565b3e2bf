"""File names that a console cannot show end no command."""

import os
import random
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


def random_names(num):
    """Names of all of Unicode, invalid bytes, leading dashes, and up to 255 bytes."""
    generator = random.Random(0)
    kinds = [(1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xDC80, 0xDCFF), (0x10000, 0x10FFFF)]
    names = set()
    while len(names) < num:
        low, high = generator.choice(kinds)
        letters = "".join(
            chr(generator.randint(low, high)) for _ in range(generator.choice([1, 3, 9, 99]))
        )
        name = generator.choice(["", "-", "--", "~", "\n", " "]) + letters.replace("/", "_")
        data = os.fsencode(name)[:251]
        names.add(os.fsdecode(data) + ".png")
    return sorted(names)


@pytest.mark.slow
def test_no_command_ends_by_one_of_five_hundred_names(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, name in enumerate(random_names(500)):
        picture = torch.full([3, 16, 16], index % 256, dtype=torch.uint8)
        (folder / name).write_bytes(images.png_bytes(picture) if index % 20 else b"")
    prepared, tiny = tmp_path / "set.zip", "--channel-base 64 --channel-max 6 --batch 4 --kimg 0.02"
    commands = [
        ("ascii", 1, f"data check {folder}"),
        ("cp949", 0, f"data prepare {folder} {prepared} --resolution 16"),
        ("latin-1", 0, f"data info {folder} --out {tmp_path / 'sheet.png'}"),
        (
            "ascii",
            0,
            f"train --data {folder} --preset stylegan2-small --metrics none {tiny} --device cpu "
            f"--out {tmp_path / 'run'}",
        ),
        (
            "ascii",
            0,
            f"evaluate --fake {folder} --real {prepared} --metrics swd64 --device cpu "
            f"--out {tmp_path / 'metrics.jsonl'}",
        ),
    ]
    for index, (encoding, status, words) in enumerate(commands):
        group = processes.start(command_on, encoding, words.split(), folder=tmp_path / str(index))
        assert group.join() == [status], group.output
        output = group.output_file.read_bytes().decode(encoding)
        assert "Traceback" not in output
        assert "\x1b" not in output
