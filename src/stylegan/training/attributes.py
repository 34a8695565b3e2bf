"""Attributes: yes-or-no questions about images, read off labels, and how well one is answered."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import LabelTable
from stylegan.data.readers import LABELS_NAME, RECORD_NAME, open_source
from stylegan.errors import ConfigError, DataError

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
"""CelebA's attributes in the order of its annotations. The official classifiers have the same
names and count them otherwise, so forty numbers alone do not tell which is which.

Source: Liu et al. 2015, "Deep Learning Face Attributes in the Wild"."""
HELD_OUT = 10  # one image of so many is kept from training
_MAX_SLUG = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribute:
    """A question about each image of a set.

    Args:
        index: place in lists of numbers, or class.
        name: such as "wavy-hair".
        has: bool [N], of each image without mirrored ones, in the set's order.
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
    dataset: ImageDataset, *, path: str, names: str | None = None, wanted: str | None = None
) -> list[Attribute]:
    """Read attributes off the labels of a set.

    In lists of numbers each place is one, with 0 and 1 or -1 and 1 for no and yes. Of classes each
    is one, against all the rest; of two classes the second alone, as the first is its opposite.

    Args:
        dataset: the images.
        path: where they come from: `dataset.json` may name the places in a list "attributes",
            and the record of `stylegan data prepare --labels-from folders` names classes.
        names: of all places or classes, separated by commas, or "celeba"; None takes those of the
            set, or numbers.
        wanted: which attributes: names, indices and ranges of them such as 0-9, separated by
            commas; None takes all.

    Raises:
        ConfigError: if there are more or fewer names than attributes, a name twice, or none of
            the name or index that is wanted.
        DataError: if an image has no label, labels do not go together, a place holds other
            numbers, or an attribute has fewer than two images of either kind.
    """
    table = dataset.label_table
    if table is None:
        raise DataError(
            f"{path} has no labels to learn attributes from",
            expected="a class, or a list of 0 and 1, of each image in dataset.json",
            fix="write them, or `stylegan data prepare --labels-from folders`",
        )
    named = _names(path, table, names)
    # classes as numbers: a million images times a thousand classes would be large
    values = torch.tensor(dataset.labels)
    indices = list(range(table.dim))
    if table.has_classes:
        indices = sorted(set(values.tolist()))
        indices = indices[1:] if len(indices) == 2 else indices
    found = []
    for index in indices if wanted is None else _choose(wanted, indices, named):
        name = named[index]
        has = values == index if table.has_classes else _yes(values[:, index], index, name)
        if min(num_with := int(has.sum()), len(has) - num_with) < 2:
            raise DataError(
                f"the attribute {name} with {num_with} images that have it, "
                f"and {len(has) - num_with} that do not",
                expected="two of each, to train on one and test on the other",
                fix="leave it out by --attributes, or add images",
            )
        found.append(Attribute(index=index, name=name, has=has))
    return found


def split(
    attribute: Attribute, image_names: Sequence[str], *, seed: int
) -> tuple[list[int], list[int]]:
    """Choose which images to train on and which to test on.

    Of the images that have the attribute a tenth is held out, and of the others as well; at least
    one of each. It depends on the images' names and the seed alone, so it is nearly the same for
    all attributes.

    Returns:
        Indices to train on, in the set's order, and indices held out.
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
    """Return the share of pairs in which the image that has it scores higher; ties count half.

    Source: Mann and Whitney 1947, "On a Test of Whether one of Two Random Variables is
    Stochastically Larger than the Other": the statistic U, as a share of its largest value.

    Args:
        scores: [N], finite.
        has: bool [N].

    Raises:
        ValueError: if all have it, or none.
    """
    num_with, num_without = int(has.sum()), int((~has).sum())
    if num_with == 0 or num_without == 0:
        raise ValueError("area_under_curve needs images of both kinds")
    _, place, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0) - (counts.double() - 1) / 2  # of equal scores the mean of their ranks
    u = ranks[place[has]].sum() - num_with * (num_with + 1) / 2
    return float(u / (num_with * num_without))


def _yes(values: Tensor, index: int, name: str) -> Tensor:
    """Turn the numbers of a place to bool, or refuse them."""
    if not bool(((values == 0) | (values == 1)).all() | (values.abs() == 1).all()):
        other = values[(values != 0) & (values != 1)][0].item()
        raise DataError(
            f"the attribute {name} has {other:g} in place {index} of a label",
            expected="0 and 1, or -1 and 1, for no and yes",
            fix="correct dataset.json, or leave it out by --attributes",
        )
    return values > 0


def _names(path: str, table: LabelTable, given: str | None) -> list[str]:
    """Return the name of each place or class."""
    if given is not None:
        names = list(CELEBA_NAMES) if given == CELEBA else [n.strip() for n in given.split(",")]
        origin = f"--names with {len(names)} names"
    else:
        names = _names_of_set(path, table)
        origin = f"{LABELS_NAME} in {path} with {len(names)} names of attributes"
    if len(names) != table.dim:
        raise ConfigError(
            origin,
            expected=f"{table.dim}, one for each {'class' if table.has_classes else 'place'}",
            fix="name all, in the order of the labels",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two attributes of the name {twice[0]!r}", expected="a name each", fix="rename one"
        )
    return names


def _names_of_set(path: str, table: LabelTable) -> list[str]:
    """Return the names that a set gives its attributes or classes, else numbers."""
    source = open_source(path)
    content = source.read_json(LABELS_NAME)
    names = content.get("attributes") if isinstance(content, dict) else None
    if isinstance(names, list) and names:
        return [str(name) for name in names]
    record = source.read_json(RECORD_NAME) if table.has_classes else None
    classes = record.get("classes") if isinstance(record, dict) else None
    if isinstance(classes, list) and len(set(map(str, classes))) == table.dim:
        return [str(name) for name in classes]
    kind = "class" if table.has_classes else "attribute"
    return [f"{kind}-{index}" for index in range(table.dim)]


def _choose(wanted: str, indices: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return the indices that a text of names, indices and ranges means, each once, in order."""
    by_name = {names[index]: index for index in indices}
    chosen: set[int] = set()
    for word in filter(None, (word.strip() for word in wanted.split(","))):
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
        raise _unknown(wanted, indices, names)
    return sorted(chosen)


def _unknown(word: str, indices: Sequence[int], names: Sequence[str]) -> ConfigError:
    known = [f"{index} {names[index]}" for index in indices]
    shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    return ConfigError(
        f"--attributes {word}", expected=f"out of {shown}", fix="check names and numbers"
    )
