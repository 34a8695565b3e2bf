"""Encoded pictures for the page: JPEG while a control moves, PNG when still, PNG with latents."""

import base64
import binascii
import io
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from PIL import Image, PngImagePlugin
from torch import Tensor

from stylegan.errors import DataError
from stylegan.images import pil_image, png_bytes
from stylegan.latent.saved import SavedLatents, read_latents, write_latents
from stylegan.models.base import AbstractGenerator

Format = Literal["jpeg", "webp", "png"]

QUALITY = 90  # of JPEG and WebP
_LATENTS, _STATE = "stylegan latents", "stylegan state"
"""Keywords of the text chunks with the latents as a base64 `.npz` file, and JSON."""


def moving_format(pixels: Tensor) -> Format:
    """Return the format of pictures while a control moves: JPEG has no alpha."""
    return "webp" if pixels.shape[0] == 4 else "jpeg"


def encode(pixels: Tensor, form: Format) -> bytes:
    """Encode uint8 [C, H, W], C 1, 3 or 4 (RGBA).

    JPEG and WebP have quality 90, JPEG with colors in full resolution.
    """
    if form == "png":
        return png_bytes(pixels, compress_level=1)
    buffer = io.BytesIO()
    options = {"subsampling": 0} if form == "jpeg" else {}
    pil_image(pixels).save(buffer, format=form, quality=QUALITY, **options)
    return buffer.getvalue()


def thumbnail(pixels: Tensor, side: int) -> Tensor:
    """Return uint8 [C, H, W] reduced by a box filter so that neither side exceeds `side`."""
    factor = -(-max(pixels.shape[1:]) // side)
    if factor <= 1:
        return pixels
    means: Tensor = pixels.float().unfold(1, factor, factor).unfold(2, factor, factor).mean((3, 4))
    return means.round().to(pixels.dtype)


def png_with_latents(pixels: Tensor, latents: SavedLatents, state: Mapping[str, object]) -> bytes:
    """Encode uint8 [C, H, W] as PNG, with the latents that it was computed from as text.

    Args:
        pixels: the picture.
        latents: of `latents_in`.
        state: JSON that is stored beside them.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text(_LATENTS, base64.b64encode(npz_bytes(latents)).decode("ascii"), zip=True)
    info.add_text(_STATE, json.dumps(state))
    buffer = io.BytesIO()
    pil_image(pixels).save(buffer, format="png", pnginfo=info)
    return buffer.getvalue()


def latents_in(
    image: Image.Image, generator: AbstractGenerator
) -> tuple[SavedLatents, object] | None:
    """Return the latents and the JSON of a PNG of `png_with_latents`; None if it has none.

    Raises:
        DataError: if they are damaged or do not fit the generator.
    """
    text = image.info.get(_LATENTS)
    if image.format != "PNG" or not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(text, validate=True)
        state = json.loads(str(image.info.get(_STATE, "{}")))
    except (binascii.Error, ValueError, RecursionError):
        raise DataError("the latents in this PNG file are damaged") from None
    return latents_of_npz(data, generator), state


def npz_bytes(latents: SavedLatents) -> bytes:
    """Return latents as the content of an `.npz` file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "latents.npz"
        write_latents(path, latents.ws, noise=latents.noise)
        return path.read_bytes()


def latents_of_npz(data: bytes, generator: AbstractGenerator) -> SavedLatents:
    """Return the latents in the content of an `.npz` file.

    Raises:
        DataError: if the content is damaged or does not fit the generator.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "latents.npz"
        path.write_bytes(data)
        try:
            return read_latents(path, generator)
        except DataError as error:
            text = error.message.replace(f"{path}", "in the file")
            raise DataError(text, expected=error.expected) from None
