"""What the shapes of a file's tensors say about a network, compared with its recorded arguments."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from torch import Tensor

from stylegan.errors import ConfigError, WeightsError
from stylegan.image_size import MIN_BASE_SIDE, ImageSize
from stylegan.interop.restricted import quoted
from stylegan.models.stylegan2 import Architecture
from stylegan.nn.mapping import LR_MULTIPLIER

Shapes = Mapping[str, list[int]]


def refusal(message: str, expected: str | None) -> WeightsError:
    """Return the error for a file that cannot be used, and not be repaired either."""
    return WeightsError(
        message, expected=expected, fix="docs/weights.md lists the files that can be read"
    )


@contextmanager
def refusing_impossible_configs(origin: str) -> Iterator[None]:
    """Turn a ConfigError about options read from a file into a WeightsError about the file."""
    try:
        yield
    except ConfigError as error:
        raise refusal(f"{origin}: {error.message}", error.expected) from error


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the shape of each tensor."""
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def resolutions_of(names: Iterable[str], pattern: str, origin: str) -> list[int]:
    """Return the nominal resolutions of a network's blocks, from 4 up, in rising order.

    Args:
        names: names of the tensors.
        pattern: regular expression for the start of a name; its first group is a resolution.
        origin: the file and network, for the error.

    Raises:
        WeightsError: if they are not 4, 8, 16 and so on.
    """
    compiled = re.compile(pattern)
    resolutions = sorted({int(match[1]) for match in map(compiled.match, names) if match})
    if len(resolutions) < 2 or resolutions != [4 << level for level in range(len(resolutions))]:
        raise refusal(f"{origin} has blocks at {resolutions[:20]}", "blocks at 4, 8, 16 and so on")
    return resolutions


def size_from_constant(shapes: Shapes, name: str, resolutions: list[int], origin: str) -> ImageSize:
    """Return the size of a generator's images, from its constant [..., h0, w0].

    Args:
        shapes: of the tensors.
        name: of the constant.
        resolutions: nominal resolutions of the blocks.
        origin: the file and network, for the error.

    Raises:
        WeightsError: if no network of ours has this base.
    """
    base = ImageSize(size_of(shapes, name, -2, origin), size_of(shapes, name, -1, origin))
    return _full_size(base, resolutions, origin)


