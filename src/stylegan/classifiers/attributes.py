"""Binary attributes of images, derived from the labels of a set."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stylegan.data.dataset import ImageDataset
from stylegan.data.label_files import read_labels
from stylegan.data.labels import LabelTable
from stylegan.data.sources.files import LABELS_NAME
from stylegan.data.sources.open import open_source
from stylegan.errors import ConfigError, DataError, did_you_mean

CELEBA = "celeba"
CELEBA_NAMES = (
    "5-o-clock-shadow",
    "arched-eyebrows",
    "attractive",
    "bags-under-eyes",
    "bald",
    "bangs",
    "big-lips",
    "big-nose",
    "black-hair",
    "blond-hair",
    "blurry",
    "brown-hair",
    "bushy-eyebrows",
    "chubby",
    "double-chin",
    "eyeglasses",
    "goatee",
    "gray-hair",
    "heavy-makeup",
    "high-cheekbones",
    "male",
    "mouth-slightly-open",
    "mustache",
    "narrow-eyes",
    "no-beard",
    "oval-face",
    "pale-skin",
    "pointy-nose",
    "receding-hairline",
    "rosy-cheeks",
    "sideburns",
    "smiling",
    "straight-hair",
    "wavy-hair",
    "wearing-earrings",
    "wearing-hat",
    "wearing-lipstick",
    "wearing-necklace",
    "wearing-necktie",
    "young",
)
"""CelebA's attributes in the order of its annotations. The official classifiers use the same names
in another order, so forty numbers alone do not identify the attributes.

