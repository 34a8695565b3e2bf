"""The size of images: height, width, and how often both can be halved.

Networks start at a base of h0 x w0 pixels and double it k times: 64x64 is (4x4) * 2^4, and 384x512
is (3x4) * 2^7. A block after i doublings has the nominal resolution 4 * 2^i, whatever the base. It
decides the block's name (`b4`, `b8`, ...), channels, batch size and learning rate, so that networks
for square and other images of about the same area have the same layers.
"""

import re
from dataclasses import dataclass

from stylegan.errors import ConfigError

Resolution = int | str
"""An image size as options and files have it: the side of square images, or "HEIGHTxWIDTH"."""

MIN_BASE_SIDE = 3
"""Shortest side of a base, in pixels."""
MAX_BASE_PIXELS = 256
"""Largest base of a network, in pixels: 16 times the square one."""
MIN_NATIVE_DOUBLINGS = 3
"""Doublings of sizes other than square ones that are used without being asked for."""
SMALLEST = 4
"""Nominal resolution of the base."""


@dataclass(frozen=True, order=True)
class ImageSize:
    """Height and width of images, in pixels.

    Attributes:
        height: in pixels.
        width: in pixels.
    """

    height: int
    width: int

    @classmethod
    def of(cls, value: "Resolution | ImageSize") -> "ImageSize":
        """Return the size of an option: 64, "64" or "64x64", or "96x160" (height x width).

        Raises:
            ConfigError: if the text is of another form.
        """
        if isinstance(value, ImageSize):
            return value
        match = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", str(value).strip(), re.ASCII)
        if match is None or isinstance(value, bool):
            raise ConfigError(
                "the resolution must be one number or HEIGHTxWIDTH, such as 64 or 96x160, got "
                f"{str(value)[:40]!r}"
            )
        return cls(int(match[1]), int(match[2] or match[1]))

    @property
    def doublings(self) -> int:
        """Number of doublings from the base, k."""
        height, width, num = self.height, self.width, 0
        while height % 2 == width % 2 == 0 and min(height, width) >= 2 * MIN_BASE_SIDE:
            height, width, num = height // 2, width // 2, num + 1
        return num

    @property
    def base(self) -> "ImageSize":
        """The size before all doublings, h0 x w0: the smallest one with no side below 3."""
        return self.reduced(1 << self.doublings)

    @property
    def nominal(self) -> int:
        """Nominal resolution, 4 * 2^k; for a base of 4x4 the side of the image."""
        return SMALLEST << self.doublings

    @property
    def num_pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def is_square(self) -> bool:
        """Whether height and width are equal."""
        return self.height == self.width

    @property
    def is_power_of_two(self) -> bool:
        """Whether both sides are the same power of two, from 4: the sizes of published networks."""
        return self.is_square and self.base == ImageSize(SMALLEST, SMALLEST)

    @property
    def is_usable(self) -> bool:
        """Whether the base is small enough for a network."""
        base = self.base
        return min(base.height, base.width) >= MIN_BASE_SIDE and base.num_pixels <= MAX_BASE_PIXELS

    @property
    def is_native(self) -> bool:
        """Whether images of this size are used as they are if no resolution is given."""
        if self.is_square:
            return self.is_power_of_two
        return self.is_usable and self.doublings >= MIN_NATIVE_DOUBLINGS

    @property
    def stored(self) -> Resolution:
        """The value in files and options: one number for square images, else "HEIGHTxWIDTH"."""
        return self.height if self.is_square else str(self)

    def at(self, resolution: int) -> "ImageSize":
        """Return the size of the block of a nominal resolution: 4, 8, 16 and so on."""
        base = self.base
        return ImageSize(base.height * resolution // SMALLEST, base.width * resolution // SMALLEST)

    def reduced(self, factor: int) -> "ImageSize":
        """Return the size divided by a factor."""
        return ImageSize(self.height // factor, self.width // factor)

    def factor_to(self, smaller: "ImageSize") -> int | None:
        """Return the power of two by which a size is smaller than this; None if there is none."""
        factor = max(self.height // max(smaller.height, 1), 1)
        is_power = factor & (factor - 1) == 0
        is_exact = (smaller.height * factor, smaller.width * factor) == (self.height, self.width)
        return factor if is_power and is_exact else None

    def __str__(self) -> str:
        """Return "HEIGHTxWIDTH"."""
        return f"{self.height}x{self.width}"


def stored_resolution(value: Resolution | ImageSize) -> Resolution:
    """Return a resolution in the form of `ImageSize.stored`.

    Raises:
        ConfigError: if it is of another form, see `ImageSize.of`.
    """
    return ImageSize.of(value).stored


def require_usable(value: Resolution | ImageSize, *, doublings: int = 0) -> ImageSize:
    """Return a size that networks can have.

    Args:
        value: height and width.
        doublings: the smallest number of doublings from the base.

    Raises:
        ConfigError: if the base is too small or too large, or there are fewer doublings.
    """
    size = ImageSize.of(value)
    if not size.is_usable or size.doublings < doublings:
        raise ConfigError(
            f"the resolution {size.stored} is ({size.base}) * 2^{size.doublings}; networks need a "
            f"base with sides of {MIN_BASE_SIDE} or more and at most {MAX_BASE_PIXELS} pixels"
            + (f", and {doublings} or more doublings" if doublings else ""),
            fix=f"choose {usable_below(size, doublings=max(doublings, 1)).stored}",
        )
    return size


def usable_below(size: ImageSize, *, doublings: int = 1) -> ImageSize:
    """Return the usable size with the most pixels that is not above a size in either side.

    For the same number of pixels, it is the one with more doublings. At least the smallest square.
    """
    best = ImageSize(SMALLEST << doublings, SMALLEST << doublings)
    for num in range(doublings, max(size.height, size.width).bit_length()):
        height, width = size.height >> num << num, size.width >> num << num
        candidate = ImageSize(height, width)
        is_larger = candidate.num_pixels >= best.num_pixels
        if min(height, width) > 0 and candidate.is_usable and is_larger:
            best = candidate if candidate.doublings >= doublings else best
    return best
