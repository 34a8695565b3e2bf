import random

import pytest
import torch

from stylegan import images
from stylegan.captions import (
    MIN_SIDE,
    Captions,
    draw_line,
    font_size,
    is_drawable,
    line_height,
    row_title_width,
)

SIZE = font_size(MIN_SIDE)
LINE = line_height(SIZE)


def tiles(num, side=MIN_SIDE, channels=3):
    return torch.randint(0, 256, [num, channels, side, side], dtype=torch.uint8)


def has_ink(strip):
    return bool((strip < 128).any())


@pytest.mark.parametrize("channels", [1, 3])
def test_captions_surround_the_images_and_leave_their_pixels(channels):
    shown = tiles(3, channels=channels)
    captions = Captions(tiles=["a", "b", "c"], columns=["psi 1", "psi 0"], rows=["x", "seed 9"])
    sheet = images.grid(shown, columns=2, padding=2, captions=captions)
    left = row_title_width(captions.rows, SIZE)
    step = MIN_SIDE + LINE + 2
    assert sheet.shape == (channels, LINE + 2 * step - 2, left + 2 * MIN_SIDE + 2)
    for index in range(3):
        y, x = LINE + index // 2 * step, left + index % 2 * (MIN_SIDE + 2)
        assert torch.equal(sheet[:, y : y + MIN_SIDE, x : x + MIN_SIDE], shown[index])
        assert has_ink(sheet[:, y + MIN_SIDE : y + MIN_SIDE + LINE, x : x + MIN_SIDE])
        assert has_ink(sheet[:, :LINE, x : x + MIN_SIDE])
        assert has_ink(sheet[:, y : y + MIN_SIDE, :left])
    assert not has_ink(sheet[:, LINE + step :, left + MIN_SIDE + 2 :])  # the cell without image


def ink_width(strip):
    columns = (strip < 128).any(dim=0).nonzero()
    return int(columns.max() - columns.min())


@pytest.mark.parametrize("title", ["a", "seed0001", "probably made by run"])
def test_titles_of_rows_are_complete(title):
    sheet = images.grid(tiles(1), columns=1, captions=Captions(rows=[title]))
    whole = 255 - draw_line(title, width=400, size=SIZE)
    assert ink_width(sheet[0, :, :-MIN_SIDE]) == pytest.approx(ink_width(whole), abs=1)


def test_small_images_with_captions_are_enlarged_and_others_are_not():
    small = tiles(2, side=16)
    assert images.grid(small, columns=2).shape == (3, 16, 32)
    sheet = images.grid(small, columns=2, captions=Captions(tiles=["a", "b"]))
    assert sheet.shape == (3, 64 + LINE, 128)
    assert torch.equal(sheet[:, :64, :64], images.enlarge(small[0], 4))
    assert images.grid(small, columns=2, scale=3).shape == (3, 48, 96)
    chosen = images.grid(small, columns=2, captions=Captions(tiles=["a", "b"]), scale=2)
    assert chosen.shape == (3, 32 + LINE, 64)


def test_captions_grow_with_the_images():
    assert [font_size(width) for width in (4, 80, 256, 1024)] == [11, 11, 18, 73]


def test_long_names_are_shortened_in_the_middle():
    first, second = (draw_line("IMG_" + "0" * 250 + end, width=80, size=11) for end in "12")
    assert first.shape == (LINE, 80)
    assert not torch.equal(first, second)  # the ends differ
    assert torch.equal(first, draw_line("IMG_" + "0" * 200 + "1", width=80, size=11))


def test_any_name_can_be_drawn():
    stream = random.Random(0)
    for _ in range(100):
        length = stream.randrange(64)
        name = "".join(chr(stream.randrange(0x110000)) for _ in range(length))
        width = stream.choice([1, 30, 100])
        assert draw_line(name, width=width, size=11).shape == (LINE, width)
    names = ["", "\n", "a\tb\x00", "\ud800", "\u202eabc", "e\u0301" * 100]
    sheet = images.grid(tiles(6), columns=3, captions=Captions(tiles=names, rows=names[:2]))
    assert sheet.shape[1] == 2 * (MIN_SIDE + LINE)


def test_accents_are_left_out_and_letters_that_the_font_lacks_are_boxes():
    plain, accented = (draw_line(text, width=80, size=11) for text in ("Muller", "Müller"))
    assert torch.equal(plain, accented)
    assert is_drawable("Müller 3")
    assert not is_drawable("猫")
    assert draw_line("猫", width=80, size=11).any()


def test_a_dark_grid_has_light_captions():
    sheet = images.grid(tiles(1), columns=1, fill=0, captions=Captions(columns=["a"]))
    assert sheet[:, :LINE].max() > 200
    assert sheet[:, 0].max() == 0
