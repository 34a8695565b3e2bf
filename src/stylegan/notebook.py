"""How results of long work are shown in a notebook."""

import abc
import base64
import html

from torch import Tensor

from stylegan.images import png_bytes


class TextResult(abc.ABC):
    """A result whose `str` is a short report, which a notebook shows as it is."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """Return the report."""

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"


def picture_html(image: Tensor) -> str:
    """Return an image, uint8 [C, H, W], as an HTML element that needs no file."""
    data = base64.b64encode(png_bytes(image)).decode()
    return f'<img src="data:image/png;base64,{data}">'
