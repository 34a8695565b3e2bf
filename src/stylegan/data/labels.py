"""Labels of the images of a set, and their vectors for networks."""

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan.errors import DataError

Label = int | tuple[float, ...]

MAX_CLASSES = 65536  # larger numbers are not taken for classes
_MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of the images of a source.

    Attributes:
        by_name: the label of each image, by its name in the source. Images can be missing.
        classes: the names of the classes, by number; empty if they are not known.
        attributes: the names of the positions of vectors; empty if they are not known.
    """

    by_name: Mapping[str, Label]
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()

    def class_table(self) -> str:
        """Return a line for each class: its number, its name and the number of its images."""
        counts = Counter(label for label in self.by_name.values() if isinstance(label, int))
        names = dict(enumerate(self.classes))
        lines = [f"class {number} {names.get(number, '')}".rstrip() for number in sorted(counts)]
        lines = [
            f"{line}: {counts[number]} images"
            for line, number in zip(lines, sorted(counts), strict=True)
        ]
        if len(lines) > _MAX_LISTED:
            lines[_MAX_LISTED:] = [f"and {len(lines) - _MAX_LISTED} more classes"]
        return "\n".join(lines)


class LabelTable:
    """The label of each image as a vector: one-hot for classes, else the list of numbers.

    Source: the official layout of data sets. One-hot vectors are as long as the largest class
    plus 1.

    Args:
        labels: of each image; None for an image without one.
        names: of the images, for error messages.

    Attributes:
        dim: width of a vector.
        has_classes: whether the labels are classes, so that the vectors are one-hot.

    Raises:
        DataError: if an image has no label, there are both classes and lists, a class is negative
            or above 65535, or lists are empty, of several lengths or not finite.
    """

    def __init__(self, labels: Sequence[Label | None], names: Sequence[str]) -> None:
        missing = [name for name, label in zip(names, labels, strict=True) if label is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} images have no label, the first is {missing[0]}",
                fix="complete dataset.json, or remove these images",
            )
        classes = [label for label in labels if isinstance(label, int)]
        self.has_classes = bool(classes)
        self.dim = max(classes) + 1 if classes else _length(labels[0])
        for name, label in zip(names, labels, strict=True):
            problem = self._problem(label)
            if problem is not None:
                raise DataError(
                    f"{name} has the label {str(label)[:80]}, {problem}; labels must be classes "
                    f"from 0 to {MAX_CLASSES - 1}, or lists of one length"
                )
        # one-hot vectors are made per batch, as a million images of a thousand classes need 4 GB
        self._values = torch.tensor(labels, dtype=torch.int64 if classes else torch.float32)

    def _problem(self, label: Label | None) -> str | None:
        if isinstance(label, int):
            return None if 0 <= label < MAX_CLASSES else "which is not a class"
        if self.has_classes:
            return "while others are classes"
        if _length(label) == 0 or _length(label) != self.dim:
            return f"which has {_length(label)} numbers, while the first has {self.dim}"
        is_finite = label is not None and all(math.isfinite(value) for value in label)
        return None if is_finite else "which is not finite"

    def gather(self, indices: Tensor) -> Tensor:
        """Return the labels of images by their indices [N], as float32 [N, dim]."""
        return self.as_vectors(self._values[indices])

    def subset(self, indices: Sequence[int]) -> "LabelTable":
        """Return the labels of some images, as vectors of the same width."""
        part = copy.copy(self)
        part._values = self._values[list(indices)]
        return part

    def as_vectors(self, values: Tensor) -> Tensor:
        """Return classes [N] or lists [N, dim] as float32 vectors [N, dim]."""
        return F.one_hot(values, self.dim).to(torch.float32) if self.has_classes else values

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Return the labels of `num` images drawn at random with replacement, [num, dim]."""
        return self.gather(torch.randint(len(self._values), [num], generator=generator))


def _length(label: Label | None) -> int:
    return len(label) if isinstance(label, tuple) else 0
