"""From the labels of a set to the vectors that networks take."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan.data.readers import Label
from stylegan.errors import DataError

MAX_CLASSES = 65536  # a label beyond is somebody's number and no class


class LabelTable:
    """The label of each image as a vector: one-hot for classes, verbatim for lists of numbers.

    Source: the official layout of data sets; one-hot vectors have as many numbers as the largest
    class, from 0, demands.

    Args:
        labels: of each image; None where it has none.
        names: of the images, for the errors.

    Attributes:
        dim: width of a vector.
        has_classes: whether the labels are classes, and so the vectors one-hot.

    Raises:
        DataError: if an image has no label, if classes and lists meet, if a class is negative or
            beyond 65535, or if lists are empty, of several lengths or not finite.
    """

    def __init__(self, labels: Sequence[Label | None], names: Sequence[str]) -> None:
        missing = [name for name, label in zip(names, labels, strict=True) if label is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} images without a label, the first {missing[0]}",
                expected="a label of each image",
                fix="complete dataset.json, or remove these images",
            )
        classes = [label for label in labels if isinstance(label, int)]
        self.has_classes = bool(classes)
        self.dim = max(classes) + 1 if classes else _length(labels[0])
        for name, label in zip(names, labels, strict=True):
            problem = self._problem(label)
            if problem is not None:
                raise DataError(
                    f"{name} with the label {str(label)[:80]}, {problem}",
                    expected=f"classes from 0 to {MAX_CLASSES - 1}, or lists of one length",
                    fix="correct dataset.json",
                )
        # classes stay numbers until a batch needs them: a million times a thousand would be large
        self._values = torch.tensor(labels, dtype=torch.int64 if classes else torch.float32)

    def _problem(self, label: Label | None) -> str | None:
        if isinstance(label, int):
            return None if 0 <= label < MAX_CLASSES else "which is no class"
        if self.has_classes:
            return "among classes"
        if _length(label) == 0 or _length(label) != self.dim:
            return f"of {_length(label)} numbers where the first has {self.dim}"
        is_finite = label is not None and all(math.isfinite(value) for value in label)
        return None if is_finite else "which is not finite"

    def gather(self, indices: Tensor) -> Tensor:
        """Return the labels of images by their indices [N], as float32 [N, dim]."""
        return self.as_vectors(self._values[indices])

    def as_vectors(self, values: Tensor) -> Tensor:
        """Return labels, classes [N] or lists [N, dim], as float32 [N, dim]."""
        return F.one_hot(values, self.dim).to(torch.float32) if self.has_classes else values

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Return the labels of `num` images drawn at random, with replacement: [num, dim].

        Labels come as often as in the set, in the combinations that the set has.
        """
        return self.gather(torch.randint(len(self._values), [num], generator=generator))


def _length(label: Label | None) -> int:
    return len(label) if isinstance(label, tuple) else 0
