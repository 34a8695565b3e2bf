"""Captions of grids of images, in the font that Pillow contains."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stylegan.files import printable_name

MIN_SIDE = 64
"""Width in pixels to which smaller images are enlarged, so that short captions fit below them."""
_MIN_SIZE = 11  # pixels; smaller letters are not readable
_SIDES_PER_SIZE = 14  # width of an image in font sizes, so that captions of large images grow
_MAX_ROW_TITLE = 16  # width of the titles of rows in font sizes, about 32 letters
_LINE_HEIGHT = 1.4  # in font sizes
_ELLIPSIS = "…"


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Texts of a grid. They may be of any length and hold any characters.

    Attributes:
        tiles: below each image; empty for none.
        columns: above each column; empty for none.
        rows: to the left of each row; empty for none.
    """

    tiles: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[str] = ()


def default_scale(width: int) -> int:
    """Return the factor by which images of a width in pixels are enlarged for captions."""
    return math.ceil(MIN_SIDE / width)


def font_size(width: int) -> int:
    """Return the font size in pixels for images of a width in pixels."""
    return max(_MIN_SIZE, width // _SIDES_PER_SIZE)


def line_height(size: int) -> int:
    """Return the height in pixels of a line of text."""
    return math.ceil(_LINE_HEIGHT * size)


def row_title_width(titles: Sequence[str], size: int) -> int:
    """Return the width in pixels of titles of rows, with a margin on both sides."""
    widths = [math.ceil(_font(size).getlength(_drawable(title))) for title in titles]
    return min(max(widths, default=0), _MAX_ROW_TITLE * size) + size


def draw_line(text: str, *, width: int, size: int) -> Tensor:
    """Draw a centered line of text: uint8 [line_height(size), width], 255 where there is text.

    Control characters are escaped, and a text that is too wide loses its middle. The font has
    little more than ASCII: accents are left out, and other letters are drawn as boxes.
    """
    font, height = _font(size), line_height(size)
    strip = Image.new("L", (width, height))
    shown = _shortened(_drawable(text), font, width - size // 3)  # apart from its neighbors
    ImageDraw.Draw(strip).text((width / 2, height / 2), shown, fill=255, font=font, anchor="mm")
    return torch.from_numpy(np.array(strip))


def is_drawable(text: str) -> bool:
    """Return whether a text can be drawn without boxes in place of letters."""
    return all(map(_has_glyph, _drawable(text)))


def class_caption(number: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its number if it has no name that can be drawn.

    Args:
        number: from 0.
        names: of the classes, by number; empty if they have none.
    """
    name = names[number] if number < len(names) else ""
    return name if name and is_drawable(name) else f"class {number}"


def _drawable(text: str) -> str:
    """Escape control characters, and leave out accents that the font does not have."""
    letters = []
    for letter in printable_name(text):
        base = letter if _has_glyph(letter) else unicodedata.normalize("NFKD", letter)[0]
        letters.append(base if _has_glyph(base) else letter)
    return "".join(letters)


@cache
def _has_glyph(letter: str) -> bool:
    # a font draws the same box for all letters that it does not have
    font = _font(_MIN_SIZE)
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Replace the middle of a text by an ellipsis, so that it fits; names often differ at the end.

    Even if nothing of the text fits, the ellipsis remains.
    """
    if font.getlength(text) <= width:
        return text

    def kept(num: int) -> str:
        return text[: num - num // 2] + _ELLIPSIS + text[len(text) - num // 2 :]

    low, high = 0, len(text)  # `kept(low)` fits, or low is 0; `kept(high)` does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if font.getlength(kept(middle)) <= width else (low, middle)
    return kept(low)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # a size was given
    return font
