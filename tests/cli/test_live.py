"""The live line of training."""

import io

import pytest
from rich.console import Console

from stylegan.cli.live import LiveLine
from stylegan.training.loop import Progress

RECORD = {
    "terms": {
        "loss/G": 1.234,
        "loss/D": 0.123,
        "r1/penalty": 1.23e-5,
        "label_loss/real": 0.1,
        "path_length/mean": 12.3,
        "grad_norm/G": 1.23e-5,
        "grad_norm/D": 123.0,
    },
    "time": {"share": {"D": 0.5, "G": 0.3, "data": 0.1, "regularizers": 0.1}},
    "growth": {"resolution": 1024, "batch": 32, "lod": 0.25},
    "skipped": 3,
}
FIELDS = [
    "kimg 1.2/25000", "12.3 img/s", "left 2h03", "1024x1024 lod 0.25 batch 32", "G 1.23", "D 0.123",
    "R1 1.23e-05", "labels 0.1", "path length 12.3", "|grad G| 1.23e-05", "|grad D| 123",
    "skipped 3", "time: D 50% G 30% data 10% regularizers 10%",
]  # fmt: skip


def shown(width, is_terminal):
    output = io.StringIO()
    console = Console(
        file=output, width=width, force_terminal=is_terminal, soft_wrap=True, highlight=False
    )
    with LiveLine(console) as line:
        line.update(
            Progress(
                nimg=1234,
                total_nimg=25_000_000,
                images_per_second=12.34,
                seconds_left=7400.0,
                record=RECORD,
            )
        )
    return output.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_shows_every_field_whole_in_lines_that_fit(width):
    text = shown(width, is_terminal=True)
    assert all(field in text for field in FIELDS)
    lines = text.rpartition("\x1b[2K")[2].replace("\x1b[?25h", "").splitlines()
    assert max(len(line) for line in lines) <= width


def test_piped_output_is_one_plain_line():
    assert shown(80, is_terminal=False) == "  ".join(FIELDS) + "\n"