def size_from_dense(
    num_features: int,
    channels: int,
    resolutions: list[int],
    origin: str,
    *,
    generated: ImageSize | None = None,
) -> ImageSize:
    """Return the size of images from the width of a dense layer at the base, channels * h0 * w0.

    Args:
        num_features: the width of the layer.
        channels: channels at the base.
        resolutions: nominal resolutions of the blocks.
        origin: the file and network, for the error.
        generated: size of the images of a generator in the same file. It decides where several
            bases have the same number of pixels.

    Raises:
        WeightsError: if no base fits, or several do.
    """
    num_pixels, rest = divmod(num_features, max(channels, 1))
    bases = [
        ImageSize(height, num_pixels // height)
        for height in range(MIN_BASE_SIDE, num_pixels // MIN_BASE_SIDE + 1)
        if num_pixels % height == 0
    ]
    bases = [base for base in bases if base.doublings == 0 and base.is_usable]
    if rest or not bases:
        raise refusal(
            f"{origin} has a dense layer of {num_features} numbers for {channels} channels",
            "channels times 16, for a base of 4x4",
        )
    if generated is not None and generated.base in bases:
        bases = [generated.base]
    if len(bases) > 1:
        raise refusal(
            f"{origin} is non-square, base {' or '.join(map(str, bases))}, which its tensors do "
            "not tell apart",
            "a base of 4x4, or a generator with a constant in the same file",
        )
    return _full_size(bases[0], resolutions, origin)


def _full_size(base: ImageSize, resolutions: list[int], origin: str) -> ImageSize:
    num = len(resolutions) - 1
    size = ImageSize(base.height << num, base.width << num)
    if size.base != base or not size.is_usable:
        kind = "square" if base.is_square else "non-square"
        raise refusal(f"{origin} is {kind}, base {base}", "a base of 4x4, or such as 3x5")
    return size


def recorded_size(size: ImageSize) -> int | None:
    """Return the resolution that a file records; None for sizes that no official program has."""
    return size.nominal if size.is_power_of_two else None


def size_of(shapes: Shapes, name: str, axis: int, origin: str) -> int:
    """Return one size of a tensor, which must exist; negative axes count from the last."""
    shape = shapes.get(name, [])
    if not -len(shape) <= axis < len(shape):
        num = axis + 1 if axis >= 0 else -axis
        raise refusal(
            f"{origin} has no tensor {name} of {num} or more axes", "a network of a known kind"
        )
    return shape[axis]


def count_layers(shapes: Mapping[str, object], prefix: str, suffix: str, *, start: int = 0) -> int:
    """Count the tensors `prefix{start}suffix`, `prefix{start + 1}suffix` and so on."""
    num = 0
    while f"{prefix}{start + num}{suffix}" in shapes:
        num += 1
    return num


def architecture_of(shapes: Mapping[str, object], rgb_at_4: str, skip_at_top: str) -> Architecture:
    """Return the architecture: only "skip" has RGB at 4x4, only "resnet" residual branches."""
    if rgb_at_4 in shapes:
        return "skip"
    return "resnet" if skip_at_top in shapes else "orig"


def check_agreement(
    values: Mapping[str, object], recorded: Mapping[str, object], origin: str
) -> None:
    """Raise WeightsError if a file's arguments contradict its tensors.

    Args:
        values: what the tensors say, by the arguments' names in the file; None if that cannot be
            compared.
        recorded: the file's arguments; missing ones and None are not compared.
        origin: the file and network, for the error.
    """
    for name, value in values.items():
        argument = recorded.get(name)
        # Compare plain values only: == of a tensor is not a truth value.
        is_plain = isinstance(argument, str | int | float)
        if None not in (argument, value) and not (is_plain and argument == value):
            raise refusal(
                f"{origin} says {name} = {quoted(argument)}, its tensors say {quoted(value)}",
                "arguments that agree with the tensors",
            )


def check_supported(
    supported: Mapping[str, object], recorded: Mapping[str, object], origin: str
) -> None:
    """Raise WeightsError if a file's arguments select a computation that our networks lack."""
    for name, value in supported.items():
        argument = recorded.get(name)
        argument = list(argument) if isinstance(argument, tuple) else argument
        is_plain = isinstance(argument, str | int | float) or (
            isinstance(argument, list) and all(isinstance(item, int | float) for item in argument)
        )
        if argument is not None and not (is_plain and argument == value):
            raise refusal(
                f"{origin} was made with {name} = {quoted(argument)}", f"{name} = {value}"
            )


def lr_ratio(multiplier: object, origin: str) -> float:
    """Return a file's learning-rate multiplier of a mapping layer, divided by ours.

    Layers compute with their stored numbers times the multiplier, so our layers store the file's
    numbers times this ratio.

    Raises:
        WeightsError: if the multiplier is not a number above 0, up to 1000.
    """
    is_number = isinstance(multiplier, int | float) and not isinstance(multiplier, bool)
    if not is_number or not 0 < cast(float, multiplier) <= 1000:
        raise refusal(
            f"{origin} has learning-rate multiplier {quoted(multiplier)}", "a number above 0"
        )
    ratio = cast(float, multiplier) / LR_MULTIPLIER
    return 1.0 if math.isclose(ratio, 1) else ratio


def channels_of(
    widths: Mapping[int, int], recorded: Mapping[str, object], origin: str
) -> tuple[int, int]:
    """Return channel_base and channel_max for which min(channel_base // r, channel_max) fits.

    If the file does not record them and the official defaults do not fit, the smallest
    channel_base that fits is used.

    Args:
        widths: channels of the blocks by resolution r.
        recorded: the file's arguments.
        origin: the file and network, for the error.
    """
    smallest = max(r * width for r, width in widths.items()), max(widths.values())
    bases = [recorded["channel_base"]] if "channel_base" in recorded else [32768, smallest[0]]
    maxima = [recorded["channel_max"]] if "channel_max" in recorded else [512, smallest[1]]
    for base, top in itertools.product(bases, maxima):
        if not isinstance(base, int) or not isinstance(top, int):
            continue
        if all(min(base // r, top) == width for r, width in widths.items()):
            return base, top
    raise refusal(
        f"{origin} has channels {dict(sorted(widths.items()))} by resolution, for channel_base "
        f"{quoted(bases[0])} and channel_max {quoted(maxima[0])}",
        "min(channel_base // r, channel_max) channels at resolution r",
    )
