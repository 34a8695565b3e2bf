"""The pixels of images as they are stored: channels, depth, range and alpha.

Inside, all images are float32 in [-1, 1]. A `PixelFormat` says what these numbers are in a file,
and converts in both directions. Colors with alpha are premultiplied inside (`alpha.py`).
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan import images, png16
from stylegan.alpha import compose, premultiply, straight
from stylegan.errors import ConfigError
from stylegan.files import npy_bytes

Depth = Literal["uint8", "uint16", "float32"]
"""Type of a channel as it is stored."""

_DTYPES: dict[Depth, torch.dtype] = {
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "float32": torch.float32,
}
_LEVELS: dict[Depth, int] = {"uint8": 255, "uint16": 65535}
UNIT = (0.0, 1.0)
"""Range of float32 pixels, unless another is stated."""
_NAMES = {(1, False): "L", (3, False): "RGB", (4, True): "RGBA"}
_PNG_CHANNELS = (1, 3)


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How pixels are stored.

    Attributes:
        num_channels: from 1: 1 is grey, 3 is RGB, others have no meaning of their own.
        depth: type of a channel.
        range: for float32, the values that become -1 and 1 inside.
        has_alpha: whether the channels are RGBA. Stored colors are straight, not premultiplied.

    Raises:
        ConfigError: if a value is not allowed, or there is alpha without four channels.
    """

    num_channels: int = 3
    depth: Depth = "uint8"
    range: tuple[float, float] = UNIT
    has_alpha: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        if self.num_channels < 1:
            raise ConfigError(f"images need at least 1 channel, got {self.num_channels}")
        if self.depth not in get_args(Depth):
            raise ConfigError(f"depth must be one of {', '.join(get_args(Depth))}")
        if self.has_alpha and self.num_channels != 4:
            raise ConfigError(f"alpha needs 4 channels (RGBA), got {self.num_channels}")
        low, high = self.range
        if not low < high or (self.depth != "float32" and self.range != UNIT):
            raise ConfigError(f"the range {low:g} to {high:g} is not one of {self.depth} pixels")

    @classmethod
    def of_channels(cls, num_channels: int) -> Self:
        """Return the format of networks that record none: uint8, four channels being RGBA."""
        return cls(num_channels=num_channels, has_alpha=num_channels == 4)

    @property
    def mode(self) -> str:
        """The channels: "L", "RGB", "RGBA", or their number."""
        return _NAMES.get((self.num_channels, self.has_alpha), f"{self.num_channels} channels")

    def __str__(self) -> str:
        """Return channels and depth, such as "RGB", "L uint16" or "7 channels float32 [0, 1]"."""
        if self.depth == "uint8":
            return self.mode
        low, high = self.range
        return f"{self.mode} {self.depth}" + (
            f" [{low:g}, {high:g}]" if self.depth == "float32" else ""
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of stored pixels in PyTorch."""
        return _DTYPES[self.depth]

    @property
    def is_plain(self) -> bool:
        """Whether pixels are grey or RGB of 8 bits, which every part of the program shows as is."""
        return self.depth == "uint8" and self.num_channels in _PNG_CHANNELS

    @property
    def suffix(self) -> str:
        """The ending of files that hold the pixels exactly: ".png" where that format can."""
        is_png = self.depth != "float32" and (self.num_channels in _PNG_CHANNELS or self.has_alpha)
        return ".png" if is_png else ".npy"

    @property
    def view(self) -> str | None:
        """The rule of `flat` for this format, for records; None for grey and RGB."""
        if self.has_alpha:
            return "composed on white"
        return None if self.num_channels in _PNG_CHANNELS else "means of three groups of channels"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, from which `from_json` makes an equal format."""
        data: dict[str, Any] = {"channels": self.num_channels, "depth": self.depth}
        if self.depth == "float32":
            data["range"] = list(self.range)
        return data | ({"alpha": True} if self.has_alpha else {})

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Make a format from what `to_json` returned.

        Raises:
            ValueError: if the data is something else.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"no pixel format: {str(data)[:80]}")
        try:
            low, high = data.get("range", UNIT)
            return cls(
                num_channels=int(data["channels"]),
                depth=data["depth"],
                range=(float(low), float(high)),
                has_alpha=bool(data.get("alpha", False)),
            )
        except (KeyError, TypeError, ConfigError) as error:
            raise ValueError(f"no pixel format: {str(data)[:80]}") from error

    def to_float(self, stored: Tensor) -> Tensor:
        """Map stored pixels [..., C, H, W] to float32 in [-1, 1], with premultiplied alpha.

        uint8 u becomes `u / 127.5 - 1`, uint16 `u / 32767.5 - 1`, float32 the same part of its
        range. float32 keeps 24 bits of the range: steps of 2^-16 of it, or more, exactly.

        Raises:
            ValueError: if they are of another type.
        """
        if stored.dtype != self.dtype:
            raise ValueError(f"expected pixels of {self.dtype}, got {stored.dtype}")
        if self.depth == "uint8":
            x = images.from_uint8(stored)
        elif self.depth == "uint16":
            x = stored.to(torch.float32) / 32767.5 - 1
        else:
            low, high = self.range
            x = (stored - (low + high) / 2) / ((high - low) / 2)
        return premultiply(x) if self.has_alpha else x

    def to_stored(self, x: Tensor) -> Tensor:
        """Map float images [..., C, H, W], nominally in [-1, 1], to pixels as they are stored.

        Values outside are clipped. Integers are rounded as in `images.to_uint8`. Colors are divided
        by alpha; transparent pixels get the color of the nearest visible ones.
        """
        x = x.to(torch.float32)
        if self.has_alpha:
            x = straight(x, levels=_LEVELS.get(self.depth, _LEVELS["uint16"]))
        if self.depth == "uint8":
            return images.to_uint8(x)
        if self.depth == "uint16":
            return (x * 32767.5 + 32768).clamp(0, 65535).to(torch.uint16)
        low, high = self.range
        return (x * ((high - low) / 2) + (low + high) / 2).clamp(low, high)

    def shown(self, x: Tensor) -> Tensor:
        """Map float images [..., C, H, W] in [-1, 1] to pictures: uint8 [..., 1, 3 or 4, H, W].

        Grey, RGB and RGBA (straight) stay what they are; others are seen by `as_rgb`.
        """
        if self.has_alpha:
            return PixelFormat(num_channels=4, has_alpha=True).to_stored(x)
        return images.to_uint8(self.flat(x))

    def shown_stored(self, stored: Tensor) -> Tensor:
        """Map stored pixels [..., C, H, W] to pictures, as `shown` does."""
        return stored if self.is_plain else self.shown(self.to_float(stored))

    def as_rgb(self, x: Tensor) -> Tensor:
        """Map float images [..., C, H, W] in [-1, 1] to RGB [..., 3, H, W], as others see them.

        Feature networks, perceptual distances and pictures all use this rule. Grey is repeated.
        RGBA is composed on white. Of 2 or more than 3 channels, red, green and blue are the means
        of the first, the middle and the last third of the channels, which overlap if their number
        is no multiple of 3 (`channel_means`). It can be differentiated.
        """
        if self.has_alpha:
            return compose(x, 1.0)
        if self.num_channels == 1:
            return x.expand(*x.shape[:-3], 3, *x.shape[-2:])
        if self.num_channels == 3:
            return x
        return torch.einsum("rc,...chw->...rhw", channel_means(self.num_channels, 3).to(x), x)

    def flat(self, x: Tensor) -> Tensor:
        """Return grey and RGB images [..., C, H, W] as they are, and others by `as_rgb`."""
        return x if self.num_channels in _PNG_CHANNELS else self.as_rgb(x)

    def seen(self, x: Tensor) -> Tensor:
        """Map float images [..., C, H, W] in [-1, 1] to what feature networks take: uint8.

        [..., 1, H, W] for grey, else [..., 3, H, W].
        """
        return images.to_uint8(self.flat(x))

    def seen_stored(self, stored: Tensor) -> Tensor:
        """Map stored pixels [..., C, H, W] to what feature networks take, as `seen` does."""
        return stored if self.is_plain else self.seen(self.to_float(stored))

    def read(self, path: str | os.PathLike[str]) -> Tensor:
        """Read a file of `file_bytes` as stored pixels [C, H, W]."""
        data = Path(path).read_bytes()
        if self.suffix == ".png" and self.depth == "uint8":
            return images.read(io.BytesIO(data))
        array = np.load(io.BytesIO(data)) if self.suffix == ".npy" else png16.decode(data)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))

    def file_bytes(self, stored: Tensor, *, compress_level: int = 6) -> bytes:
        """Encode stored pixels [C, H, W] as a file that ends in `suffix`, without loss.

        NPY files are [H, W, C].
        """
        if self.suffix == ".npy":
            return npy_bytes(stored.cpu().permute(1, 2, 0).contiguous().numpy())
        if self.depth == "uint16":
            pixels = stored.cpu().permute(1, 2, 0).numpy()
            return png16.encode(pixels, compress_level=compress_level)
        return images.png_bytes(stored, compress_level=compress_level)


@cache
def channel_means(num_from: int, num_to: int) -> Tensor:
    """Return weights [num_to, num_from] by which channels become others: means of neighbors.

    Channel j of the result is the mean of the channels from `floor(j * num_from / num_to)` to
    below `ceil((j + 1) * num_from / num_to)`, as of `adaptive_avg_pool1d`. So 1 is repeated, and 3
    become their mean.
    """
    return F.adaptive_avg_pool1d(torch.eye(num_from), num_to).T.contiguous()
