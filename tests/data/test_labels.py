import json
import math

import pytest
import torch

from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import LabelTable
from stylegan.errors import DataError

NAMES = ["a.png", "b.png", "c.png"]


def test_classes_become_one_hot_and_the_largest_decides_the_width():
    table = LabelTable([2, 0, 2], NAMES)
    assert (table.dim, table.has_classes) == (3, True)
    expected = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, 1]])
    assert torch.equal(table.gather(torch.arange(3)), expected)


def test_lists_of_numbers_are_taken_verbatim():
    table = LabelTable([(0.5, -3), (2, 1.25), (0, 0)], NAMES)
    assert (table.dim, table.has_classes) == (2, False)
    found = table.gather(torch.tensor([1, 0]))
    assert found.dtype == torch.float32
    assert found.tolist() == [[2, 1.25], [0.5, -3]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, None], "2 of 3 images have no label, the first is b.png"),
        ([0, -1, 1], "b.png has the label -1, which is not a class"),
        ([0, 1, 65536], "c.png has the label 65536, which is not a class"),
        ([(0.5,), 1, (0.5,)], r"a.png has the label \(0.5,\), while others are classes"),
        (
            [(0.5,), (1, 2), (1,)],
            "b.png has the label .* which has 2 numbers, while the first has 1",
        ),
        ([(), (), ()], "a.png has the label .* which has 0 numbers, while the first has 0"),
        ([(0.5,), (math.nan,), (1,)], "b.png has the label .* which is not finite"),
    ],
)
def test_labels_that_do_not_go_together_are_refused_and_named(labels, message):
    with pytest.raises(DataError, match=message):
        LabelTable(labels, NAMES)


def test_labels_are_drawn_as_often_as_they_are_in_the_set():
    table = LabelTable([0, 0, 2], NAMES)
    drawn = table.draw(3000, torch.Generator().manual_seed(0))
    shares = drawn.mean(dim=0)
    # the deviation of a share p of 3000 is below 0.0087; this is four of them
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 0, 1 / 3]), atol=0.035, rtol=0)
    assert torch.equal(drawn, table.draw(3000, torch.Generator().manual_seed(0)))


def test_a_set_has_the_vectors_of_its_labels_mirrored_ones_included(folder):
    pairs = [[f"{index:03d}.png", index % 3] for index in range(7)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    dataset = ImageDataset(folder, mirror=True)
    assert dataset.label_dim == 3
    assert dataset.gather_labels([1, 8, 13]).argmax(dim=1).tolist() == [1, 1, 0]


def test_missing_labels_matter_only_to_who_asks_for_vectors(folder):
    (folder / "dataset.json").write_text(json.dumps({"labels": [["000.png", 0]]}))
    dataset = ImageDataset(folder)  # the warning has a test of its own
    with pytest.raises(DataError, match=r"6 of 7 images have no label, the first is 001.png"):
        _ = dataset.label_dim


def test_a_set_without_labels_has_none_to_give(folder):
    dataset = ImageDataset(folder)
    assert (dataset.label_table, dataset.label_dim) == (None, 0)
    with pytest.raises(ValueError, match="has no labels"):
        dataset.gather_labels([0])