Source: Liu et al. 2015, "Deep Learning Face Attributes in the Wild"."""
HELD_OUT = 10  # one of this number of images is held out
_MAX_SLUG = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribute:
    """A binary attribute of each image of a set.

    Args:
        index: position in lists of numbers, or class.
        name: such as "wavy-hair".
        has: bool [N], whether each image has it, in the set's order, without mirrored images.
    """

    index: int
    name: str
    has: Tensor = field(repr=False)

    @property
    def slug(self) -> str:
        """Name of a folder, such as "03-wavy-hair"; sorts by index below 100."""
        words = re.sub(r"[^a-z0-9]+", "-", self.name.lower())[:_MAX_SLUG].strip("-")
        return f"{self.index:02d}-{words}" if words else f"{self.index:02d}"


def find_attributes(
    dataset: ImageDataset, *, path: str, names: str | None = None, selection: str | None = None
) -> list[Attribute]:
    """Return the attributes that the labels of a set define.

    If labels are lists of numbers, each position is an attribute, with 0 and 1, or -1 and 1, for no
    and yes. If labels are classes, each class is an attribute, against all others; of two classes
    only the second, as the first is its opposite.

    Args:
        dataset: the images.
        path: of the images: `dataset.json` may name the positions in a list "attributes", and
            `prepare.json`, written with `--labels-from folders`, names classes.
        names: of all positions or classes, separated by commas, or "celeba". None: those of the
            set, else numbers.
        selection: names, indices and ranges of attributes, such as 0-9, separated by commas. None:
            all.

    Raises:
        ConfigError: if the number of names differs from that of attributes, a name occurs twice, or
            a name or index in `selection` does not exist.
        DataError: if an image has no label, labels are inconsistent, a position holds other
            numbers, or fewer than two images have, or do not have, an attribute.
    """
    table = dataset.label_table
    if table is None:
        raise DataError(
            f"{path} has no labels to learn attributes from",
            fix="write dataset.json with a class, or a list of 0 and 1, for each image; or run "
            "`stylegan data prepare --labels-from folders`",
        )
    named = _names(path, table, names)
    # classes as numbers: a million images times a thousand classes would be large
    values = torch.tensor(dataset.labels)
    indices = list(range(table.dim))
    if table.has_classes:
        indices = sorted(set(values.tolist()))
        indices = indices[1:] if len(indices) == 2 else indices
    attributes = []
    for index in indices if selection is None else _choose(selection, indices, named):
        name = named[index]
        has = values == index if table.has_classes else _yes(values[:, index], index, name)
        if min(num_with := int(has.sum()), len(has) - num_with) < 2:
            raise DataError(
                f"the attribute {name} needs at least two images that have it and two that do "
                f"not, got {num_with} and {len(has) - num_with}; leave it out with --attributes"
            )
        attributes.append(Attribute(index=index, name=name, has=has))
    return attributes


def split(
    attribute: Attribute, image_names: Sequence[str], *, seed: int
) -> tuple[list[int], list[int]]:
    """Split a set into images to train on and held-out images.

    A tenth of the images that have the attribute is held out, and a tenth of the others; at least
    one of each. The split depends only on the images' names and the seed, so it is similar for all
    attributes.

    Returns:
        Indices to train on, in the set's order, and held-out indices.
    """

    def key(index: int) -> bytes:
        text = f"{seed}/{image_names[index]}"
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape")).digest()

    held_out: list[int] = []
    for kind in (attribute.has, ~attribute.has):
        members = sorted(kind.nonzero().flatten().tolist(), key=key)
        held_out += members[: max(1, len(members) // HELD_OUT)]
    rest = set(range(len(image_names))) - set(held_out)
    return sorted(rest), sorted(held_out)


def area_under_curve(scores: Tensor, has: Tensor) -> float:
    """Return the area under the ROC curve: the fraction of pairs that the scores order correctly.

    A pair is an image that has the attribute and one that does not. Ties count half. (scikit-learn
    would do, but training classifiers works without that extra.)

    Source: Mann and Whitney 1947, "On a Test of Whether one of Two Random Variables is
    Stochastically Larger than the Other": the statistic U, divided by its maximum.

    Args:
        scores: [N], finite.
        has: bool [N].

    Raises:
        ValueError: if all images have the attribute, or none.
    """
    num_with, num_without = int(has.sum()), int((~has).sum())
    if num_with == 0 or num_without == 0:
        raise ValueError("area_under_curve needs images with and without the attribute")
    _, place, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0) - (counts.double() - 1) / 2  # ties get their mean rank
    u = ranks[place[has]].sum() - num_with * (num_with + 1) / 2
    return float(u / (num_with * num_without))


def _yes(values: Tensor, index: int, name: str) -> Tensor:
    """Return the numbers of a position as bool."""
    if not bool(((values == 0) | (values == 1)).all() | (values.abs() == 1).all()):
        other = values[(values != 0) & (values != 1)][0].item()
        raise DataError(
            f"the labels of attribute {name}, position {index}, must be 0 and 1, or -1 and 1, "
            f"got {other:g}; leave it out with --attributes"
        )
    return values > 0


def _names(path: str, table: LabelTable, given: str | None) -> list[str]:
    """Return the name of each position or class."""
    if given is not None:
        names = list(CELEBA_NAMES) if given == CELEBA else [n.strip() for n in given.split(",")]
        origin = "--names"
    else:
        names = _names_of_set(path, table)
        origin = f"{LABELS_NAME} in {path}"
    if len(names) != table.dim:
        raise ConfigError(
            f"{origin} must have {table.dim} names, one for each "
            f"{'class' if table.has_classes else 'position of the labels'}, got {len(names)}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two attributes have the name {twice[0]!r}")
    return names


def _names_of_set(path: str, table: LabelTable) -> list[str]:
    """Return the names of attributes or classes in the files of a set, else numbers."""
    labels = read_labels(open_source(path))
    if labels is not None and labels.attributes:
        return list(labels.attributes)
    if labels is not None and table.has_classes and len(set(labels.classes)) == table.dim:
        return list(labels.classes)
    kind = "class" if table.has_classes else "attribute"
    return [f"{kind}-{index}" for index in range(table.dim)]


def _choose(selection: str, indices: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return the sorted indices for a text of names, indices and ranges."""
    by_name = {names[index]: index for index in indices}
    chosen: set[int] = set()
    for word in filter(None, (word.strip() for word in selection.split(","))):
        ends = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", word)
        if word in by_name:
            chosen.add(by_name[word])
        elif ends is not None:
            first, last = int(ends[1]), int(ends[2] or ends[1])
            missing = [index for index in (first, last) if index not in indices]
            if missing or last < first:
                raise _unknown(word, indices, names)
            chosen.update(index for index in indices if first <= index <= last)
        else:
            raise _unknown(word, indices, names)
    if not chosen:
        raise _unknown(selection, indices, names)
    return sorted(chosen)


def _unknown(word: str, indices: Sequence[int], names: Sequence[str]) -> ConfigError:
    known = [f"{index} {names[index]}" for index in indices]
    hint = did_you_mean(word, [names[index] for index in indices])
    listed = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    return ConfigError(f"there is no attribute {word!r}; the attributes are {listed}{hint}")
