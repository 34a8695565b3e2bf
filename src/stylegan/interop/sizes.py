"""What the shapes of a file's tensors say about a network, checked against what the file says."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import cast

from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop.restricted import shown
from stylegan.models.stylegan2 import Architecture
from stylegan.nn.mapping import LR_MULTIPLIER

Shapes = Mapping[str, list[int]]


def refusal(found: str, expected: str | None) -> WeightsError:
    """Say what is wrong with a file that cannot be repaired."""
    return WeightsError(
        found, expected=expected, fix="use a file of a kind that docs/weights.md lists"
    )


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the shape of each tensor."""
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def resolutions_of(names: Iterable[str], pattern: str, origin: str) -> list[int]:
    """List the resolutions of a network's blocks, from 4 up, in rising order.

    Args:
        names: of the tensors.
        pattern: regular expression for the start of a name; its first group is a resolution.
        origin: where the names come from, for the error.

    Raises:
        WeightsError: if they are not 4, 8, 16 and so on.
    """
    compiled = re.compile(pattern)
    found = sorted({int(match[1]) for match in map(compiled.match, names) if match})
    if len(found) < 2 or found != [4 << level for level in range(len(found))]:
        raise refusal(f"{origin} has blocks at {found[:20]}", "blocks at 4, 8, 16 and so on")
    return found


def size_of(shapes: Shapes, name: str, axis: int, origin: str) -> int:
    """Return one size of a tensor that must be there; negative axes count from the last."""
    shape = shapes.get(name, [])
    if not -len(shape) <= axis < len(shape):
        num = axis + 1 if axis >= 0 else -axis
        raise refusal(
            f"{origin} has no tensor {name} of {num} or more axes", "a network of a known kind"
        )
    return shape[axis]


def count(shapes: Mapping[str, object], prefix: str, suffix: str, *, start: int = 0) -> int:
    """Count the tensors `prefix{start}suffix`, `prefix{start + 1}suffix` and so on."""
    num = 0
    while f"{prefix}{start + num}{suffix}" in shapes:
        num += 1
    return num


def architecture_of(shapes: Mapping[str, object], rgb_at_4: str, skip_at_top: str) -> Architecture:
    """Tell the three architectures apart by what only one of them has."""
    if rgb_at_4 in shapes:
        return "skip"
    return "resnet" if skip_at_top in shapes else "orig"


def agree(found: Mapping[str, object], said: Mapping[str, object], origin: str) -> None:
    """Refuse a file whose arguments contradict its tensors, or what we compute.

    Args:
        found: what must be so, by the name that the file calls it.
        said: the file's arguments; what is not in it, or None, is not compared.
        origin: the file and network, for the error.
    """
    for name, value in found.items():
        told = said.get(name)
        # What is told may be anything, a tensor too, whose == is no yes or no.
        if told is not None and not (isinstance(told, str | int | float) and told == value):
            raise refusal(
                f"{origin} says {name} = {shown(told)}, its tensors say {shown(value)}",
                "arguments that agree with the tensors",
            )


def lr_ratio(multiplier: object, origin: str) -> float:
    """Return a file's learning-rate multiplier of a mapping layer, divided by ours.

    Layers compute with their stored numbers times the multiplier, so that ours must store the
    file's numbers times this ratio.

    Raises:
        WeightsError: if the multiplier is not a number from above 0 to 1000.
    """
    is_number = isinstance(multiplier, int | float) and not isinstance(multiplier, bool)
    if not is_number or not 0 < cast(float, multiplier) <= 1000:
        raise refusal(
            f"{origin} has learning-rate multiplier {shown(multiplier)}", "a number above 0"
        )
    ratio = cast(float, multiplier) / LR_MULTIPLIER
    return 1.0 if math.isclose(ratio, 1) else ratio


def usual(expected: Mapping[str, object], said: Mapping[str, object], origin: str) -> None:
    """Refuse a file whose arguments ask for a computation that none of our networks does."""
    for name, value in expected.items():
        told = said.get(name)
        told = list(told) if isinstance(told, tuple) else told
        is_plain = isinstance(told, str | int | float) or (
            isinstance(told, list) and all(isinstance(item, int | float) for item in told)
        )
        if told is not None and not (is_plain and told == value):
            raise refusal(f"{origin} was made with {name} = {shown(told)}", f"{name} = {value}")


def channels_of(
    widths: Mapping[int, int], said: Mapping[str, object], origin: str
) -> tuple[int, int]:
    """Find channel_base and channel_max so that min(channel_base // r, channel_max) is the width.

    Where the file does not say and the official defaults do not fit, the smallest channel_base
    that does is taken.
    """
    smallest = max(r * width for r, width in widths.items()), max(widths.values())
    bases = [said.get("channel_base")] if "channel_base" in said else [32768, smallest[0]]
    maxima = [said.get("channel_max")] if "channel_max" in said else [512, smallest[1]]
    for base, top in itertools.product(bases, maxima):
        if not isinstance(base, int) or not isinstance(top, int):
            continue
        if all(min(base // r, top) == width for r, width in widths.items()):
            return base, top
    raise refusal(
        f"{origin} has channels {dict(sorted(widths.items()))} by resolution, for channel_base "
        f"{shown(bases[0])} and channel_max {shown(maxima[0])}",
        "min(channel_base // r, channel_max) channels at resolution r",
    )
